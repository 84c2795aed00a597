"""``seeddb verify``: whether the seeds are sound, and whether a committed dump is what the migrations make.

The plan is built twice, in two processes with other hash seeds and at other times, and the tables are compared after
each step: the first step after which they differ is to blame. Then each seeder runs once more, on a copy.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic, perf_counter, sleep, time
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.application.surroundings import environment
from pytest_seeddb.cli.output import make_progress, show
from pytest_seeddb.cli.parser import settings_of
from pytest_seeddb.clones.opening import open_worker
from pytest_seeddb.dumps.formats import recognize
from pytest_seeddb.dumps.restoring import Restoring, read_through
from pytest_seeddb.dumps.schema import SchemaDifference, differences, schema_of
from pytest_seeddb.dumps.stage import dump_stage
from pytest_seeddb.errors import ConfigError, SeedDbError
from pytest_seeddb.fingerprint.digests import relative_name
from pytest_seeddb.fingerprint.recording import begin
from pytest_seeddb.plan import ledger
from pytest_seeddb.plan.numbering import Numbering
from pytest_seeddb.plan.plan import Marks, Progress, Target
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.servers.programs import find_program
from pytest_seeddb.templates.building import Build, BuildWatch, Elsewhere, fill
from pytest_seeddb.templates.contents import (
    TableContents,
    describe_difference,
    ignored_columns,
    read_contents,
    rows_made,
)
from pytest_seeddb.templates.scratch import Scratch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_seeddb.plan.plan import Step
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings

_APART: Final = 1.1  # seconds between the two builds' beginnings at least, so that a clock of seconds reads otherwise

_ADVICE: Final = (
    "draw from `random`, Faker or factory_boy, which are seeded; take dates from a parameter; sort sets; or name what "
    'may differ: verify.ignore = ["table.column", "type:uuid"]'
)
_SCHEMA_STAGES: Final = ("extensions", "migrations")


def run(parsed: argparse.Namespace) -> int:
    """Run the command: 1 where something does not hold. Leaves nothing but templates on the server."""
    settings = settings_of(parsed)
    seeds = None if parsed.dump else verify_seeds(settings)
    dump = verify_dump(settings, make_progress(parsed)) if parsed.dump or settings.dump is not None else None
    lines = (*(_seeds_lines(seeds) if seeds else ()), *(_dump_lines(dump) if dump else ()))
    show(parsed, {"seeds": seeds, "dump": dump}, lines, with_quiet=True)
    return 1 if (seeds and not seeds.is_sound) or (dump and dump.stale) else 0


# -- the seeds -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Rows of a table, with ``-`` and ``+`` before them: of the first build and the second, or before and after."""

    table: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class SeederVerdict:
    """What is known of one seeder, or of a migration that is unsound."""

    step: str
    seconds: float
    rows: Mapping[str, int]  # that it made, by table
    unlike: tuple[Difference, ...] = ()  # after the second build, but not before this step
    again: Literal["same", "other rows", "error"] = "same"  # when it is run once more
    claims: bool = False  # to be idempotent
    changed: tuple[Difference, ...] = ()
    error: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it makes the same rows each time, and is idempotent if it says so."""
        return not self.unlike and (self.again == "same" or not self.claims)


@dataclass(frozen=True)
class SeedsVerdict:
    """What is known of a plan's seeds."""

    plan: str
    profile: str
    seeders: tuple[SeederVerdict, ...] = ()
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the columns, by entry of `verify.ignore`

    @property
    def is_sound(self) -> bool:
        """Whether all of them are."""
        return all(seeder.is_sound for seeder in self.seeders)


def verify_seeds(settings: Settings) -> SeedsVerdict:
    """Build twice, run each seeder twice, and compare, in about three builds' time. Nothing is left on the server."""
    settings = replace(settings, dump=None)  # which holds rows that the seeders would not make any more
    with open_worker(settings) as worker:
        with contextlib.suppress(Elsewhere), Scratch(worker.server.address) as scratch:
            return prove(settings, scratch, scratch, worker.watch)
        # What it makes for the whole server, it makes once on each.
        with (
            worker.fresh_servers() as servers,
            Scratch(servers[0].address) as one,
            Scratch(servers[1].address) as other,
        ):
            return prove(settings, one, other)


def prove(settings: Settings, scratch: Scratch, another: Scratch, watch: BuildWatch | None = None) -> SeedsVerdict:
    """As `verify_seeds`, on the servers of ``scratch`` and ``another``. What ``watch`` raises is raised."""
    plan, watch = plan_of(settings), watch or BuildWatch()
    seeds = {step.name: step for stage in plan.stages if stage.tier for step in stage.steps}
    one, other = scratch.empty(), another.empty()
    ignore = settings.verify.ignore
    with _rehearsal(settings, 1) as first, _rehearsal(settings, 2) as second:
        watch.begin(plan)
        begun, since = monotonic(), time()
        try:
            performed = first(one)
        except SeedDbError as error:
            watch.fail(plan, error)
            raise
        watch.end(plan, len(plan.steps), since)
        sleep(max(0.0, begun + _APART - monotonic()))
        unlike = _unlike_tables(performed, second(other), one, other, ignore)
        finished, ignored = read_contents(one, ignore), ignored_columns(one, ignore)
        migrations, seeders = [], []
        for ran in performed:
            verdict = SeederVerdict(ran.step, ran.seconds, rows_made(ran.before, ran.after), unlike.get(ran.step, ()))
            if ran.step in seeds:
                verdict = replace(verdict, seconds=round(ran.seconds, 3), claims=seeds[ran.step].rerun == "safe")
                seeders.append(_repeat(verdict, first, scratch, one, finished, ignore))
            elif verdict.unlike:
                migrations.append(verdict)
    return SeedsVerdict(plan.name, plan.profile, (*migrations, *seeders), ignored)


def _unlike_tables(
    performed: Sequence[_Performed],
    again: Sequence[_Performed],
    one: Address,
    other: Address,
    ignore: Sequence[str],
) -> dict[str, tuple[Difference, ...]]:
    """By step, the tables that differ after it and did not before."""
    unlike: dict[str, tuple[Difference, ...]] = {}
    known: set[str] = set()
    for mine, others in zip(performed, again, strict=False):
        tables = {name for name in {*mine.after, *others.after} if mine.after.get(name) != others.after.get(name)}
        if fresh := sorted(tables - known):
            unlike[mine.step] = tuple(Difference(name, describe_difference(name, one, other, ignore)) for name in fresh)
        known |= tables
    return unlike


def _repeat(
    verdict: SeederVerdict,
    perform: Callable[..., object],
    scratch: Scratch,
    finished: Address,
    before: Mapping[str, TableContents],
    ignore: Sequence[str],
) -> SeederVerdict:
    """The verdict after the seeder has run once more, on a copy of the finished database."""
    copy = scratch.copy(finished)
    try:
        perform(copy, verdict.step)
    except SeedDbError as error:
        return replace(verdict, again="error", error=str(error))
    else:
        after, changed = read_contents(copy, ignore), []
        for name in sorted({*before, *after}):
            mine, others = before.get(name), after.get(name)
            if mine is None or others is None or mine.which != others.which:
                changed.append(Difference(name, describe_difference(name, finished, copy, ignore)))
        return replace(verdict, again="other rows" if changed else "same", changed=tuple(changed))
    finally:
        scratch.drop(copy)


def _seeds_lines(verdict: SeedsVerdict) -> Iterator[str]:
    for seeder in verdict.seeders:
        rows = ", ".join(f"{number} {table}" for table, number in seeder.rows.items()) or "no rows"
        yield f"{seeder.step}: {rows}, {seeder.seconds:.2f} s"
        for difference in seeder.unlike:
            yield f"  not the same each time: {difference.table}"
            yield from (f"    {line}" for line in difference.lines)
        if seeder.unlike:
            yield f"    {_ADVICE}"
        if seeder.again != "same":
            claim = "is declared idempotent=True but is not: " if seeder.claims else ""
            yield f"  {claim}run again, it {'fails' if seeder.error else 'makes other rows'}"
        elif not seeder.claims and seeder.rows:
            yield "  run again, it changes nothing: it could say @seeder(idempotent=True)"
        if seeder.claims:
            yield from (f"    {line}" for line in seeder.error.splitlines())
            for difference in seeder.changed:
                yield f"    {difference.table}"
                yield from (f"      {line}" for line in difference.lines)
    for entry, columns in verdict.ignored.items():
        yield f"not compared: {entry} ({', '.join(columns) or 'there is no such column'})"
    wrong = sum(not seeder.is_sound for seeder in verdict.seeders)
    sound = (
        f"sound: the same rows in two builds{', except what is not compared' if any(verdict.ignored.values()) else ''}"
    )
    yield f"{verdict.plan}/{verdict.profile}: {f'{wrong} unsound' if wrong else sound}"


# -- a process that runs steps -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Performed:
    """A step that ran, with what the tables held before and after."""

    step: str
    seconds: float
    before: Mapping[str, TableContents]
    after: Mapping[str, TableContents]


@contextlib.contextmanager
def _rehearsal(settings: Settings, hash_seed: int) -> Iterator[Callable[..., tuple[_Performed, ...]]]:
    """A process with its own hash seed, for the block, and what runs the plan or one step of it there, on a database.

    It prints on standard error. The factories' sequences of one step begin as they did in the plan.
    """
    spawning = multiprocessing.get_context("spawn")
    # The standard output belongs to the result.
    process = ProcessPoolExecutor(1, mp_context=spawning, initializer=os.dup2, initargs=(2, 1))

    def perform(address: Address, only: str = "") -> tuple[_Performed, ...]:
        with environment({"PYTHONHASHSEED": str(hash_seed)}):  # read when the process starts, and never again
            future = process.submit(_perform, settings, address, only)
        return future.result()

    try:
        yield perform
    finally:
        process.shutdown(cancel_futures=True)


_of_the_plan: Final = Numbering()  # in the process that runs it


def _perform(settings: Settings, address: Address, only: str) -> tuple[_Performed, ...]:
    """Run the plan or one step, and look at the tables between steps; that takes no time of theirs."""
    plan = plan_of(settings)
    contents = partial(read_contents, address, settings.verify.ignore)
    performed: list[_Performed] = []
    current: tuple[str, float, Mapping[str, TableContents]] | None = None

    def end() -> None:
        nonlocal current
        if current:
            step, started, before = current
            performed.append(_Performed(step, perf_counter() - started, before, contents()))
            current = None

    def begin(step: Step) -> None:
        nonlocal current
        end()
        before = performed[-1].after if performed else contents()
        current = step.name, perf_counter(), before

    numbering = _of_the_plan.copy() if only else _of_the_plan
    marks = _Only(only) if only else Marks()
    target = Target(address, plan.root, plan.env, begin, marks, numbering, settings=plan.settings)
    with contextlib.chdir(plan.root):
        for stage in plan.stages:
            if not only or any(step.name == only for step in stage.steps):
                stage.run(target, 0)
                end()
    return tuple(performed)


class _Only(Marks):
    def __init__(self, name: str) -> None:
        self._name = name

    def wants(self, step: Step) -> bool:
        return step.name == self._name


# -- the dump --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DumpVerdict:
    """What is known of a dump."""

    dump: str
    stale: bool
    migrations: int  # how many there are
    lacks: tuple[str, ...]
    changed: tuple[str, ...]  # migrations that it holds in another version
    differences: tuple[SchemaDifference, ...]  # from the schema of migrating from scratch (+), if it holds all
    profile: str  # empty where it does not say
    left_out: Mapping[str, int]  # statements that are not run when it is restored, by what they are about


def verify_dump(settings: Settings, progress: Progress) -> DumpVerdict:
    """Restore the settings' dump by itself, and compare it with the migrations; both become templates, as for tests."""
    stage = dump_stage(settings)
    if stage is None or settings.dump is None or settings.migrations is None:
        raise ConfigError(
            "There is no dump to verify",
            saw=f"no `{'dump' if settings.dump is None else 'migrations'}` in the settings",
            source=str(settings.origin or settings.root),
            remedy='set both: dump = "seed-db.sql" (`seeddb dump -o seed-db.sql` writes it) and migrations = ...',
        )
    begin(settings.root)
    plan = plan_of(replace(settings, dump=None))
    schema = replace(plan, stages=tuple(part for part in plan.stages if part.name in _SCHEMA_STAGES), recipe=None)
    migrations = [step for step in schema.steps if _is_migration(step)]
    lacks: list[str] = []
    differing: Sequence[SchemaDifference] = ()
    with open_worker(settings, progress) as worker:
        major = worker.server.major
        pg_dump = find_program(settings, "pg_dump", wanted=major, least=major, why="comparing schemas")
        alone = replace(plan, profile="the dump alone", stages=(stage,), recipe=None)
        restored = worker.template(alone)
        clone = worker.clone(restored)
        before = schema_of(clone.address, pg_dump)
        with clone.address.connect() as connection:
            noted = ledger.read(connection)
        # Of migration files only the ledger knows in which version they ran.
        files = [step for step in migrations if step.rerun == "never" and step.name in noted.steps]
        changed = [step.name for step in files if not noted.is_done(step, settings.root)]
        if not changed:
            lacks = _lacking(Build(worker.home(restored).admin, clone.name, schema, Progress()))
        if not changed and not lacks:
            scratch = worker.clone(worker.template(replace(schema, profile="the migrations alone")))
            differing = differences(before, schema_of(scratch.address, pg_dump))
    dump = recognize(settings.dump, source=settings.source("dump"))
    return DumpVerdict(
        dump=relative_name(settings.dump, settings.root),
        stale=bool(lacks or changed or differing),
        migrations=len(migrations),
        lacks=tuple(lacks),
        changed=tuple(changed),
        differences=tuple(differing),
        profile=dump.origin.profile if dump.origin else "",
        left_out=read_through(Restoring(dump, settings, settings.source("dump")), major).left_out,
    )


def _lacking(build: Build) -> list[str]:
    """Migrate the restored dump: which migrations the tool itself found missing."""
    steps: list[Step] = []

    class Heard(Progress):
        def step(self, step: Step) -> None:
            steps.append(step)

    fill(replace(build, progress=Heard()), [(stage, 0) for stage in build.plan.stages])
    return [step.name for step in steps if _is_migration(step)]


def _is_migration(step: Step) -> bool:
    """Whether it is one of many; a callable or a command, which runs every time, is not."""
    return step.name.startswith("migration ")


def _dump_lines(verdict: DumpVerdict) -> Iterator[str]:
    if not verdict.stale:
        held_by_it = f"holds all {verdict.migrations} migrations" if verdict.migrations else "needs no migration"
        yield f"{verdict.dump} {held_by_it}, and its schema matches one migrated from scratch"
    for verb, names in (("lacks", verdict.lacks), ("holds in another version", verdict.changed)):
        if names:
            yield f"{verdict.dump} is stale: it {verb}"
            yield from (f"  {name}" for name in names)
    if verdict.differences:
        yield f"{verdict.dump} is stale: its schema (-) differs from one migrated from scratch (+)"
        for difference in verdict.differences:
            yield f"  {difference.name}"
            yield from (f"    {line}" for line in difference.lines)
    if verdict.left_out:
        left_out = ", ".join(f"{number} {kind}" for kind, number in verdict.left_out.items())
        yield f"not run when it is restored: {left_out}"
    if verdict.stale:
        yield "write it again: seeddb dump, or seeddb dump --from-scratch"
