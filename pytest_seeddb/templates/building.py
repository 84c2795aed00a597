"""Fill a private database with a plan's stages and make it ready to be cloned."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Final

from psycopg import sql

from pytest_seeddb.application.defined_tables import noting_definitions
from pytest_seeddb.application.django_finders import missing_rivals
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.fingerprint import recording as data_files
from pytest_seeddb.fingerprint.closure import Closure
from pytest_seeddb.fingerprint.digests import CHANGED_MEANWHILE, MISSING, Part, differences, merge
from pytest_seeddb.fingerprint.django_settings import PART as APPS_PART
from pytest_seeddb.fingerprint.participation import Participation
from pytest_seeddb.fingerprint.tracing import Tracing, is_exact
from pytest_seeddb.plan.numbering import Numbering
from pytest_seeddb.plan.plan import Progress, Target
from pytest_seeddb.templates.contents import SMALL, THE_USERS
from pytest_seeddb.templates.staleness import unlogged_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_seeddb.plan.plan import Plan, Stage, Step
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin, Strategy
    from pytest_seeddb.servers.server import Server
    from pytest_seeddb.templates.record import Record, Steps

_MUCH_LARGER: Final = 2
_NEWEST: Final = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"

# The name comes from regclass, which quotes what needs quotes.
_GAPS: Final = f"""
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE {THE_USERS} AND relpages BETWEEN 1 AND %s
  AND pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid) > 0
ORDER BY c.oid
"""  # noqa: S608 - constants of ours


@dataclass(frozen=True)
class Build:
    """A build under way: who, where, of what, for whom to see, which numbers factories have drawn, beside what."""

    admin: Admin
    name: str
    plan: Plan
    progress: Progress
    numbering: Numbering = field(default_factory=Numbering)
    beside: Mapping[str, Address] = field(default_factory=dict)
    moments: dict[str, int] = field(default_factory=dict)
    """By step, the first transaction number that nobody had used when it began."""

    @property
    def target(self) -> Target:
        """The database as the stages see it."""
        address = self.admin.address.with_database(self.name)
        return Target(
            address,
            self.plan.root,
            self.plan.env,
            self.progress.step,
            numbering=self.numbering,
            alias=self.plan.alias,
            beside=self.beside,
            settings=self.plan.settings,
        )


class Elsewhere(Exception):  # noqa: N818 - a verdict, which never leaves the worker
    """A build does not belong on this server: it changes what all databases of the server share."""


class BuildWatch:
    """Is asked around each build. This one objects to nothing."""

    def begin(self, plan: Plan) -> None:
        """A build is about to begin. May raise `Elsewhere`."""

    def fail(self, plan: Plan, error: SeedDbError) -> None:
        """A build has failed. May raise `Elsewhere`."""

    def end(self, plan: Plan, end: int, since: float) -> None:
        """The first ``end`` steps have run, and nothing is published yet. May raise `Elsewhere`."""


@dataclass(frozen=True)
class BuildSupport:
    """What builds need from those who ask for them; ``around`` makes a context in which a build runs."""

    progress: Progress = field(default_factory=Progress)
    around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    again: Callable[[Plan], Plan] = lambda plan: plan  # the same from the files as they are by then
    siblings: Callable[[Plan], Mapping[str, Plan]] = lambda _plan: {}  # those of Django's other databases, by alias
    watch: BuildWatch = field(default_factory=BuildWatch)
    open_data: Callable[[str], contextlib.AbstractContextManager[Server]] | None = None
    """Starts a server on other data, for plans that need data of their own; ``None`` where it cannot."""
    is_apart: bool = False
    """Whether the server is already one of those."""


def fill(
    build: Build,
    stages: Sequence[tuple[Stage, int]],
    steps: Steps = (),
    again: Callable[[Plan], Plan] = lambda plan: plan,
    before: tuple[Steps, Participation] = ((), Participation()),
) -> tuple[tuple[Part, ...], Participation]:
    """Run the stages, each from its first undone step, and end every connection they left; what they read, and ran.

    ``before`` are the steps that it has already, and the code that these depend on. ``steps`` are all that the database
    then has; none where nobody will look for it later. What changed since the plan was made is among the parts as never
    matching.
    """
    names = ", ".join(stage.name for stage, _ in stages)
    build.progress.begin(build.plan, names, sum(len(stage.steps) - done for stage, done in stages))
    opened, path, trace = data_files.Recording(build.plan.root), [*sys.path], Tracing()

    def started(step: Step) -> None:
        trace.begin(step.name)
        build.progress.step(step)
        build.moments[step.name] = build.admin.run(_NEWEST)[0][0]

    done_before = {name for name, _ in before[0]}
    roots = {step.name: step.roots for stage, _ in stages for step in stage.steps if step.name not in done_before}
    try:
        with opened, trace, noting_definitions(), contextlib.chdir(build.plan.root):
            for stage, done in stages:
                stage.run(replace(build.target, started=started, end=len(stage.steps)), done)
    finally:
        build.progress.end()
        if not build.admin.is_broken:
            build.admin.evict(build.name)
    trace.is_partial |= opened.has_children
    trace.has_apps = any(part.name == APPS_PART for step in build.plan.steps for part in step.parts)
    after, running = [*sys.path], {stage.name for stage, _ in stages}
    whole = [stage for stage in build.plan.stages if stage.name in running]  # where one of these is cut
    others = [root.file for stage in whole for step in stage.steps for root in step.roots]
    with _path(path):
        loaded = data_files.loaded(build.plan.root)
        ran = Closure(build.plan.root, trace, roots, loaded, after, others).after(before[1])
    read = data_files.all_parts(
        opened.parts(), build.plan.root, ran.files, build.plan.ignored_variables, follow=not is_exact()
    )
    changed: set[str] = set()
    if steps:  # what they say was not built where a file changed since the plan was made
        with _path(path):
            now = _steps_again(lambda: again(build.plan))[: len(steps)]
        changed = {difference.name for difference in differences(steps, now)}
    found_by_name = (*ran.files, *(part.name for part in read))
    missing = (Part(name, MISSING) for name in missing_rivals(found_by_name, build.plan.root))
    return merge((*read, *missing, *(Part(name, CHANGED_MEANWHILE) for name in changed))), ran


@contextlib.contextmanager
def _path(path: list[str]) -> Iterator[None]:
    """Let ``sys.path`` be as it was, and as it will be at the next look: Alembic leaves directories on it."""
    now, sys.path[:] = [*sys.path], path
    try:
        yield
    finally:
        sys.path[:] = now


def _steps_again(again: Callable[[], Plan]) -> Steps:
    """The steps of the plan made again; none where it fails."""
    try:
        return tuple((step.name, step.declared) for step in again().steps)
    except SeedDbError:
        return ()  # the next run reports it


def finish(build: Build, draft: Record, started: float) -> Record:
    """Vacuum, warm and measure the filled database, and complete its record; nobody is connected when it returns."""
    address = build.admin.address.with_database(build.name)
    with address.connect(autocommit=True, application_name="pytest-seeddb") as connection:
        # Clones start with statistics, hint bits and a visibility map, so that reads write nothing.
        connection.execute("SET statement_timeout = 0")
        connection.execute("SET default_transaction_read_only = off")
        # VACUUM marks a page all-visible only if the commits in it have reached the log on disk, which
        # those made with synchronous_commit=off do some 200 ms later. A synchronous one takes them along.
        connection.execute("SET synchronous_commit = on")
        connection.execute("SELECT pg_logical_emit_message(true, 'seeddb', '')")
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        # A small table without gaps can be put back exactly when a test has updated it: its rows keep their order.
        for (table,) in connection.execute(_GAPS, [SMALL]).fetchall():
            connection.execute(sql.SQL("VACUUM (FULL, FREEZE, ANALYZE) {}").format(sql.SQL(table)))
            connection.execute(sql.SQL("VACUUM (FREEZE) {}").format(sql.SQL(table)))
        unlogged = unlogged_digest(connection)
    # The first connection to a database writes pg_internal.init, which FILE_COPY copies: a clone's
    # own first connection then takes 3 to 5 ms instead of 6 to 15.
    address.connect().close()
    # Somebody who connects to each database that he sees would keep it from being cloned.
    build.admin.refuse_connections(build.name)
    build.admin.evict(build.name)
    return replace(
        draft,
        size=(size := build.admin.size(build.name)),
        # The base was timed already; the same way is the cheapest unless the base is much smaller.
        strategy=draft.strategy if 0 < size < _MUCH_LARGER * draft.size else cheapest_strategy(build),
        seconds=round(perf_counter() - started, 3),
        unlogged=unlogged,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
    )


def cheapest_strategy(build: Build) -> Strategy:
    """The cheapest way of cloning on this server, by trying both with this very database where it waits for its disk.

    With ``fsync=off`` the trials take longer than they save. FILE_COPY is the quicker: 62 ms against 105 in memory, 538
    against 564 on a disk that is slow with new files; and for 233 MB 125 ms against 1,600, as WAL_LOG writes each page
    to the log as well.

    FILE_COPY checkpoints, so with ``fsync=on`` the order can turn round. Its first checkpoint
    also writes what the build has left in memory, which no later clone pays for (29 ms instead of 15 for 9 MB); so it
    is tried twice.
    """
    if not _waits_for_disk(build):
        return "FILE_COPY"
    first = _trial_seconds(build, "FILE_COPY")
    through_the_log = _trial_seconds(build, "WAL_LOG")
    return "FILE_COPY" if min(first, _trial_seconds(build, "FILE_COPY")) <= through_the_log else "WAL_LOG"


def _waits_for_disk(build: Build) -> bool:
    return bool(build.admin.run("SHOW fsync")[0][0] == "on")


def _trial_seconds(build: Build, strategy: Strategy) -> float:
    """What a test would wait: the clone and its first connection."""
    trial = f"{build.name}0"
    started = perf_counter()
    try:
        build.admin.clone(build.name, trial, strategy)
        build.admin.address.with_database(trial).connect().close()
        return perf_counter() - started
    finally:
        build.admin.drop(trial)
