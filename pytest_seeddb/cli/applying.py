"""Bring a database that people work with to a plan's state, and note in it what was done.

The counterpart of `pytest_seeddb.templates.templates` for databases that are not ours: nothing here creates,
drops or renames one, and whatever was done before stays when a step fails.
"""

from __future__ import annotations

import contextlib
import re
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
from psycopg import sql

from pytest_seeddb.cli.emptying import empty
from pytest_seeddb.errors import BuildError, ServerError
from pytest_seeddb.plan import ledger as ledgers
from pytest_seeddb.plan.ledger import Ledger, LedgerMarks, Marker, marker_of
from pytest_seeddb.plan.plan import Progress, Target
from pytest_seeddb.seeds.counters import drawn_now
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.naming import lock_key
from pytest_seeddb.servers.remedies import connection_remedy
from pytest_seeddb.settings.production import NOWHERE, Environment, refused
from pytest_seeddb.templates.contents import label, tables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_seeddb.plan.plan import Plan, Stage, Step
    from pytest_seeddb.servers.address import Address

Action = Literal["done", "run", "accept", "refuse"]

_NOTHING: Final = Marker("", "", "", "", "")
_POLL: Final = 0.2
"""Seconds between attempts to reach a server that is coming up."""

_NOT_APPLIED: Final = "The plan could not be applied"
_NEEDED: Final = "it makes a schema in this database, for its notes of what was applied, beside what the plan makes"
_COMES_LATER: Final = re.compile("Connection refused|No such file or directory|starting up|failed to resolve host")
"""What libpq says of a server that may still be starting."""

_OF_MIGRATIONS: Final = frozenset(
    {"alembic_version", "django_migrations", "schema_migrations", "goose_db_version"}
    | {"django_content_type", "auth_permission", "django_site"}
)
"""Tables in which tools note what they have migrated, and those that Django fills after it has."""


@dataclass(frozen=True)
class Wish:
    """How a plan is to be applied.

    Attributes:
        force: Run all seeders again, whatever the ledger says.
        accept: Note what may not run again as applied, without running it.
        reset: Empty the database first.
        dry_run: Say what would be done, and do nothing.
        wait: Seconds to wait for the server to come up.
        environment: Where this is.
        beside: Where a Django project's further databases are, by alias.
    """

    force: bool = False
    accept: bool = False
    reset: bool = False
    dry_run: bool = False
    wait: float = 0.0
    environment: Environment = NOWHERE
    beside: Mapping[str, Address] = field(default_factory=dict)


@dataclass(frozen=True)
class Todo:
    """What is to be done about one step.

    Attributes:
        step: The step's name.
        action: ``done`` already, to ``run``, to ``accept`` without running, or ``refuse``.
        reason: Why.
        seconds: How long it took, once it has run.
    """

    step: str
    action: Action
    reason: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Applied:
    """What `apply` came to.

    Attributes:
        database: The URL, its password masked.
        tier: How far it was seeded: ``essential``, ``demo``, or ``none`` where the plan has no seeds.
        up_to_date: Whether there was nothing to do.
        waited: Whether another one was at work first.
        steps: Each step of the plan, with what was done about it.
    """

    database: str
    plan: str
    profile: str
    tier: str
    up_to_date: bool
    dry_run: bool
    waited: bool
    seconds: float
    steps: tuple[Todo, ...]


def apply(plan: Plan, address: Address, wish: Wish, progress: Progress) -> Applied:
    """Migrate the database and seed it, as far as that was not done before.

    Concurrency: a second one on the same database waits for the first, and then finds its work done.
    Killed at any moment, the next one goes on where it was: each seeder that works in the transaction
    that it is given either is there and noted, or neither.

    Raises:
        ConfigError: Production refuses it.
        BuildError: A step failed, or may not run again; what ran before it stays and is noted.
        ServerError: The database cannot be reached, or refused something.
    """
    started, own = perf_counter(), marker_of(plan)
    with _connected(address, wish.wait) as connection, server_errors(_NOT_APPLIED, address, needed=_NEEDED):
        waited = not wish.dry_run and _lock(connection, progress)
        found = ledgers.read(connection)
        guard(plan, wish, found)
        if wish.reset and not wish.dry_run:
            empty(connection)
        ledger = Ledger() if wish.reset else found
        strange = "" if wish.reset else _unknown_rows(ledger, connection)
        is_current = ledger.marker is not None and ledger.marker.fingerprint == own.fingerprint
        todo = _todo(plan, ledger, wish, strange, is_current=is_current)
        if not wish.dry_run:
            marker = _marker(own, wish, ledger, strange)
            target = Target(address, plan.root, plan.env, numbering=ledger.numbering, beside=wish.beside)
            todo = _Application(plan, target, connection, progress).run(todo, _begun(marker, ledger), marker)
    return Applied(
        database=address.masked,
        plan=plan.name,
        profile=plan.profile,
        tier=own.tier,
        up_to_date=all(each.action == "done" for each in todo),
        dry_run=wish.dry_run,
        waited=waited,
        seconds=round(perf_counter() - started, 3),
        steps=tuple(todo),
    )


# -- what production allows ------------------------------------------------------------------------


def guard(plan: Plan, wish: Wish, ledger: Ledger) -> None:
    """Refuse what production does not allow, by the environment or by the database's own marker.

    Raises:
        ConfigError: Says what was refused and who says that this is production.
    """
    said = ledger.marker.environment if ledger.marker else ""
    marked = Environment(said, f"the marker of the database, which says {said}")
    where = next((each for each in (wish.environment, marked) if each.is_production), None)
    if where is None:
        return
    if wish.reset:
        raise refused("Emptying the database", where, saw="--reset", remedy="leave --reset out")
    if wish.force:
        raise refused("Seeding again", where, saw="--force", remedy="leave --force out")
    demo = [step.name for stage in plan.stages if stage.tier == "demo" for step in stage.steps]
    if demo:
        raise refused("Demo data", where, saw="\n".join(demo), remedy="take --tier essential")


def _marker(marker: Marker, wish: Wish, ledger: Ledger, strange: str) -> Marker:
    """What the database will say of itself: once production, always production; once demo data, always so."""
    before = ledger.marker or _NOTHING
    was = Environment(before.environment)
    environment = was.name if was.is_production else wish.environment.name
    if marker.tier == "none":
        # Of seeds this plan says nothing: what was known of them before is.
        kept = before if before.tier else replace(marker, tier="" if strange else "none")
        return replace(kept, fingerprint=marker.fingerprint, environment=environment)
    return replace(marker, environment=environment, tier="demo" if before.tier == "demo" else marker.tier)


def _begun(marker: Marker, ledger: Ledger) -> Marker:
    """What it says while steps run, and afterwards if one of them fails.

    Else rows that migrations made would look foreign to the next attempt, and what made its own
    notes in a database with foreign rows would look as if they were ours.
    """
    before = ledger.marker or _NOTHING
    tier = (before.tier or "none") if marker.tier else ""
    return replace(before, fingerprint="", tier=tier, environment=marker.environment)


# -- what is to be done ----------------------------------------------------------------------------


def _todo(plan: Plan, ledger: Ledger, wish: Wish, strange: str, *, is_current: bool) -> list[Todo]:
    found = [_about(stage, step, ledger, wish, is_current=is_current) for stage in plan.stages for step in stage.steps]
    doubted = _unsafe(plan) if strange and not (wish.force or wish.accept) else set()
    return [_doubted(each, strange) if each.step in doubted else each for each in found]


def _about(stage: Stage, step: Step, ledger: Ledger, wish: Wish, *, is_current: bool) -> Todo:
    noted = ledger.steps.get(step.name)
    if stage.tier and wish.force:
        return Todo(step.name, "run", "it was asked for")
    if step.rerun == "always":
        return Todo(step.name, "done", "up to date") if is_current else Todo(step.name, "run", "pending")
    if noted is None:
        return Todo(step.name, "accept" if wish.accept and stage.tier else "run", "new")
    if ledger.is_done(step):
        return Todo(step.name, "done", "up to date")
    reason = "it has changed since it was applied" if noted.finished else "it was begun and not finished"
    if step.rerun == "safe":
        return Todo(step.name, "run", reason)
    return Todo(step.name, "accept" if wish.accept else "refuse", reason)


def _unknown_rows(ledger: Ledger, connection: psycopg.Connection[Any]) -> str:
    """A table with rows of which nobody knows whose they are; empty where there is none."""
    if ledger.marker.tier if ledger.marker else ledger.steps:
        return ""
    for schema, name in tables(connection):
        query = sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(schema, name))
        if name not in _OF_MIGRATIONS and connection.execute(query).fetchone():
            return label(schema, name)
    return ""


def _unsafe(plan: Plan) -> set[str]:
    return {step.name for stage in plan.stages if stage.tier for step in stage.steps if step.rerun == "never"}


def _doubted(todo: Todo, table: str) -> Todo:
    return replace(todo, action="refuse", reason=f"{table} has rows already, and no ledger says whose")


# -- doing it --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Application:
    plan: Plan
    target: Target
    connection: psycopg.Connection[Any]
    progress: Progress

    def run(self, todo: list[Todo], begun: Marker, marker: Marker) -> list[Todo]:
        """Do what is to be done, stage by stage, and say so in the ledger."""
        self._refuse(todo)
        if all(each.action == "done" for each in todo):
            return todo
        marks = LedgerMarks(self.connection, [each.step for each in todo if each.action == "run"], begun, drawn_now)
        watch = _Watch(self.progress)
        steps = {step.name: step for step in self.plan.steps}
        for each in todo:
            if each.action == "accept":
                marks.accept(steps[each.step])
        target = replace(self.target, started=watch.step, marks=marks)
        with watch, contextlib.chdir(self.plan.root):
            stages = [stage for stage in self.plan.stages if any(map(marks.wants, stage.steps))]
            total = sum(each.action == "run" for each in todo)
            self.progress.begin(self.plan, ", ".join(stage.name for stage in stages), total)
            for stage in stages:
                stage.run(target, 0)
        ledgers.write_marker(self.connection, marker)
        return [watch.timed(each) for each in todo]

    def _refuse(self, todo: list[Todo]) -> None:
        refused_steps = [each for each in todo if each.action == "refuse"]
        if not refused_steps:
            return
        raise BuildError(
            "The database cannot be brought to the plan's state without doing work twice",
            saw="\n".join(f"{each.step}: {each.reason}" for each in refused_steps),
            source=f"the ledger in {self.target.address.masked}, schema {ledgers.SCHEMA}",
            remedy="say @seeder(idempotent=True) where a seeder may run again; --accept notes these as applied and "
            "leaves the rows as they are; --force runs all seeders again; --reset empties the database first. An SQL "
            "migration that was applied stays as it is: write another",
        )


class _Watch:
    """How long each step took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begun = perf_counter()
        self._current = ""
        self._seconds: dict[str, float] = {}

    def __enter__(self) -> None:
        self._begun = perf_counter()

    def __exit__(self, *_error: object) -> None:
        self._note()
        self._progress.end()

    def step(self, step: Step) -> None:
        self._note()
        self._current, self._begun = step.name, perf_counter()
        self._progress.step(step)

    def timed(self, todo: Todo) -> Todo:
        # What its own tool did not find missing was done.
        if todo.action == "run" and todo.step not in self._seconds:
            return replace(todo, action="done", reason="up to date")
        return replace(todo, seconds=round(self._seconds.get(todo.step, 0.0), 3))

    def _note(self) -> None:
        if self._current:
            self._seconds[self._current] = perf_counter() - self._begun


@contextmanager
def _connected(address: Address, wait: float) -> Iterator[psycopg.Connection[Any]]:
    """A connection that holds the lock and the ledger; waits for a server that is coming up."""
    deadline = monotonic() + wait
    while True:
        try:
            connection = psycopg.connect(address.conninfo, autocommit=True, application_name="seeddb apply")
            break
        except psycopg.OperationalError as error:
            if monotonic() >= deadline:
                raise _unreachable(address, error, wait) from error
            sleep(_POLL)
    with contextlib.closing(connection):
        connection.execute("SET idle_session_timeout = 0; SET statement_timeout = 0; SET lock_timeout = 0")
        yield connection


def _lock(connection: psycopg.Connection[Any], progress: Progress) -> bool:
    """Wait until no other one is at work on this database; whether there was one."""
    key = lock_key("apply")
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
    waits = not (row and row[0])
    if waits:
        progress.waiting("another seeddb apply is at work on this database")
        connection.execute("SELECT pg_advisory_lock(%s)", [key])
    if ledgers.is_being_noted(connection):
        progress.waiting("the server is still at the last transaction of another seeddb apply")
        while ledgers.is_being_noted(connection):
            sleep(_POLL)
    return waits


def _unreachable(address: Address, error: psycopg.OperationalError, wait: float) -> ServerError:
    waited = f" within {wait:g} s" if wait else ""
    return ServerError(
        f"The database cannot be reached{waited}",
        saw=str(error).strip(),
        source=address.masked,
        remedy=_reaching(address, error),
    )


def _reaching(address: Address, error: psycopg.OperationalError) -> str:
    told = str(error)
    if 'FATAL:  database "' in told:
        return f"make it: createdb {address.database}; or correct the URL"
    if _COMES_LATER.search(told):
        return "start the server, or correct the URL; while it is still coming up, wait for it: --wait 60"
    return connection_remedy(str(error)) or "start the server, or wait for it: --wait 60"
