"""A dump that is restored first: the stage for it, and which later steps it makes superfluous."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.dumps.formats import DumpFile, recognize
from pytest_seeddb.fingerprint.digests import glob_parts, relative_name
from pytest_seeddb.plan.ledger import SCHEMA, read
from pytest_seeddb.plan.plan import Marks, Stage, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import psycopg

    from pytest_seeddb.plan.plan import Mark, Target
    from pytest_seeddb.settings.settings import Settings

STAGE: Final = "dump"
"""The stage's name."""

_HOLDS_SOMETHING: Final = """
SELECT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', %s) AND relpersistence <> 't'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e'))
"""


def with_dump(settings: Settings, profile: str, stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """The stages of a plan, after one that restores the dump of the settings; raises `ConfigError` where it is none.

    The steps stay the same; those that the dump holds do nothing: Alembic's by its version table, others by the ledger
    that `seeddb dump` put into it, without which all seeds run. A dump of another profile is restored only where no
    migrations are declared; else all runs from the beginning.
    """
    dump = _Dump.of(settings)
    is_other = dump and dump.file.origin and dump.file.origin.profile != profile
    if dump is None or (is_other and settings.migrations is not None):
        return tuple(stages)
    # Each layer would hold the dump's data once more.
    stages = (dump.without_its_steps(stage) if stage.tier else replace(stage, stops=()) for stage in stages)
    return (dump.stage(), *stages)


def dump_stage(settings: Settings) -> Stage | None:
    """The stage that restores the dump of the settings, for any profile; ``None`` where they name none."""
    dump = _Dump.of(settings)
    return dump.stage() if dump else None


@dataclass
class _Dump:
    """A dump to restore, and the databases that this process restored it into."""

    file: DumpFile
    settings: Settings
    source: str
    restored: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, settings: Settings) -> _Dump | None:
        source = settings.source("dump")
        return cls(recognize(settings.dump, source=source), settings, source) if settings.dump else None

    def stage(self) -> Stage:
        path, root = self.file.path, self.settings.root
        parts = glob_parts([str(path)], root, source=self.source)
        step = Step(f"dump {relative_name(path, root)}", parts, version=STAGE, rerun="always")
        tier = "demo" if self.file.origin and self.file.origin.tier == "demo" else ""

        def run(target: Target, first: int) -> None:
            from pytest_seeddb.dumps.restoring import Restoring, restore

            if first or not target.marks.wants(step) or not _clear(target):
                return
            target.started(step)
            restore(Restoring(self.file, self.settings, self.source), target)
            with _connect(target) as connection:
                target.numbering.steps.update(read(connection).numbering.steps)
            target.marks.renew()
            self.restored.add(target.address.conninfo)

        def steps_in(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
            return (step.name,) if _is_filled(connection) else ()

        return Stage(STAGE, (step,), run, tier=tier, steps_in=steps_in)

    def without_its_steps(self, stage: Stage) -> Stage:
        """The same stage, which runs no step that the dump says it holds."""

        def run(target: Target, first: int) -> None:
            stage.run(replace(target, marks=_Except(target.marks, self._steps(target))), first)

        return replace(stage, run=run)

    def _steps(self, target: Target) -> frozenset[str]:
        """The steps that the dump says it holds, by name: it stands for their data, whatever they are now.

        A database with a ledger of its own was asked by the caller already, unless the dump came just now.
        """
        if target.marks.are_kept and target.address.conninfo not in self.restored:
            return frozenset()
        with _connect(target) as connection:
            return frozenset(name for name, step in read(connection).steps.items() if step.finished)


def _clear(target: Target) -> bool:
    """Whether the database has nothing in it; an empty ledger that waits for the first step is taken away."""
    with _connect(target) as connection:
        if _is_filled(connection):
            return False
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        return True


def _is_filled(connection: psycopg.Connection[Any]) -> bool:
    """Whether it holds something, so that no dump is restored into it."""
    row = connection.execute(_HOLDS_SOMETHING, [SCHEMA]).fetchone()
    return bool(row and row[0]) or bool(read(connection).steps)


class _Except(Marks):
    def __init__(self, marks: Marks, unwanted: frozenset[str]) -> None:
        self._marks = marks
        self._unwanted = unwanted

    @property
    def are_kept(self) -> bool:
        return self._marks.are_kept

    def wants(self, step: Step) -> bool:
        return step.name not in self._unwanted and self._marks.wants(step)

    def mark(self, step: Step) -> Mark | None:
        return self._marks.mark(step)

    @contextmanager
    def around(self, step: Step) -> Iterator[None]:
        with self._marks.around(step):
            yield

    def renew(self) -> None:
        self._marks.renew()


def _connect(target: Target) -> psycopg.Connection[Any]:

    return target.address.connect(autocommit=True)
