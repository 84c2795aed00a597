"""A connection that stays on a clone from before its first test: it looks, and it rewinds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.clones.changes import (
    COUNTERS,
    Changes,
    Counters,
    OpenConnection,
    TableChange,
    TableCounts,
    written_since,
)
from pytest_seeddb.clones.rewind import NotRewindable, Rewind
from pytest_seeddb.clones.sequences import SequenceWatch

if TYPE_CHECKING:
    from pytest_seeddb.clones.shape import Shape
    from pytest_seeddb.servers.address import Address

NAME: Final = "pytest-seeddb keeper"

_SETTINGS: Final = (
    "SET default_transaction_read_only = off; SET statement_timeout = 0; SET lock_timeout = '2s'; "
    "SET idle_session_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET synchronize_seqscans = off; "
    # VACUUM marks pages all-visible only where the commits have been flushed.
    "SET synchronous_commit = local"
)
# A client that has been let in, and is not listed yet, holds a lock on the database; see `pytest_seeddb.servers.admin`.
_OTHERS: Final = """
SELECT pid, 'somebody' AS application, 'connecting' AS state, '' AS query FROM pg_lock_status()
WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND mode = 'RowExclusiveLock'
  AND objid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
UNION ALL
SELECT pid, coalesce(application_name, ''), coalesce(state, 'unknown'), coalesce(query, '')
FROM pg_stat_get_activity(NULL)
WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
  AND backend_type IS DISTINCT FROM 'autovacuum worker'
"""
# The counters are read only once nobody is connected: CASE sees to that, and to the order.
_LOOK: Final = f"""
WITH others AS MATERIALIZED ({_OTHERS}),
     quiet AS MATERIALIZED (SELECT NOT EXISTS (SELECT FROM others) AS quiet)
SELECT (SELECT json_agg(json_build_array(pid, application, state, query)) FROM others),
       CASE WHEN (SELECT quiet FROM quiet)
            THEN (SELECT json_build_array(a, b, c, d, e) FROM ({COUNTERS}) AS counters (a, b, c, d, e)) END,
       pg_snapshot_xmax(pg_current_snapshot())::xid::text
"""  # noqa: S608 - constants of ours
# The counters where nobody else is connected but one backend, which is idle. CASE sees to the order.
_GLANCE: Final = f"""
WITH others AS MATERIALIZED ({_OTHERS})
SELECT CASE WHEN (SELECT array_agg((pid, state)::text) FROM others) = ARRAY[format('(%%s,idle)', %s::int)]
            THEN (SELECT json_build_array(a, b, c, d, e) FROM ({COUNTERS}) AS counters (a, b, c, d, e)) END
"""  # noqa: S608 - constants of ours
_POLL: Final = 0.0003
"""Seconds between looks: a backend whose client has gone needs about one millisecond to end."""
_CLOSING: Final = 0.003
"""Seconds after which an idle connection is one that the test left open, not one that is just ending,"""
_LOOKS: Final = 4
"""and as many looks: where our own backend waits long for a processor, one that is ending does so as well."""
_BUSY: Final = 0.02
"""Seconds after which a transaction is one that the test left open."""
_PATIENCE: Final = 2.0


@dataclass(frozen=True)
class Other:
    """A backend on the clone that is not the keeper's."""

    pid: int
    application: str
    state: str
    query: str

    @property
    def is_busy(self) -> bool:
        """Whether it is inside a transaction or runs something, or may be."""
        return self.state not in {"idle", "connecting"}

    def shown(self) -> OpenConnection:
        """As users see it."""
        return OpenConnection(self.application, self.state, self.query)


@dataclass(frozen=True)
class Moment:
    """What the server counts for a clone, and the first transaction number not used yet."""

    counters: Counters
    tables: dict[int, TableCounts]
    newest: str


class Keeper:
    """The connection, and what the clone looked like when it was last known to be seeded.

    Lifetime: that of the clone. It belongs to whoever holds the clone; one thread at a time.

    Raises:
        psycopg.Error: Wherever the server refuses something; the clone is then to be discarded.
    """

    def __init__(self, address: Address, shape: Shape, *, superuser: bool) -> None:
        self._shape = shape
        self._superuser = superuser
        self._connection = psycopg.connect(
            address.conninfo, autocommit=True, application_name=NAME, prepare_threshold=0
        )
        try:
            self._connection.execute(_SETTINGS, prepare=False)
            if superuser:
                self._connection.execute("SET session_replication_role = replica")
            self._sequences = SequenceWatch(shape.learn(self._connection), self._connection)
            self.left: tuple[OpenConnection, ...] = ()
            self.wrote: tuple[str, ...] = ()
            self._seeded = self._moment()
            self._watched: Counters | None = None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    # -- looking ---------------------------------------------------------------------------------

    def wait_until_alone(self) -> Moment | None:
        """End idle connections that the test left open, and wait; ``None`` where one is busy or does not go.

        Whom the test left connected is in `left` afterwards.
        """
        self.left = self.wrote = ()
        return self._wait()

    def _wait(self) -> Moment | None:
        started = time.monotonic()
        for looks in count(1):
            others, counters, newest = self._look()
            if counters is not None:
                return Moment(counters, {}, newest)
            waited = time.monotonic() - started
            stays = waited > _CLOSING and looks > _LOOKS
            if stays and not self.left:
                self.left = tuple(each.shown() for each in others)
            if waited > (_BUSY if any(each.is_busy for each in others) else _PATIENCE):
                self.left = tuple(each.shown() for each in others)
                break
            if stays:
                self._end([each.pid for each in others if each.state == "idle"])
            time.sleep(_POLL)
        return None

    def _look(self) -> tuple[list[Other], Counters | None, str]:
        others, counters, newest = self._connection.execute(_LOOK).fetchall()[0]
        found = Counters(*counters) if counters is not None else None
        return [Other(*each) for each in others or []], found, newest

    def _end(self, pids: list[int]) -> None:
        self._connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", [pids])

    def _moment(self) -> Moment:
        """The present state as the seeded one. Nobody else may be connected."""
        found = self._wait()
        if found is None:
            raise NotRewindable("somebody connected meanwhile")
        return Moment(found.counters, TableCounts.of(self._connection, self._shape.relations), found.newest)

    # -- beside somebody who stays connected ------------------------------------------------------

    def watch(self, backend: int) -> None:
        """Take the present state for the seeded one, while one idle backend is connected that is to stay.

        From here on the keeper commits nothing: what is committed now, somebody else did.
        """
        self._connection.execute("SELECT pg_stat_force_next_flush()")
        with self._connection.transaction(force_rollback=True):
            self._watched = self._glance(backend)

    def is_as_watched(self, backend: int) -> bool:
        """Whether nothing was committed since `watch`, and only that backend is connected. Sets the sequences back.

        A commit that wrote nothing counts as well: it may have changed the session.
        The backend must have told the server what it did. What was written and rolled back has left dead
        rows: settle the clone now and then.
        """
        with self._connection.transaction(force_rollback=True):
            now, before = self._glance(backend), self._watched
            if now is None or before is None or now.committed != before.committed or now.beyond_rows(before):
                return False
            self._sequences.settle(self._connection)
        self._watched = now
        return True

    def _glance(self, backend: int) -> Counters | None:
        """The counters, unless anybody else is connected, or the backend is in the middle of something."""
        row = self._connection.execute(_GLANCE, [backend]).fetchone()
        return Counters(*row[0]) if row and row[0] else None

    # -- comparing -------------------------------------------------------------------------------

    def wrote_rows(self, now: Moment) -> bool:
        """Whether any row was written since the clone was seeded."""
        return now.counters.tuples != self._seeded.counters.tuples

    def beyond_rows(self, now: Moment) -> bool:
        """Whether anything but rows of the database changed."""
        return now.counters.beyond_rows(self._seeded.counters)

    def moved_sequences(self) -> bool:
        """Whether a sequence moved."""
        return not self._sequences.settled(self._connection)

    def written(self, now: Moment) -> dict[int, TableCounts] | None:
        """The rows written, by table; ``None`` where something was written that is no row of a table."""
        counted = self._counted()
        self.wrote = tuple(self._shape.tables[oid].label for oid in counted if oid in self._shape.tables)
        if self._is_more_than(counted, now.counters):
            return None
        tables = {self._shape.owner(oid): TableCounts() for oid in counted}
        return {**tables, **{oid: counts for oid, counts in counted.items() if oid in tables}}

    def changes(self) -> Changes:
        """What has been written, as far as the server has been told."""
        row = self._connection.execute(COUNTERS).fetchall()[0]
        now, counted = Counters(*row), self._counted()
        others = self._connection.execute(_OTHERS).fetchall()
        return Changes(
            tables=tuple(
                TableChange(self._shape.tables[oid].label, counts.inserted, counts.updated, counts.deleted)
                for oid, counts in counted.items()
                if oid in self._shape.tables
            ),
            sequences=tuple(self._sequences.moved(self._connection)),
            beyond_rows=now.beyond_rows(self._seeded.counters) or self._is_more_than(counted, now),
            connections=tuple(Other(*each).shown() for each in others),
        )

    def _counted(self) -> dict[int, TableCounts]:
        """Rows written since the clone was seeded, by table, those of long values included."""
        return written_since(TableCounts.of(self._connection, self._shape.relations), self._seeded.tables)

    def _is_more_than(self, counted: dict[int, TableCounts], now: Counters) -> bool:
        """Whether the database counts rows that stand in none of these tables."""
        return now.tuples - self._seeded.counters.tuples != sum(counts.written for counts in counted.values())

    # -- putting back ----------------------------------------------------------------------------

    def plan_rewind(self, written: dict[int, TableCounts]) -> Rewind:
        """What would have to be undone.

        Raises:
            NotRewindable: Our role is no superuser, so triggers and foreign keys cannot be kept quiet.
        """
        if written and not self._superuser:
            raise NotRewindable("rows were written, and our role is no superuser")
        return Rewind(self._shape, written, self._seeded.newest)

    def rewind(self, rewind: Rewind) -> None:
        """Undo it, set the sequences back, and take the result for the seeded state.

        Raises:
            NotRewindable: It could not be done exactly.
        """
        if rewind.written:
            rewind.run(self._connection)
        self._sequences.settle(self._connection)
        self._connection.execute("SELECT pg_stat_force_next_flush()")
        self._seeded = self._moment()
