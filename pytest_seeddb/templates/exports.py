"""A finished template as a file: an archive of ``pg_dump`` with a tail that names its fingerprint.

Restored, it becomes the template that a build would have made, through the same locks, finish and commit point.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from psycopg import sql

from pytest_seeddb.dumps.formats import recognize
from pytest_seeddb.dumps.restoring import Restoring, restore
from pytest_seeddb.dumps.writing import Output
from pytest_seeddb.errors import BuildError, ConfigError, SeedDbError
from pytest_seeddb.fingerprint.atomic import beside
from pytest_seeddb.fingerprint.digests import Part, digest, explain_change, part_pairs, parts_from
from pytest_seeddb.fingerprint.recording import take_over
from pytest_seeddb.plan.plan import Stage, Step
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.places import cache_place, own_account
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.templates.grants import Carried, Grant, Setting
from pytest_seeddb.templates.history import inputs_then_and_now
from pytest_seeddb.templates.record import FORM, Record

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_seeddb.plan.plan import Plan, Target
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.templates import Look, Template

_END: Final = b"SEEDDB01"
_LENGTH_DIGITS: Final = 8
_PIECE: Final = 1 << 20
_VIEWS: Final = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'm' AND relispopulated ORDER BY 1"
_SHOWN: Final = "SELECT coalesce(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '') FROM {} t"


class Unusable(Exception):  # noqa: N818 - read as "the file is unusable": a build takes its place
    """The file cannot take a build's place; the text says why, in one line."""


@dataclass(frozen=True)
class Tail:
    """What an exported template says of itself."""

    record: Record
    server: tuple[Part, ...]  # what its server contributed to the fingerprint
    carried: Carried
    views: tuple[Part, ...]  # what its materialized views show: a restore refreshes them, and these rows may be older
    size: int  # bytes of the archive before the tail
    digest: str  # of these bytes, SHA-256

    def to_bytes(self) -> bytes:
        """The end of the file."""
        fields = {
            "record": self.record.to_json(),
            "server": part_pairs(self.server),
            "views": part_pairs(self.views),
            "carried": dataclasses.asdict(self.carried),
            "size": self.size,
            "digest": self.digest,
        }
        text = json.dumps(fields).encode()
        return text + b"%0*x" % (_LENGTH_DIGITS, len(text)) + _END

    @classmethod
    def read(cls, path: Path) -> Tail:
        """The tail of a file; raises `Unusable`."""
        try:
            with path.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size - len(_END) - _LENGTH_DIGITS))
                length, end = stream.read(_LENGTH_DIGITS), stream.read()
                if end != _END:
                    raise ValueError(end)  # noqa: TRY301 - as for any other damage
                stream.seek(max(0, size - len(_END) - _LENGTH_DIGITS - int(length, 16)))
                fields = json.loads(stream.read(int(length, 16)))
            record = Record.from_json(fields["record"])
            if record is None:
                raise Unusable(f"{path} was written by another version of pytest-seeddb")
            server, views, carried = parts_from(fields["server"]), parts_from(fields["views"]), fields["carried"]
            settings = tuple(Setting(**setting) for setting in carried["settings"])
            grants = None if carried["grants"] is None else tuple(Grant(**grant) for grant in carried["grants"])
            carried = Carried(settings, grants, carried["owner"])
            return cls(record, server, carried, views, int(fields["size"]), str(fields["digest"]))
        except FileNotFoundError:
            raise Unusable(f"there is no {path}") from None
        except OSError as error:
            raise Unusable(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise Unusable(f"{path} is cut short, or was not written by `seeddb build --export`") from None


def export(clone: Address, major: int, template: Template, look: Look, settings: Settings, path: Path) -> int:
    """Write a template into a file, complete or not at all, through a clone of it on a server of this major version."""
    pg_dump = find_program(settings, "pg_dump", wanted=major, least=major, why="exporting the template")
    try:
        with beside(path) as partial:
            Output(path, "custom", privileges=True).dump(clone, pg_dump, partial)
            size = partial.stat().st_size
            server, digest = dict(look.steps)["server"], _digest(partial, size)
            tail = Tail(template.record, server, template.carried, _views(clone), size, digest)
            with partial.open("ab") as stream:
                stream.write(tail.to_bytes())
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
    except OSError as error:
        raise _not_written(path, str(error)) from error
    return path.stat().st_size


def see_writable(path: Path) -> None:
    """See that a template could be written there, before a build takes its time; raises `ConfigError`."""
    if path.is_dir():
        raise _not_written(path, "this is a directory")
    if not path.parent.is_dir():
        raise _not_written(path, f"there is no directory {path.parent}")


def _not_written(path: Path, saw: str) -> ConfigError:
    return ConfigError(
        f"The template cannot be written to {path.name}",
        saw=saw,
        source=f"the option --export: {path}",
        remedy="name a file in an existing directory: --export FILE",
    )


def _views(address: Address) -> tuple[Part, ...]:
    """What each materialized view shows, as a digest."""
    with address.connect() as connection:
        names = [row[0] for row in connection.execute(_VIEWS).fetchall()]
        # The names come from regclass, which quotes what needs quotes.
        queries = [sql.SQL(_SHOWN).format(sql.SQL(name)) for name in names]
        rows = [connection.execute(query).fetchone() or ("",) for query in queries]
    return tuple(Part(name, str(row[0])) for name, row in zip(names, rows, strict=True))


def _digest(path: Path, size: int) -> str:
    hashed, left = hashlib.sha256(), size
    with path.open("rb") as stream:
        while left and (piece := stream.read(min(_PIECE, left))):
            hashed.update(piece)
            left -= len(piece)
    return hashed.hexdigest()


def importing(plan: Plan, look: Look, settings: Settings, path: Path) -> Plan:
    """The same plan, built by restoring the file where no layer is there; raises `Unusable`, which says why not."""
    tail = Tail.read(path)
    server, then = look.steps[0], plan.sealed(tail.record.salt)
    if tail.record.fingerprint != then.keys(server[1])[-1]:
        if tail.record.form != FORM:
            raise Unusable(f"an earlier version of pytest-seeddb wrote {path}")
        now = (server, *((step.name, step.declared) for step in then.steps))
        change = explain_change((("server", tail.server), *tail.record.steps), now)
        raise Unusable(f"{path} is of another plan: {change or 'another version made it'}")
    before, is_now = inputs_then_and_now(tail.record, plan)
    if before != is_now:
        change = explain_change(before, is_now)
        raise Unusable(f"{path} is of other code, data files or environment variables: {change}")
    if _digest(path, tail.size) != tail.digest:
        raise Unusable(f"{path} is damaged")
    source = "the option --import"
    restoring = Restoring(recognize(path, source=source), settings, source, exact=True)

    def run(target: Target, first: int) -> None:
        if first:
            for end, stage in plan.stage_ends():
                if end > first:
                    stage.run(target, max(0, first - (end - len(stage.steps))))
            return
        target.started(Step(f"import {restoring.name}"))
        restore(restoring, target)
        target.numbering.steps.update(tail.record.numbering.steps)
        if stale := sorted({part.name for part in set(_views(target.address)) ^ set(tail.views)}):
            raise BuildError(
                f"A materialized view in {restoring.name} holds other rows than when it was exported",
                saw=f"{', '.join(stale)}: not refreshed after its tables were filled, or depends on more than them",
                source=source,
                remedy="refresh it in the last seed",
            )
        with Admin(target.address) as admin:
            tail.carried.apply(admin, target.address.database)
        take_over(tail.record.opened, target.root)  # the new template depends on these as the exported one did

    return dataclasses.replace(plan, stages=(Stage("import", tuple(plan.steps), run),), imported=tail.record.ran)


# -- for servers that do not last -------------------------------------------------------------------

_DUMP_NAME: Final = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{16})?\.dump")
_KEPT_DUMPS: Final = 20  # dumps that stay, those that were used last


class KeptDumps:
    """Dumps of templates by fingerprint, for the next container; any number of processes may use them at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._directory = cache_place(own_account()) / "dumps"

    def restoring(self, plan: Plan, look: Look) -> Plan:
        """The plan as one that restores its dump; the plan itself where there is none that fits."""
        for path in self._directory.glob(f"{look.fingerprints[-1]}*.dump") if not look.template else ():
            with suppress(Unusable, SeedDbError):  # of other code, which may come back
                restored = importing(plan, look, self._settings, path)
                with suppress(OSError):
                    path.touch()
                return restored
        return plan

    def keep(self, clone: Address, major: int, template: Template, look: Look) -> None:
        """Write a template's dump, from a clone of it. A dump that cannot be written does not fail the run."""
        state = digest(repr((template.record.ran.steps, template.record.opened)))
        path = self._directory / f"{look.fingerprints[-1]}-{state}.dump"
        with suppress(SeedDbError, OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            export(clone, major, template, look, self._settings, path)
            ours = [path for path in self._directory.iterdir() if _DUMP_NAME.fullmatch(path.name)]
            ours.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for old in [*ours[_KEPT_DUMPS:], *(path for path in ours[:_KEPT_DUMPS] if _is_outdated(path, template))]:
                old.unlink(missing_ok=True)


def _is_outdated(dump: Path, template: Template) -> bool:
    """Whether an earlier version wrote the dump for the template's plan and profile."""
    try:
        return Tail.read(dump).record.is_outdated_by(template.record)
    except Unusable:
        return False
