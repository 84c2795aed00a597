"""The ledger: what a database that people work with says of the steps that were applied to it.

It lives in the database itself, in a schema of its own, and goes where the database goes: into a
dump, too. Private databases that become templates have none.

A step is noted inside of its own transaction wherever it has one: begun at its start, finished at
its end. So a step that was killed is either not noted at all, and nothing of it is there; or it
committed by itself in the middle, and stands there as begun and not finished.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.fingerprint.digests import digest
from pytest_seeddb.plan.numbering import Numbering, from_text, to_text
from pytest_seeddb.plan.plan import Mark, Marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import psycopg

    from pytest_seeddb.plan.numbering import Drawn
    from pytest_seeddb.plan.plan import Plan, Step

SCHEMA: Final = "seeddb"

_CREATE: Final = """
CREATE SCHEMA IF NOT EXISTS seeddb;
CREATE TABLE IF NOT EXISTS seeddb.seeddb_marker (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    fingerprint text NOT NULL,
    profile text NOT NULL,
    tier text NOT NULL,
    version text NOT NULL,
    environment text NOT NULL,
    applied_at timestamptz
);
CREATE TABLE IF NOT EXISTS seeddb.seeddb_step (
    name text PRIMARY KEY,
    digest text NOT NULL,
    finished boolean NOT NULL,
    applied_at timestamptz,
    numbers text
);
"""
_THERE: Final = """
SELECT to_regclass('seeddb.seeddb_marker') IS NOT NULL AND to_regclass('seeddb.seeddb_step') IS NOT NULL
"""
# A server process gives its locks back after its commit can be seen.
_BEING_NOTED: Final = """
SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database
WHERE d.datname = current_database() AND relation = to_regclass('seeddb.seeddb_step')
    AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid() LIMIT 1
"""
_NOTE: Final = """
INSERT INTO seeddb.seeddb_step AS known (name, digest, finished, applied_at, numbers)
VALUES (%s, %s, %s, now(), %s)
ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, finished = excluded.finished,
    applied_at = excluded.applied_at, numbers = coalesce(excluded.numbers, known.numbers)
"""
_MARK: Final = """
INSERT INTO seeddb.seeddb_marker (fingerprint, profile, tier, version, environment, applied_at)
VALUES (%s, %s, %s, %s, %s, now())
ON CONFLICT (one) DO UPDATE SET fingerprint = excluded.fingerprint, profile = excluded.profile, tier = excluded.tier,
    version = excluded.version, environment = excluded.environment, applied_at = excluded.applied_at
"""
_VERSION_DIGITS: Final = 12


@dataclass(frozen=True)
class Marker:
    """The one row that says what the whole database was brought to.

    Attributes:
        fingerprint: Of the plan, without what the server contributes.
        profile: The profile's name with its overrides, as people read it.
        tier: ``essential`` or ``demo``: the highest that was applied; ``none`` where only the schema was made;
            empty where that was done in a database with rows of which nobody knows whose they are.
        version: Of the seeds: it changes when one of them does.
        environment: What the environment called itself then, such as ``production``; empty where it did not.
    """

    fingerprint: str
    profile: str
    tier: str
    version: str
    environment: str


@dataclass(frozen=True)
class Noted:
    """A step as the ledger has it."""

    version: str
    finished: bool


@dataclass(frozen=True)
class Ledger:
    """All that a database says of itself; empty where nothing of ours was ever applied to it."""

    marker: Marker | None = None
    steps: Mapping[str, Noted] = field(default_factory=dict)
    numbering: Numbering = field(default_factory=Numbering)

    def is_done(self, step: Step) -> bool:
        """Whether the step was applied as it is now."""
        return self.steps.get(step.name) == Noted(step.version_now, finished=True)


def read(connection: psycopg.Connection[Any]) -> Ledger:
    """The ledger of a connection's database."""
    row = connection.execute(_THERE).fetchone()
    if not row or not row[0]:
        return Ledger()
    marker = connection.execute(
        "SELECT fingerprint, profile, tier, version, environment FROM seeddb.seeddb_marker"
    ).fetchone()
    rows = connection.execute("SELECT name, digest, finished, numbers FROM seeddb.seeddb_step").fetchall()
    return Ledger(
        Marker(*marker) if marker else None,
        {name: Noted(version, finished) for name, version, finished, _ in rows},
        Numbering({name: from_text(numbers) for name, _, _, numbers in rows if numbers}),
    )


def is_being_noted(connection: psycopg.Connection[Any]) -> bool:
    """Whether a transaction of somebody else's has noted a step and has not ended.

    Whoever is killed loses what he held at once, an advisory lock as well; but a commit that he has sent goes on
    until it is done, and what it brings belongs into what is read next. Asks for no rights and changes nothing.
    """
    return connection.execute(_BEING_NOTED).fetchone() is not None


def create(connection: psycopg.Connection[Any]) -> None:
    """Make the schema, unless it is there."""
    connection.execute(_CREATE)


def write_marker(connection: psycopg.Connection[Any], marker: Marker) -> None:
    """Say what the database was brought to."""
    given = (marker.fingerprint, marker.profile, marker.tier, marker.version, marker.environment)
    connection.execute(_MARK, given)


def write_finished(connection: psycopg.Connection[Any], plan: Plan, marker: Marker, numbering: Numbering) -> None:
    """Note all steps of the plan as finished, for a dump: without times, so that two dumps are the same."""
    create(connection)
    for step in plan.steps:
        drawn = numbering.steps.get(step.name)
        connection.execute(_NOTE, (step.name, step.version_now, True, to_text(drawn) if drawn else None))
    write_marker(connection, marker)
    connection.execute("UPDATE seeddb.seeddb_step SET applied_at = NULL")
    connection.execute("UPDATE seeddb.seeddb_marker SET applied_at = NULL")


def marker_of(plan: Plan) -> Marker:
    """What a database that holds all of the plan says of itself."""
    seeds = [step.version_now for stage in plan.stages if stage.tier for step in stage.steps]
    tiers = {stage.tier for stage in plan.stages}
    tier = next((each for each in ("demo", "essential") if each in tiers), "none")
    return Marker(plan.fingerprints(())[-1], plan.profile, tier, digest("\n".join(seeds))[:_VERSION_DIGITS], "")


class LedgerMarks(Marks):
    """Notes steps in the ledger of the database that they are applied to.

    Args:
        connection: In autocommit mode, to that database.
        wanted: The names of the steps that are to run.
        begun: What it says of itself until they have run.
        drawn: Gives the numbers that the step under way has drawn from factories' sequences.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        wanted: Sequence[str],
        begun: Marker,
        drawn: Callable[[], Drawn | None],
    ) -> None:
        self._connection = connection
        self._wanted = frozenset(wanted)
        self._begun = begun
        self._drawn = drawn
        self.renew()

    @property
    def are_kept(self) -> bool:
        """Always."""
        return True

    def wants(self, step: Step) -> bool:
        """Whether the step is to run."""
        return step.name in self._wanted

    def mark(self, step: Step) -> Mark:
        """How it is noted inside of its own transaction."""
        return Mark(_NOTE, (step.name, step.version_now, False, None), partial(self._finished, step))

    @contextmanager
    def around(self, step: Step) -> Iterator[None]:
        """Note a step that makes its own transactions: before it and after it."""
        mark = self.mark(step)
        self._connection.execute(mark.statement, mark.begun)
        yield
        self._connection.execute(mark.statement, mark.finished())

    def renew(self) -> None:
        """Make the ledger unless it is there, and say what was begun: where this is, above all."""
        create(self._connection)
        write_marker(self._connection, self._begun)

    def accept(self, step: Step) -> None:
        """Note the step as finished without running it."""
        self._connection.execute(_NOTE, (step.name, step.version_now, True, None))

    def _finished(self, step: Step) -> tuple[object, ...]:
        drawn = self._drawn()
        return step.name, step.version_now, True, None if drawn is None else to_text(drawn)
