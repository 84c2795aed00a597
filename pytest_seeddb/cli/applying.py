"""Bring one database that people work with to a plan's state, and note in it what was done.

Nothing here creates, drops or renames a database, and what was done before stays when a step fails.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pytest_seeddb.cli.emptying import empty
from pytest_seeddb.cli.pending import Todo, Wish, certain_errors, compare_with_tools, stage_with, todos_of, unknown_rows
from pytest_seeddb.errors import SeedDbError, ServerError
from pytest_seeddb.plan import ledger as ledgers
from pytest_seeddb.plan.ledger import Ledger, LedgerMarks, Marker, marker_of
from pytest_seeddb.plan.plan import Target
from pytest_seeddb.seeds.counters import draws_so_far
from pytest_seeddb.servers.address import Address
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.naming import lock_key
from pytest_seeddb.servers.remedies import connection_remedy, is_certain
from pytest_seeddb.settings.production import Environment, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_seeddb.plan.plan import Plan, Progress, Step

_NOTHING: Final = Marker("", "", "", "", "")
_POLL: Final = 0.2
"""Seconds between attempts to reach a server that is coming up."""
_CONNECT_TIMEOUT: Final = "10"
"""Seconds, where the answer only decides whether to ask."""

_NEEDED: Final = "besides what the plan creates, it must create a schema in which seeddb records what was applied"
# These errors end by themselves when a server has started.
_COMES_LATER: Final = re.compile("Connection refused|No such file or directory|starting up|failed to resolve host")


@dataclass(frozen=True)
class Applied:
    """The result: each step with what was done about it, and whether another ``seeddb apply`` worked here first.

    Those of a dry run are what would be done, and the errors with which it is certain to fail. ``gone`` are migrations
    that the database has and the plan has no longer.
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
    errors: tuple[SeedDbError, ...] = ()
    gone: tuple[str, ...] = ()


def apply_to(
    address: Address, plan: Plan, wish: Wish, progress: Progress, hear: Callable[[Todo], None] = lambda _todo: None
) -> Applied:
    """Migrate the database and seed it, as far as that was not done before; tell ``hear`` of each step that ends.

    A dry run looks at the database in one read-only transaction. It notes each certain failure as an error.

    Concurrency: a second one on the same database waits for the first, and then finds its work done.
    After it was killed at any moment, the next one continues: a seeder that stays within the transaction
    it is given has either written its rows and is noted, or neither.

    Raises:
        ConfigError: Production refuses it.
        BuildError: A step failed, or may not run again; what ran before it stays and is noted.
        ServerError: The database cannot be reached, or refused something.
    """
    started, own = perf_counter(), marker_of(plan)
    errors = server_errors("The plan could not be applied", address, needed=_NEEDED)
    with _connection(address, wish.wait) as connection, errors, _snapshot(connection, wanted=wish.dry_run):
        waited = not wish.dry_run and _lock(connection, progress)
        ledger = ledgers.read(connection)
        guard(stage_with(plan, wish.only), wish, ledger)
        if wish.reset:
            ledger = Ledger()
        strange_table = "" if wish.reset else unknown_rows(ledger, connection)
        todos = todos_of(plan, ledger, wish, strange_table)
        if wish.dry_run and not wish.reset:
            todos = compare_with_tools(plan, todos, connection)
        certain = tuple(certain_errors(plan, todos, ledger, address, connection, reads_files=wish.dry_run))
        if not wish.dry_run:
            if certain:
                raise certain[0]
            if wish.reset:
                empty(connection, wish.lock_timeout, progress)
            marker = _marker(own, wish, ledger, strange_table)
            ledgers.rewrite(connection, plan, ledger, marker)
            target = Target(
                address,
                plan.root,
                plan.env,
                numbering=ledger.numbering,
                beside=wish.beside,
                settings=plan.settings,
            )
            application = _Application(plan, target, connection, progress, hear)
            begun = _marker_meanwhile(marker, ledger)
            if wish.only:  # which leaves the state of the whole as it is
                marker = ledger.marker if ledger.marker and ledger.is_current(plan) else begun
            todos = application.run(todos, begun, marker)
    return Applied(
        database=address.masked,
        plan=plan.name,
        profile=plan.profile,
        tier=own.tier,
        up_to_date=all(todo.action == "done" for todo in todos),
        dry_run=wish.dry_run,
        waited=waited,
        seconds=round(perf_counter() - started, 3),
        steps=tuple(todos),
        errors=certain,
        gone=() if wish.reset or wish.only else ledger.migrations_beyond(plan),
    )


def guard(plan: Plan, wish: Wish, ledger: Ledger) -> None:
    """Refuse what production does not allow, by the environment or by the database's own marker.

    Raises:
        ConfigError: Says what was refused, and what says that this is production or may be.
    """
    name = ledger.marker.environment if ledger.marker else ""
    marked = Environment(name, f"the marker of the database, which says {name}")
    places = (wish.environment, marked)
    refusing = [place for place in places if place.is_production] or [place for place in places if place.doubt]
    if not refusing:
        return
    if wish.reset:
        raise refusal("Emptying the database", refusing[0], saw="--reset", remedy="omit --reset")
    if wish.force:
        raise refusal("Seeding again", refusing[0], saw="--force", remedy="omit --force")
    if demo := demo_steps(plan):
        raise refusal("Demo data", refusing[0], saw="\n".join(demo), remedy="use --tier essential")


def demo_steps(plan: Plan) -> list[str]:
    """The names of the plan's steps that make demo data."""
    return [step.name for stage in plan.stages if stage.tier == "demo" for step in stage.steps]


def ledger_of(address: Address, wait: float) -> Ledger:
    """The ledger of a database.

    Raises:
        ServerError: The database cannot be reached.
    """
    address = Address({"connect_timeout": _CONNECT_TIMEOUT, **address.params})
    with _connection(address, wait) as connection, server_errors("The ledger cannot be read", address, needed=_NEEDED):
        return ledgers.read(connection)


def _marker(marker: Marker, wish: Wish, ledger: Ledger, strange_table: str) -> Marker:
    """The database's marker in the end: once production, always production; once demo data, always demo data."""
    before = ledger.marker or _NOTHING
    was = Environment(before.environment)
    environment = was.name if was.is_production else wish.environment.name
    if marker.tier == "none":
        # This plan has no seeds: what was known about seeds stays.
        kept = before if before.tier else replace(marker, tier="" if strange_table else "none")
        return replace(kept, fingerprint=marker.fingerprint, environment=environment)
    return replace(marker, environment=environment, tier="demo" if before.tier == "demo" else marker.tier)


def _marker_meanwhile(marker: Marker, ledger: Ledger) -> Marker:
    """The marker while steps run, which stays if one of them fails.

    Without it, rows that migrations made would look foreign to the next attempt, and a database with
    foreign rows would look like one that was seeded.
    """
    before = ledger.marker or _NOTHING
    tier = (before.tier or "none") if marker.tier else ""
    return replace(before, fingerprint="", tier=tier, environment=marker.environment)


@dataclass(frozen=True)
class _Application:
    plan: Plan
    target: Target
    connection: psycopg.Connection[Any]
    progress: Progress
    hear: Callable[[Todo], None]

    def run(self, todos: list[Todo], begun: Marker, finished: Marker) -> list[Todo]:
        """Do what is to be done, stage by stage, and note it in the ledger."""
        if all(todo.action == "done" for todo in todos):
            return todos
        running = [todo.step for todo in todos if todo.action == "run"]
        marks = LedgerMarks(self.connection, running, begun, draws_so_far, self.plan.root)
        steps = {step.name: step for step in self.plan.steps}
        for todo in todos:
            if todo.action == "accept":
                marks.accept(steps[todo.step])
                self.hear(todo)
        ended: dict[str, Todo] = {}
        current: tuple[str, float] | None = None

        def end() -> None:
            if current:
                name, begun = current
                ended[name] = replace(pending[name], seconds=round(perf_counter() - begun, 3))
                self.hear(ended[name])

        def start(step: Step) -> None:
            nonlocal current
            end()
            current = step.name, perf_counter()
            self.progress.step(step)

        pending = {todo.step: todo for todo in todos}
        target = replace(self.target, started=start, marks=marks)
        with contextlib.chdir(self.plan.root):
            stages = [stage for stage in self.plan.stages if any(map(marks.wants, stage.steps))]
            try:
                self.progress.begin(self.plan, ", ".join(stage.name for stage in stages), len(running))
                for stage in stages:
                    stage.run(target, 0)
                    end()
                    current = None
            finally:
                self.progress.end()
        ledgers.write_marker(self.connection, finished)
        # A step that its own tool did not run was done already.
        return [
            ended.get(todo.step, replace(todo, action="done", reason="up to date")) if todo.action == "run" else todo
            for todo in todos
        ]


@contextmanager
def _snapshot(connection: psycopg.Connection[Any], *, wanted: bool) -> Iterator[None]:
    """One read-only transaction for the block, if it is wanted."""
    if not wanted:
        yield
        return
    connection.read_only, connection.isolation_level = True, psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        yield


@contextmanager
def _connection(address: Address, wait: float) -> Iterator[psycopg.Connection[Any]]:
    """A connection that holds the lock and the ledger; waits for a server that is coming up."""
    deadline = monotonic() + wait
    while True:
        try:
            connection = address.connect(autocommit=True, application_name="seeddb apply")
            break
        except psycopg.OperationalError as error:
            if monotonic() >= deadline or is_certain(str(error)):
                patience = f" within {wait:g} s" if wait and not is_certain(str(error)) else ""
                raise ServerError(
                    f"The database cannot be reached{patience}",
                    saw=str(error).strip(),
                    source=address.masked,
                    remedy=_remedy(str(error), address, wait),
                ) from error
            sleep(_POLL)
    with contextlib.closing(connection):
        connection.execute("SET idle_session_timeout = 0; SET statement_timeout = 0; SET lock_timeout = 0")
        yield connection


def _remedy(message: str, address: Address, waited: float) -> str:
    if re.search('FATAL:  database "[^"]*" does not exist', message):
        options = {"-h": address.params.get("host"), "-p": address.params.get("port"), "-U": address.params.get("user")}
        words = [word for option, value in options.items() if value for word in (option, value)]
        return f"create it: {shlex.join(['createdb', *words, address.database])}; or correct the URL"
    longer = f"--wait {max(60, 2 * waited):g}"
    if _COMES_LATER.search(message):
        return f"start the server, or correct the URL; while it is still coming up, wait for it: {longer}"
    if is_certain(message):
        return connection_remedy(message) or "correct the URL, or the variable of libpq (PG...) that asks for this"
    return connection_remedy(message) or f"start the server, or wait for it: {longer}"


def _lock(connection: psycopg.Connection[Any], progress: Progress) -> bool:
    """Wait until no other ``seeddb apply`` works on this database; whether there was one."""
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
