"""Give space back: drop what nobody uses."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_seeddb.errors import CloneError, ServerError
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.opening import embedded_status, open_server
from pytest_seeddb.templates.inventory import inventory
from pytest_seeddb.templates.pruning import chosen, drop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_seeddb.servers.remains import Remains
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.inventory import Entry
    from pytest_seeddb.templates.pruning import Choice, Limits


@dataclass(frozen=True)
class Item:
    """One thing that goes.

    Attributes:
        kind: ``template``, ``layer``, ``clone``, ``build`` or ``kept``: a database; ``data`` or
            ``programs``: a directory of an embedded server in the cache directory.
        name: The database, or the directory.
        label: The plan and profile of a template.
        size: Bytes; ``None`` where our role may not know.
        reason: Why it goes.
    """

    kind: str
    name: str
    label: str
    size: int | None
    reason: str


@dataclass(frozen=True)
class Staying:
    """Something that was to go and stays.

    Attributes:
        reason: Why.
        failed: Whether it was refused; else somebody has begun to use it.
    """

    name: str
    reason: str
    failed: bool


@dataclass(frozen=True)
class Pruned:
    """What `prune` came to.

    Attributes:
        dry_run: Whether nothing was done: then ``gone`` is what would go.
        freed: Bytes of what went.
        left: Bytes of our databases that stay.
        in_use: How many databases stay because somebody uses them.
    """

    dry_run: bool
    gone: tuple[Item, ...]
    stays: tuple[Staying, ...]
    freed: int
    left: int
    in_use: int


@dataclass
class _Removal:
    """What went so far, and what was refused."""

    dry_run: bool
    gone: list[Item] = field(default_factory=list)
    stays: list[Staying] = field(default_factory=list)

    def take(self, item: Item, remove: Callable[[], bool]) -> None:
        """Remove it; a refusal is noted, so that one does not save the others."""
        try:
            if self.dry_run or remove():
                self.gone.append(item)
            else:
                self.stays.append(Staying(item.name, "somebody uses it by now", failed=False))
        except (CloneError, ServerError, OSError) as error:
            self.stays.append(Staying(item.name, str(error), failed=True))


def prune(settings: Settings, limits: Limits, *, dry_run: bool = False) -> Pruned:
    """Drop what the limits say, and orphans. What is in use stays, and so does what is not ours.

    On an embedded server also what others of its kind have left in the cache directory: that of
    which no process holds the locks. Killed in between, it has dropped a part, and nothing is broken.

    Raises:
        SeedDbError: The settings are wrong, or there is no usable server.
    """
    stands = embedded_status(settings)
    removal = _Removal(dry_run)
    entries: list[Entry] = []
    if settings.server == "container":
        _stop(settings, removal)
        return _pruned(entries, removal)
    opened = stands is None or stands.running or stands.kept
    with ExitStack() as stack:
        if opened:
            server = stack.enter_context(open_server(settings))
            stack.enter_context(server_errors("The databases could not be pruned", server.address))
            admin = stack.enter_context(Admin(server.address))
            entries = inventory(admin)
            _drop(admin, chosen(entries, limits), removal)
        if stands is not None:
            _remove(_leavable(stands.state if opened else None, limits), removal)
    return _pruned(entries, removal)


def _stop(settings: Settings, removal: _Removal) -> None:
    """A container's databases go with it; those that nobody uses go as a whole."""
    from pytest_seeddb.servers import container  # not on Windows

    source = settings.source("server")
    unused = [each for each in container.containers(source) if not each.in_use]
    for each in unused if removal.dry_run else container.stop(source):
        removal.take(Item("container", each.identity, each.image, None, "nobody uses it"), lambda: True)


def _drop(admin: Admin, choices: Sequence[Choice], removal: _Removal) -> None:
    for choice in choices:
        removal.take(_item(choice), lambda entry=choice.entry: drop(admin, entry))  # type: ignore[misc]  # binds the loop's value


def _item(choice: Choice) -> Item:
    entry, record = choice.entry, choice.entry.record
    kind = "layer" if record and record.layer else entry.kind
    label = f"{record.plan}/{record.profile}" if record else ""
    return Item(kind, entry.name, label, entry.size, choice.reason)


def _leavable(current: Path | None, limits: Limits) -> list[tuple[Remains, str]]:
    """What embedded servers have left that the limits let go, but for the one whose databases are pruned one by one."""
    from pytest_seeddb.servers.remains import remains  # not on Windows

    others = [each for each in remains() if each.state != current and not each.in_use]
    if limits.everything:
        return [(each, "nobody uses it") for each in others]
    return [(each, f"last used on {each.used}") for each in others if limits.is_old(each.used)]


def _remove(leavable: Sequence[tuple[Remains, str]], removal: _Removal) -> None:
    from pytest_seeddb.servers.remains import remove  # not on Windows

    for found, reason in leavable:
        item = Item(found.kind, str(found.place), "", found.size, reason)
        removal.take(item, lambda found=found: remove(found))  # type: ignore[misc]  # binds the loop's value


def _pruned(entries: Sequence[Entry], removal: _Removal) -> Pruned:
    gone = {each.name for each in removal.gone}
    return Pruned(
        removal.dry_run,
        tuple(removal.gone),
        tuple(removal.stays),
        freed=sum(each.size or 0 for each in removal.gone),
        left=sum(each.size or 0 for each in entries if each.name not in gone),
        in_use=sum(each.in_use for each in entries),
    )
