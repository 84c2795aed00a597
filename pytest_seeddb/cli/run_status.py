"""What there is: the server, its templates, and what else of ours it holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.opening import describe, embedded_status, open_server
from pytest_seeddb.templates.inventory import Owner, inventory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_seeddb.servers.embedded import EmbeddedStatus
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.inventory import Entry

State = Literal["running", "started", "new"]


@dataclass(frozen=True)
class ServerShown:
    """The server that the settings name.

    Attributes:
        state: ``running``; ``started``: it had stopped, and ran for this look only; ``new``: there is
            none yet, and nothing was started.
        origin: Where it comes from.
        data: The directory of an embedded server; empty for others.
    """

    state: State
    kind: str
    version: str
    origin: str
    data: str = ""


@dataclass(frozen=True)
class TemplateShown:
    """A template.

    Attributes:
        plan: Empty, as are the others, where it does not say what it is.
        layer: Whether it holds a prefix of a plan, for later builds to start from.
        size: Bytes; ``None`` where our role may not know.
        used: The day of its last use.
        days: On how many days it was used.
        users: The processes that use it now.
        clones: Living clones of processes that use it and no other template.
    """

    name: str
    plan: str
    profile: str
    layer: bool
    size: int | None
    created: str
    used: str
    days: int
    users: tuple[Owner, ...]
    clones: int


@dataclass(frozen=True)
class CloneShown:
    """A clone, or an unfinished build.

    Attributes:
        owner: Who leases it; ``None`` where that one is gone: an orphan.
        templates: What its owner makes clones from.
    """

    name: str
    kind: str
    size: int | None
    owner: Owner | None
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptShown:
    """The database of a failed test.

    Attributes:
        connections: How many clients look at it now.
    """

    name: str
    size: int | None
    created: str
    connections: int


@dataclass(frozen=True)
class RemainsShown:
    """What an embedded server of another version or place has left in the cache directory."""

    kind: str
    place: str
    size: int
    used: str
    in_use: bool


@dataclass(frozen=True)
class Status:
    """What there is."""

    server: ServerShown
    templates: tuple[TemplateShown, ...] = ()
    clones: tuple[CloneShown, ...] = ()
    orphans: tuple[CloneShown, ...] = ()
    kept: tuple[KeptShown, ...] = ()
    remains: tuple[RemainsShown, ...] = ()


def status(settings: Settings) -> Status:
    """Look at the server that the settings name. Changes nothing, sweeps nothing, imports nothing of the user's.

    An embedded server that has stopped, as it has soon after each run, is started for the look: what
    it keeps can be told in no other way, and that takes a tenth of a second. One that keeps nothing is not.

    Raises:
        SeedDbError: The settings are wrong, or there is no usable server.
    """
    if settings.server == "container" and not _runs(settings):
        return Status(ServerShown("new", "container", "", describe(settings), ""))
    stands = embedded_status(settings)
    if stands and not (stands.running or stands.kept):
        shown = ServerShown("new", "embedded", stands.binaries.version, stands.binaries.origin, str(stands.state))
        return Status(shown, remains=_remains(stands))
    with open_server(settings) as server, Admin(server.address) as admin:
        with server_errors("The databases could not be listed", server.address):
            found = inventory(admin)
        return _status(found, _server(server, stands), _remains(stands))


def _runs(settings: Settings) -> bool:
    from pytest_seeddb.servers.container import is_running  # not on Windows

    return is_running(settings)


def _server(server: Server, stands: EmbeddedStatus | None) -> ServerShown:
    state: State = "running" if stands is None or stands.running else "started"
    origin = server.address.masked if stands is None else server.origin
    return ServerShown(state, server.kind, server.version, origin, str(stands.state) if stands else "")


def _remains(stands: EmbeddedStatus | None) -> tuple[RemainsShown, ...]:
    from pytest_seeddb.servers.remains import remains  # not on Windows

    if stands is None:
        return ()
    others = [each for each in remains() if each.state != stands.state]
    return tuple(RemainsShown(each.kind, str(each.place), each.size, each.used, each.in_use) for each in others)


def _status(found: Sequence[Entry], server: ServerShown, remains: tuple[RemainsShown, ...]) -> Status:
    leased = [_clone(each, found) for each in found if each.kind in {"clone", "build"}]
    return Status(
        server,
        templates=_templates(found, leased),
        clones=tuple(each for each in leased if each.owner),
        orphans=tuple(each for each in leased if not each.owner),
        kept=tuple(
            KeptShown(each.name, each.size, each.created, each.connections) for each in found if each.kind == "kept"
        ),
        remains=remains,
    )


def _clone(entry: Entry, found: Sequence[Entry]) -> CloneShown:
    owner = entry.users[0] if entry.users else None
    templates = tuple(each.name for each in found if owner and _is_cloned_by(each, owner))
    return CloneShown(entry.name, entry.kind, entry.size, owner, templates if entry.kind == "clone" else ())


def _is_cloned_by(entry: Entry, owner: Owner) -> bool:
    """Whether the owner makes clones from it: layers are for builds only."""
    return entry.kind == "template" and owner in entry.users and not (entry.record and entry.record.layer)


def _templates(found: Sequence[Entry], leased: Sequence[CloneShown]) -> tuple[TemplateShown, ...]:
    clones = Counter(each.templates for each in leased)
    shown = [_template(each, clones[(each.name,)]) for each in found if each.kind == "template"]
    return tuple(sorted(shown, key=lambda each: (each.plan, each.profile, not each.layer, each.created)))


def _template(entry: Entry, clones: int) -> TemplateShown:
    record = entry.record
    return TemplateShown(
        entry.name,
        record.plan if record else "",
        record.profile if record else "",
        bool(record and record.layer),
        entry.size,
        entry.created,
        entry.used,
        record.days if record else 0,
        entry.users,
        clones,
    )
