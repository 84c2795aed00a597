"""The ledger: which steps were applied to a database that people work with.

It is in the database itself, in a schema of its own, and goes into its dumps. Private databases that become templates
have none.

A step is noted inside of its own transaction wherever it has one: begun at its start, finished at its end. So a step
that was killed is either not noted, and nothing of it is there; or it committed in the middle by itself, and the ledger
has it as begun and not finished.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.fingerprint.digests import SET, Part, digest
from pytest_seeddb.fingerprint.environment import is_variable
from pytest_seeddb.fingerprint.recording import Recording, all_parts, current
from pytest_seeddb.plan.numbering import Numbering, from_text, to_text
from pytest_seeddb.plan.plan import Mark, Marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

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
CREATE TABLE IF NOT EXISTS seeddb.seeddb_input (
    step text NOT NULL,
    name text NOT NULL,
    digest text NOT NULL,
    PRIMARY KEY (step, name)
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
_RENOTE: Final = "UPDATE seeddb.seeddb_step SET digest = %s WHERE name = %s AND digest = %s"
_RENOTE_MARKER: Final = "UPDATE seeddb.seeddb_marker SET fingerprint = %s, version = %s WHERE fingerprint = %s"
_HAS_INPUTS: Final = "SELECT to_regclass('seeddb.seeddb_input') IS NOT NULL"
_INPUTS: Final = "SELECT step, name, digest FROM seeddb.seeddb_input ORDER BY 1, 2"
_FORGET_INPUTS: Final = "DELETE FROM seeddb.seeddb_input WHERE step = %s"
_NOTE_INPUT: Final = "INSERT INTO seeddb.seeddb_input (step, name, digest) VALUES (%s, %s, %s)"
_VERSION_DIGITS: Final = 12


@dataclass(frozen=True)
class Marker:
    """The one row for the whole database."""

    fingerprint: str
    """Of the plan, without the server's part."""
    profile: str
    tier: str
    """``essential`` or ``demo``, the highest that was applied; ``none`` where only the schema was made; empty where it
    was made in a database that already held rows."""
    version: str
    """Of the seeds: it changes when one of them does."""
    environment: str
    """What the environment called itself, such as ``production``; empty where it did not."""


@dataclass(frozen=True)
class Noted:
    """A step in the ledger."""

    version: str
    finished: bool


@dataclass(frozen=True)
class Ledger:
    """The content; empty for a database without a ledger."""

    marker: Marker | None = None
    steps: Mapping[str, Noted] = field(default_factory=dict)
    numbering: Numbering = field(default_factory=Numbering)
    inputs: Mapping[str, tuple[Part, ...]] | None = field(default_factory=dict)
    """What steps read when they ran, beside their parts; ``None`` where an earlier version wrote the ledger."""

    def is_done(self, step: Step, root: Path) -> bool:
        """Whether the step was applied as it is now, and has since had nothing else to read."""
        inputs = (self.inputs or {}).get(step.name, ())
        is_same = not inputs or current([part.name for part in inputs], root) == inputs
        noted = self.steps.get(step.name)
        return is_same and noted is not None and noted.finished and noted.version in step.versions

    def migrations_beyond(self, plan: Plan) -> tuple[str, ...]:
        """The migrations that were applied and are not in the plan."""
        known = {step.name for step in plan.steps}
        return tuple(sorted(name for name in self.steps if name.startswith("migration ") and name not in known))

    def is_current(self, plan: Plan) -> bool:
        """Whether the marker is of this very plan."""
        return self.marker is not None and self.marker.fingerprint in plan.noted_fingerprints


def read(connection: psycopg.Connection[Any]) -> Ledger:
    """The ledger of a connection's database."""
    row = connection.execute(_THERE).fetchone()
    if not row or not row[0]:
        return Ledger()
    marker = connection.execute(
        "SELECT fingerprint, profile, tier, version, environment FROM seeddb.seeddb_marker"
    ).fetchone()
    rows = connection.execute("SELECT name, digest, finished, numbers FROM seeddb.seeddb_step").fetchall()
    inputs: dict[str, tuple[Part, ...]] = {}
    has_inputs = connection.execute(_HAS_INPUTS).fetchone() == (True,)
    for step, *part in connection.execute(_INPUTS).fetchall() if has_inputs else ():
        inputs[step] = (*inputs.get(step, ()), Part(*part))
    return Ledger(
        Marker(*marker) if marker else None,
        {name: Noted(version, finished) for name, version, finished, _ in rows},
        Numbering({name: from_text(numbers) for name, _, _, numbers in rows if numbers}),
        {step: tuple(sorted(parts)) for step, parts in inputs.items()} if has_inputs else None,
    )


def is_being_noted(connection: psycopg.Connection[Any]) -> bool:
    """Whether a transaction of another session has noted a step and has not ended.

    A killed process loses its locks at once, advisory ones too. But a commit that it has sent goes on until it is done,
    and has to be seen by the next reader. This needs no rights and changes nothing.
    """
    return connection.execute(_BEING_NOTED).fetchone() is not None


def create(connection: psycopg.Connection[Any]) -> None:
    """Make the schema, unless it is there."""
    connection.execute(_CREATE)


def write_marker(connection: psycopg.Connection[Any], marker: Marker) -> None:
    """Replace the row for the whole database."""
    connection.execute(_MARK, astuple(marker))


def write_finished(
    connection: psycopg.Connection[Any], plan: Plan, marker: Marker, numbering: Numbering, opened: Iterable[Part]
) -> None:
    """Note all steps of the plan as finished, for a dump: without times, so that two dumps are the same.

    ``opened`` is what the build read: whichever step it was that did.
    """
    create(connection)
    opened = tuple(opened)
    for step in plan.steps:
        drawn = numbering.steps.get(step.name)
        connection.execute(_NOTE, (step.name, step.version_now, True, to_text(drawn) if drawn else None))
        if step.rerun == "safe" and step.parts:
            _note_inputs(connection, step, opened)
    write_marker(connection, marker)
    connection.execute("UPDATE seeddb.seeddb_step SET applied_at = NULL")
    connection.execute("UPDATE seeddb.seeddb_marker SET applied_at = NULL")


def rewrite(connection: psycopg.Connection[Any], plan: Plan, ledger: Ledger, marker: Marker) -> None:
    """Write what an earlier version noted of the same inputs as this one would; where that is allowed."""
    from psycopg import errors

    with suppress(errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction):
        for step in plan.steps:
            noted = ledger.steps.get(step.name)
            if noted and noted.version in step.versions and noted.version != step.version_now:
                connection.execute(_RENOTE, [step.version_now, step.name, noted.version])
        if ledger.marker and ledger.is_current(plan) and ledger.marker.fingerprint != marker.fingerprint:
            connection.execute(_RENOTE_MARKER, [marker.fingerprint, marker.version, ledger.marker.fingerprint])


def _note_inputs(connection: psycopg.Connection[Any], step: Step, parts: Iterable[Part]) -> None:
    connection.execute(_FORGET_INPUTS, [step.name])
    for part in parts:
        # Other machines have other variables and secrets, and this database is not the place for them.
        if not is_variable(part.name) and part.text != SET:
            connection.execute(_NOTE_INPUT, (step.name, part.name, part.digest))


def marker_of(plan: Plan) -> Marker:
    """The marker of a database that holds all of the plan."""
    seeds = [step.version_now for stage in plan.stages if stage.tier for step in stage.steps]
    tiers = {stage.tier for stage in plan.stages}
    tier = next((tier for tier in ("demo", "essential") if tier in tiers), "none")
    return Marker(plan.fingerprints(())[-1], plan.profile, tier, digest("\n".join(seeds))[:_VERSION_DIGITS], "")


class LedgerMarks(Marks):
    """Notes steps in the ledger of the database that they are applied to.

    Args:
        connection: In autocommit mode, to that database.
        wanted: The names of the steps that are to run.
        begun: The marker until they have run.
        drawn: Gives the numbers that the current step has drawn from factories' sequences.
        root: The project's root.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        wanted: Sequence[str],
        begun: Marker,
        drawn: Callable[[], Drawn | None],
        root: Path,
    ) -> None:
        self._connection = connection
        self._wanted = frozenset(wanted)
        self._begun = begun
        self._drawn = drawn
        self._root = root
        self.renew()

    @property
    def are_kept(self) -> bool:
        """Always."""
        return True

    def wants(self, step: Step) -> bool:
        """As named when this was made."""
        return step.name in self._wanted

    def mark(self, step: Step) -> Mark:
        """A row of the ledger."""
        return Mark(_NOTE, (step.name, step.version_now, False, None), partial(self._finished, step))

    @contextmanager
    def around(self, step: Step) -> Iterator[None]:
        """Write the row before the step and after it; and what the step read, if it may run again."""
        mark = self.mark(step)
        self._connection.execute(mark.statement, mark.begun)
        with Recording(self._root) as recording:
            yield
        self._connection.execute(mark.statement, mark.finished())
        if step.rerun == "safe":
            sources = [part.name for part in step.parts]
            _note_inputs(self._connection, step, all_parts(recording.parts(), self._root, sources))

    def renew(self) -> None:
        """Make the ledger unless it is there, and write the marker."""
        create(self._connection)
        write_marker(self._connection, self._begun)

    def accept(self, step: Step) -> None:
        """Note the step as finished without running it."""
        self._connection.execute(_NOTE, (step.name, step.version_now, True, None))

    def _finished(self, step: Step) -> tuple[object, ...]:
        drawn = self._drawn()
        return step.name, step.version_now, True, None if drawn is None else to_text(drawn)
