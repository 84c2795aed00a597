"""Proof that what is declared holds: that seeds are sound, and that a committed dump is not stale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from pytest_seeddb.cli.soundness import prove
from pytest_seeddb.clones.worker import Worker, open_worker
from pytest_seeddb.dumps.formats import recognized
from pytest_seeddb.dumps.restoring import Restoring, read_through
from pytest_seeddb.dumps.schema import SchemaDifference, differences, schema_of
from pytest_seeddb.dumps.stage import dump_stage
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.fingerprint.opened import begin
from pytest_seeddb.plan import ledger
from pytest_seeddb.plan.plan import Plan, Progress, Stage, Step
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.templates.building import Build, fill
from pytest_seeddb.templates.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_seeddb.cli.soundness import Soundness
    from pytest_seeddb.clones.pool import Clone
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.settings.settings import Settings

_SCHEMA_STAGES = ("extensions", "migrations")


@dataclass(frozen=True)
class DumpVerdict:
    """What was found out about a dump.

    Attributes:
        dump: Its name.
        stale: Whether it is not what migrating from scratch makes.
        migrations: How many there are.
        lacks: Those that it does not hold.
        changed: Those that are not any more what they were when it was made.
        differences: How its schema (``-``) differs from that of migrating from scratch (``+``), where it
            holds all migrations.
        profile: The profile that it is of; empty where it does not say.
        left_out: How many statements of it are not run when it is restored, by what they are about.
    """

    dump: str
    stale: bool
    migrations: int
    lacks: tuple[str, ...]
    changed: tuple[str, ...]
    differences: tuple[SchemaDifference, ...]
    profile: str
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Verified:
    """What was found out about a project.

    Attributes:
        seeds: Whether its seeders make the same rows each time; ``None`` where that was not asked.
        dump: Whether its dump is up to date; ``None`` where it has none.
    """

    seeds: Soundness | None
    dump: DumpVerdict | None

    @property
    def holds(self) -> bool:
        """Whether all of it is as it should be."""
        return (self.seeds is None or self.seeds.is_sound) and (self.dump is None or not self.dump.stale)


def verify(settings: Settings, progress: Progress, *, only_dump: bool = False) -> Verified:
    """Prove the seeds, and hold the dump against the migrations.

    Takes several builds without a template. Nothing but templates is left on the server.

    Raises:
        ConfigError: The settings are wrong, or name no dump where only that was asked for.
        BuildError: A step failed.
        ServerError: There is no usable server.
    """
    seeds = None if only_dump else verify_seeds(settings)
    dump = verify_dump(settings, progress) if only_dump or settings.dump is not None else None
    return Verified(seeds, dump)


def verify_seeds(settings: Settings) -> Soundness:
    """Build twice, run each seeder twice, and compare: see `pytest_seeddb.cli.soundness`.

    Raises:
        ConfigError: The settings are wrong.
        BuildError: A step failed.
        ServerError: There is no usable server.
    """
    # A dump holds rows that the seeders would not make any more.
    alone = replace(settings, dump=None)
    with open_server(alone) as server, Scratch(server.address) as scratch:
        return prove(alone, {}, scratch)


def verify_dump(settings: Settings, progress: Progress) -> DumpVerdict:
    """Restore the settings' dump by itself, and hold it against the migrations.

    Both are restored and migrated into templates, as for a run of tests, so that what was not changed since
    is not done again. Nothing else is left on the server, and the dump is only read.

    Raises:
        ConfigError: The settings name no dump or no migrations, or are wrong.
        BuildError: The dump cannot be restored, or a migration failed.
        ServerError: There is no usable server, or no client program.
    """
    stage = dump_stage(settings)
    if stage is None or settings.migrations is None:
        raise _nothing_to_verify(settings)
    begin(settings.root)
    plan = plan_of(replace(settings, dump=None))
    schema = replace(plan, stages=tuple(each for each in plan.stages if each.name in _SCHEMA_STAGES), recipe=None)
    with open_worker(settings, progress) as worker:
        server = worker.server
        clone = _clone(worker, replace(plan, profile="the dump alone", stages=(stage,), recipe=None))
        before = _schema(settings, server, clone.address)
        changed = _changed(schema, clone.address)
        lacks = () if changed else tuple(_run(schema, worker, clone))
        found: list[SchemaDifference] = []
        if not changed and not lacks:
            scratch = _clone(worker, replace(schema, profile="the migrations alone"))
            found = differences(before, _schema(settings, server, scratch.address))
    return _verdict(settings, server, schema, lacks, changed, tuple(found))


def _verdict(
    settings: Settings,
    server: Server,
    schema: Plan,
    lacks: tuple[str, ...],
    changed: tuple[str, ...],
    found: tuple[SchemaDifference, ...],
) -> DumpVerdict:
    assert settings.dump is not None  # noqa: S101 - it was restored
    dump = recognized(settings.dump, source=settings.source("dump"))
    left_out = read_through(Restoring(dump, settings, settings.source("dump")), server.major).left_out
    return DumpVerdict(
        dump=relative_name(settings.dump, settings.root),
        stale=bool(lacks or changed or found),
        migrations=sum(1 for step in schema.steps if _is_migration(step)),
        lacks=lacks,
        changed=changed,
        differences=found,
        profile=dump.origin.profile if dump.origin else "",
        left_out=left_out,
    )


def _clone(worker: Worker, plan: Plan) -> Clone:
    return worker.clones.make(worker.template(plan))


def _schema(settings: Settings, server: Server, address: Address) -> dict[str, str]:
    pg_dump = find_program(settings, "pg_dump", wanted=server.major, least=server.major, why="comparing schemas")
    return schema_of(address, pg_dump)


def _changed(plan: Plan, address: Address) -> tuple[str, ...]:
    """The files of migrations that the dump holds in another version: what no tool but its ledger knows."""
    with psycopg.connect(address.conninfo) as connection:
        noted = ledger.read(connection)
    files = (step for step in plan.steps if _is_migration(step) and step.rerun == "never")
    return tuple(step.name for step in files if step.name in noted.steps and not noted.is_done(step))


def _run(plan: Plan, worker: Worker, clone: Clone) -> Iterator[str]:
    """Migrate the restored dump, and see which migrations the tool itself found missing."""
    heard = _Heard()
    stages: list[tuple[Stage, int]] = [(stage, 0) for stage in plan.stages]
    fill(Build(worker.admin, clone.name, plan, heard), stages)
    return (step.name for step in heard.steps if _is_migration(step))


def _is_migration(step: Step) -> bool:
    """Whether it is one of many; a callable or a command, which runs every time, is not."""
    return step.name.startswith("migration ")


class _Heard(Progress):
    """Keeps the steps that ran."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def step(self, step: Step) -> None:
        self.steps.append(step)


def _nothing_to_verify(settings: Settings) -> ConfigError:
    lacks = "dump" if settings.dump is None else "migrations"
    return ConfigError(
        "There is no dump that could be verified",
        saw=f"no `{lacks}` in the settings",
        source=str(settings.origin or settings.root),
        remedy='name both: dump = "seed-db.sql", which `seeddb dump -o seed-db.sql` writes, and migrations = ...',
    )
