"""Observe a clone: its seeded state, what was changed since, and who is connected to it.

The `Counters` of the whole database decide; `TableCounts` say which tables were written to. If the sum of
the tables is less than the database's, something else was written: a catalog, a large object.

Measured on PostgreSQL 15 and 18: each connection counts as one committed transaction and as one
session when its backend exits; a transaction that is rolled back, or that its backend's end rolls
back, counts as rolled back; every insert, update and delete counts, rolled back or not.
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.clones.changes import OpenConnection, TableChange
from pytest_seeddb.clones.looks import COUNTERS, FETCHED, LOOK, BackendLook, Counters, Look, rows

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import psycopg

    from pytest_seeddb.clones.shape import Sequences, Shape, State
    from pytest_seeddb.servers.address import Address

    Connection = psycopg.Connection[Any]

NAME: Final = "pytest-seeddb keeper"
"""The ``application_name`` of connections that observe."""

_TABLES: Final = """
SELECT o, i, u, d, pg_stat_get_live_tuples(o) FROM (
    SELECT o, pg_stat_get_tuples_inserted(o) i, pg_stat_get_tuples_updated(o) u, pg_stat_get_tuples_deleted(o) d
    FROM unnest(%s::oid[]) o OFFSET 0) counted
WHERE i + u + d <> 0
"""
_SET_BACK: Final = """
SELECT setval(o::regclass, last, called) FROM unnest(%s::oid[], %s::bigint[], %s::bool[]) AS seeded (o, last, called)
"""
FLUSH: Final = "SELECT pg_stat_force_next_flush()"
_SETTINGS: Final = (
    "SET default_transaction_read_only = off; SET statement_timeout = 0; SET lock_timeout = '2s'; "
    "SET idle_session_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET synchronize_seqscans = off; "
    # VACUUM marks pages all-visible only where the commits have been flushed.
    "SET synchronous_commit = local; "
    # Else each of the first five looks is planned anew, which takes longer than the look.
    "SET plan_cache_mode = force_generic_plan"
)
_POLL: Final = 0.0003
"""Seconds between looks: a backend whose client has gone needs about one millisecond to end."""
_CLOSING: Final = 0.003
"""Seconds after which an idle connection is one that the test left open, not one that is just ending,"""
_LOOKS: Final = 4
"""and as many looks: if our own backend waits long for a processor, so does one that is ending."""
_BUSY: Final = 0.02
"""Seconds after which a transaction is one that the test left open;"""
_BUSY_IN_A_CROWD: Final = 0.2
"""where processes wait for a processor, the one that is ending may as well."""
_PATIENCE: Final = 2.0


class Discard(Exception):  # noqa: N818 - a verdict, not an error: it never leaves settling
    """The clone must be discarded: to make it equal to a fresh one is uncertain, or takes too long."""


class Disturbed(Discard):
    """Another client was in the clone while it had to be alone; what it did there is not known."""


@dataclass(frozen=True)
class TableCounts:
    """What the server counts for one table. Rolled back rows count, except in ``live``."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    live: int = 0
    """Committed inserts less committed deletes, since the last VACUUM or ANALYZE."""

    @property
    def total(self) -> int:
        """Rows written, in all."""
        return self.inserted + self.updated + self.deleted

    def since(self, earlier: TableCounts) -> TableCounts:
        """The difference."""
        now, before = vars(self), vars(earlier)
        return TableCounts(**{name: now[name] - before[name] for name in now})


@dataclass(frozen=True)
class Moment:
    """A clone's seeded state: what the server counts for it, and the first transaction number not used yet."""

    counters: Counters
    tables: dict[int, TableCounts]
    newest: str


class SequenceWatch:
    """The sequences of one clone, in the seeded state when this is made.

    nextval and setval are not transactional, so neither a rollback nor a deleted row brings a number back. Reading
    hundreds of sequences takes longer than most tests. But the server counts for each how often its block was
    fetched, and nobody moves a sequence without that (PostgreSQL 15 and 18: nextval, setval, ALTER SEQUENCE,
    identity columns, RESTART IDENTITY). So settling sets back only the `suspects`, whose count has changed.

    The server learns what a backend has fetched when that is idle or exits. While a test may be in the middle of
    something, the `differences` of all are read.
    """

    def __init__(self, sequences: Sequences, connection: Connection) -> None:
        self._sequences = sequences
        self.connection = connection
        self.oids = list(sequences.names)
        self.fetched = self._counts()

    @property
    def names(self) -> dict[int, str]:
        """The names of all."""
        return self._sequences.names

    @property
    def seeded(self) -> dict[int, State]:
        """The seeded states of all."""
        return self._sequences.seeded

    def moves(self, among: list[int] | None = None) -> list[str]:
        """The names of those that are not in their seeded state."""
        return [self.names[oid] for oid in self.differences(self.oids if among is None else among)]

    def restore(self, oids: list[int]) -> None:
        """Set back these, whether they moved or not."""
        if oids:
            last, called = zip(*(self.seeded[oid] for oid in oids), strict=True)
            self.connection.execute(_SET_BACK, [oids, list(last), list(called)])

    def look(self) -> Look:
        """What the server says of the clone."""
        return Look.of(*rows(self.connection, LOOK, self.oids)[0])

    def counters(self) -> Counters:
        """What the server counts now, as far as it has been told, whoever is connected."""
        return Counters(*rows(self.connection, COUNTERS)[0])

    def _counts(self) -> dict[int, int]:
        return dict(self.connection.execute(FETCHED, [self.oids]).fetchall()) if self.oids else {}

    def suspects(self, counts: dict[int, int]) -> list[int]:
        """Those that somebody may have moved."""
        return [oid for oid in self.oids if counts.get(oid, 0) != self.fetched.get(oid, 0)]

    def differences(self, oids: list[int]) -> list[int]:
        """Those of them that are not in their seeded state."""
        states = self._sequences.states(self.connection, oids)
        return [oid for oid in oids if states[oid] != self._sequences.seeded[oid]]


class Observed:
    """A clone that a test has, and the connection that can tell what was written in it."""

    connection: Connection
    sequences: SequenceWatch
    shape: Shape
    """Which tables are told apart."""
    seeded: Moment
    since: Moment
    """As ``seeded`` is, read when the test began."""
    commits: bool = True
    """Whether the connection may commit what it runs."""

    def reading(self) -> AbstractContextManager[object]:
        """For a block that reads: a transaction that is rolled back, where the connection may commit nothing."""
        return nullcontext() if self.commits else self.connection.transaction(force_rollback=True)

    def difference(self) -> dict[int, TableCounts]:
        """Rows written since the clone was seeded, by table, those of long values included."""
        differences = {
            oid: counts.since(self.seeded.tables.get(oid, TableCounts()))
            for oid, counts in self._table_counts().items()
        }
        return {oid: counts for oid, counts in differences.items() if counts.total}

    def _table_counts(self) -> dict[int, TableCounts]:
        """Rows written in the clone, by table; none where nothing was ever written."""
        return {oid: TableCounts(*row) for oid, *row in self.connection.execute(_TABLES, [[*self.shape.owners]])}

    def is_more_than(self, tables: dict[int, TableCounts], now: Counters) -> bool:
        """Whether the database counts rows that stand in none of these tables."""
        return now.tuples - self.seeded.counters.tuples != sum(counts.total for counts in tables.values())


def is_crowded() -> bool:
    """Whether more processes want to run on this machine than it has processors."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


class Observer(Observed):
    """A connection that stays on a clone from before its first test, and the clone's seeded state.

    The seeded state is the template's: it is read where nobody but the observer has ever been, and after a rewind
    where nobody else was since. It is never what happens to be there.

    It belongs to the clone's holder; one thread at a time. After a `psycopg.Error` or `Discard`, discard the clone.

    Raises:
        Disturbed: Another client has been in the clone, and wrote or may have used a sequence. Never where ``is_fresh``
            is false: then the present state is the seeded one.
    """

    def __init__(self, address: Address, shape: Shape, *, superuser: bool, is_fresh: bool = True) -> None:
        self.shape = shape
        self.superuser = superuser
        self.left: tuple[OpenConnection, ...] = ()
        self.wrote: tuple[TableChange, ...] = ()
        self.globals_mark = ""
        """As of the last look; empty where there was none."""
        self._watched: Counters | None = None
        self._unseen: BackendLook | None = None
        self._connect(address)
        try:
            reading = shape.read(self.connection)
            self.sequences = SequenceWatch(reading.sequences, self.connection)
            now, look = self.wait_until_alone("another client is connected to the new clone")
            if is_fresh and not look.is_untouched:
                self._check_visited(now)
            shape.learn(reading)
            self.seeded = self.since = Moment(now, {} if is_fresh else self._table_counts(), look.newest)
            self.resting = now
        except BaseException:
            self.close()
            raise

    def _connect(self, address: Address) -> None:
        self.connection = address.connect(autocommit=True, application_name=NAME, prepare_threshold=0)
        replica = "; SET session_replication_role = replica" if self.superuser else ""
        self.connection.execute(f"{FLUSH}; {_SETTINGS}{replica}", prepare=False)

    def connect_again(self, address: Address) -> None:
        """Go on with the clone, which has another name: every connection to it was ended."""
        self.close()
        self._connect(address)
        self.sequences.connection = self.connection
        now = self._look().counters
        if now is None or not now.is_moved(self.resting):
            raise Disturbed("another client connected while the clone got another name")
        self.seeded = replace(self.seeded, counters=replace(self.seeded.counters, own=now.own))
        self.resting = now

    def _check_visited(self, now: Counters) -> None:
        """Raise `Disturbed` unless the visitors of a new clone have left it as it was."""
        if not self.shape.is_known or not now.is_unwritten or self.sequences.moves():
            raise Disturbed("another client was in the new clone")

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def start_over(self, alone: Counters) -> None:
        """Take the present state for the seeded one, if nobody else was there since ``alone`` was read."""
        self.connection.execute(FLUSH)
        look = self._look()
        if look.counters is None or not look.counters.is_undisturbed(alone):
            raise Disturbed("another client connected while the rows were put back")
        self.seeded = self.since = Moment(look.counters, self._table_counts(), look.newest)
        # What was read and set of them here counts as well: else all would be read again after the next test.
        self.sequences.fetched = look.fetched
        self.resting = look.counters

    def is_at_rest(self) -> bool:
        """Whether nobody was in the clone since it was settled."""
        look = self._look()
        if look.counters is None or not look.counters.is_at_rest(self.resting):
            return False
        self.since = replace(self.seeded, counters=look.counters, newest=look.newest)
        return True

    def _look(self) -> Look:
        return self.sequences.look()

    def wait_until_alone(self, otherwise: str) -> tuple[Counters, Look]:
        """End idle connections that the test left open, and wait until nobody is connected; `left` has them afterwards.

        Where a connection is busy or does not go, ``otherwise`` is why the clone is to be discarded.
        """
        started, looks = time.monotonic(), 0
        self.connection.prepare_threshold = 0
        while True:
            look = self._look()
            if look.counters is not None:
                self.globals_mark = look.counters.globals_mark
                return look.counters, look
            others = tuple(OpenConnection(*row) for _, *row in look.others)
            waited, looks = time.monotonic() - started, looks + 1
            stays = waited > _CLOSING and looks > _LOOKS
            if stays and not self.left:
                self.left = others
            # Inside a transaction, or running something, or it may be.
            is_busy = any(other.state not in {"idle", "connecting"} for other in others)
            if waited > _PATIENCE or (is_busy and waited > _BUSY and (waited > _BUSY_IN_A_CROWD or not is_crowded())):
                self.left = others
                raise Discard(otherwise)
            if stays:
                idle = [pid for pid, _, state, _ in look.others if state == "idle"]
                self.connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", [idle])
            time.sleep(_POLL)

    def watch(self, backend: int) -> bool:
        """Take the present state for the seeded one, while one idle backend is connected that is to stay.

        From here on the observer commits nothing: what is committed now, another client did. False if somebody else was
        there since the clone was settled. What the backend wrote when it connected is not watched but settled.
        """
        self.connection.execute(FLUSH)
        with self.connection.transaction(force_rollback=True):
            self.connection.execute("DEALLOCATE ALL")
        self._unseen = BackendLook(self.connection, self.sequences.seeded)
        now, resting = self._unseen.look(backend).counters, self.resting
        if now is None or not replace(now, sessions=now.sessions - 1).is_undisturbed(resting):
            return False
        self._watched = None if now.tuples != resting.tuples else now
        return True

    def is_as_watched(self, backend: int) -> bool:
        """Whether nothing was committed since `watch`, and only that backend is connected. Sets the sequences back.

        A commit that wrote nothing counts as well: it may have changed the session. The backend must have told the
        server what it did. What was written and rolled back has left dead rows: settle the clone now and then.
        """
        before, unseen = self._watched, self._unseen
        if before is None or unseen is None:
            return False
        fetched, look = unseen.set_back(self.sequences.fetched, backend)
        now = look.counters
        if now is None or now.committed != before.committed or now.beyond_rows(before) or look.fetched != fetched:
            return False
        self.sequences.fetched = fetched
        self._watched, self.globals_mark = now, now.globals_mark
        return True
