"""Observe a clone: its seeded state, what was changed since, and who is connected to it.

The `Counters` of the whole database decide; `TableCounts` say which tables were written to. If the sum of
the tables is less than the database's, something else was written: a catalog, a large object.

Measured on PostgreSQL 15 and 18: each connection counts as one committed transaction and as one
session when its backend exits; a transaction that is rolled back, or that its backend's end rolls
back, counts as rolled back; every insert, update and delete counts, rolled back or not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pytest_seeddb.clones.changes import Changes, OpenConnection, TableChange

if TYPE_CHECKING:
    from pytest_seeddb.clones.shape import Sequences, Shape
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin

    Connection = psycopg.Connection[Any]

NAME: Final = "pytest-seeddb keeper"
"""The ``application_name`` of connections that observe."""

# Of the catalogs that all databases share, four are written whenever anybody creates or drops a
# database, and the counts come up to a second late: of those, what they say of this database is read.
_COUNTERS: Final = """
SELECT pg_stat_get_db_xact_commit(oid) - pg_stat_get_db_sessions(oid),
       pg_stat_get_db_tuples_inserted(oid) + pg_stat_get_db_tuples_updated(oid) + pg_stat_get_db_tuples_deleted(oid),
       (SELECT sum(pg_stat_get_tuples_inserted(of) + pg_stat_get_tuples_updated(of) + pg_stat_get_tuples_deleted(of))
        FROM unnest('{{pg_authid,pg_auth_members,pg_parameter_acl,pg_shseclabel,pg_subscription,pg_tablespace}}'
                    ::regclass[]) of),
       concat_ws('/', xmin,
        (SELECT string_agg(xmin::text, ',' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid),
        (SELECT xmin FROM pg_shdescription WHERE classoid = 'pg_database'::regclass AND objoid = d.oid)),
       concat_ws('/', pg_stat_get_db_stat_reset_time(oid), (SELECT count(*) FROM pg_prepared_xact() WHERE dbid = d.oid))
FROM pg_database d WHERE datname = {}
"""
_OWN_COUNTERS: Final = _COUNTERS.format("current_database()")
_TABLES: Final = """
SELECT o, i, u, d, pg_stat_get_live_tuples(o) FROM (
    SELECT o, pg_stat_get_tuples_inserted(o) i, pg_stat_get_tuples_updated(o) u, pg_stat_get_tuples_deleted(o) d
    FROM unnest(%s::oid[]) o OFFSET 0) counted
WHERE i + u + d <> 0
"""
_FETCHED: Final = """
SELECT o, pg_stat_get_blocks_fetched(o) FROM unnest(%s::oid[]) o WHERE pg_stat_get_blocks_fetched(o) <> 0
"""
_FLUSH: Final = "SELECT pg_stat_force_next_flush()"
_SETTINGS: Final = (
    "SET default_transaction_read_only = off; SET statement_timeout = 0; SET lock_timeout = '2s'; "
    "SET idle_session_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET synchronize_seqscans = off; "
    # VACUUM marks pages all-visible only where the commits have been flushed.
    "SET synchronous_commit = local"
)
# A client that has been let in, and is not listed yet, holds a lock on the database; see `pytest_seeddb.servers.admin`.
_OTHERS: Final = """
SELECT pid, 'unknown' AS application, 'connecting' AS state, '' AS query FROM pg_lock_status()
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
            THEN (SELECT json_build_array(a, b, c, d, e) FROM ({_OWN_COUNTERS}) AS counters (a, b, c, d, e)) END,
       pg_snapshot_xmax(pg_current_snapshot())::xid::text
"""  # noqa: S608 - constants of this module
# The counters where nobody else is connected but one backend, which is idle. CASE sees to the order.
_GLANCE: Final = f"""
WITH others AS MATERIALIZED ({_OTHERS})
SELECT CASE WHEN (SELECT array_agg((pid, state)::text) FROM others) = ARRAY[format('(%%s,idle)', %s::int)]
            THEN (SELECT json_build_array(a, b, c, d, e) FROM ({_OWN_COUNTERS}) AS counters (a, b, c, d, e)) END
"""  # noqa: S608 - constants of this module
_POLL: Final = 0.0003
"""Seconds between looks: a backend whose client has gone needs about one millisecond to end."""
_CLOSING: Final = 0.003
"""Seconds after which an idle connection is one that the test left open, not one that is just ending,"""
_LOOKS: Final = 4
"""and as many looks: if our own backend waits long for a processor, so does one that is ending."""
_BUSY: Final = 0.02
"""Seconds after which a transaction is one that the test left open."""
_PATIENCE: Final = 2.0


class Discard(Exception):  # noqa: N818 - a verdict, not an error: it never leaves settling
    """The clone must be discarded: to make it equal to a fresh one is uncertain, or takes too long."""


@dataclass(frozen=True)
class Counters:
    """The server's counters for one database, read while nobody is connected to it."""

    committed: int
    """Transactions that sessions committed on purpose."""
    tuples: int
    """Rows written in the database, whether it was committed or not."""
    shared: int
    """Rows written in the catalogs of roles and such, which all databases share."""
    own: str
    """What the shared catalogs say of this database: each version of it has another value."""
    doubt: str
    """When the counters were last reset, and how many transactions are prepared."""

    @classmethod
    def of(cls, admin: Admin, database: str) -> Counters:
        """Read them. A backend's counts arrive when it exits, so end the connections first."""
        return cls(*admin.run(_COUNTERS.format("%s"), [database])[0])

    def beyond_rows(self, earlier: Counters) -> bool:
        """Whether something changed since that no row of this database shows: roles, its settings, the counters."""
        return (self.shared, self.own, self.doubt) != (earlier.shared, earlier.own, earlier.doubt)

    def wrote(self, earlier: Counters) -> bool:
        """Whether any row was written since, committed or not."""
        return self.tuples != earlier.tuples or self.beyond_rows(earlier)

    def has_committed_writes(self, earlier: Counters) -> bool:
        """Whether a write may have been committed since. In doubt, yes."""
        return self.doubt != earlier.doubt or (self.committed != earlier.committed and self.wrote(earlier))


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
    identity columns, RESTART IDENTITY). So `is_settled` and `settle` read only those whose count has changed.

    The server learns what a backend has fetched when that is idle or exits. `moves` and `restore` read every
    sequence, for when a test may be in the middle of something.
    """

    def __init__(self, sequences: Sequences, connection: Connection) -> None:
        self._sequences = sequences
        self.connection = connection
        self._oids = list(sequences.names)
        self._fetched = self._counts()

    def is_settled(self) -> bool:
        """Whether all are in their seeded state."""
        return not self._differences(self._suspects(self._counts()))

    def settle(self) -> None:
        """Set back those that moved."""
        counts = self._counts()
        self._set_back(self._suspects(counts))
        # What is read and set here counts as well, some time later: then it is read once more for nothing.
        self._fetched = counts

    def moves(self) -> list[str]:
        """The names of those that are not in their seeded state."""
        return [self._sequences.names[oid] for oid in self._differences(self._oids)]

    def restore(self) -> None:
        """Set back those that moved, also where the server has not been told yet."""
        self._set_back(self._oids)

    def _counts(self) -> dict[int, int]:
        return dict(self.connection.execute(_FETCHED, [self._oids]).fetchall()) if self._oids else {}

    def _suspects(self, counts: dict[int, int]) -> list[int]:
        return [oid for oid in self._oids if counts.get(oid, 0) != self._fetched.get(oid, 0)]

    def _differences(self, oids: list[int]) -> list[int]:
        states = self._sequences.states(self.connection, oids)
        return [oid for oid in oids if states[oid] != self._sequences.seeded[oid]]

    def _set_back(self, oids: list[int]) -> None:
        for oid in self._differences(oids):
            self.connection.execute("SELECT setval(%s::oid::regclass, %s, %s)", [oid, *self._sequences.seeded[oid]])


class Observer:
    """A connection that stays on a clone from before its first test, and the clone's seeded state.

    It belongs to the clone's holder; one thread at a time. After a `psycopg.Error` or `Discard`, which the constructor
    raises if another client is connected, discard the clone.
    """

    def __init__(self, address: Address, shape: Shape, *, superuser: bool) -> None:
        self.shape = shape
        self.superuser = superuser
        self.left: tuple[OpenConnection, ...] = ()
        self.wrote: tuple[str, ...] = ()
        self._watched: Counters | None = None
        self.connection = psycopg.connect(address.conninfo, autocommit=True, application_name=NAME, prepare_threshold=0)
        try:
            self.connection.execute(_SETTINGS, prepare=False)
            if superuser:
                self.connection.execute("SET session_replication_role = replica")
            self.sequences = SequenceWatch(shape.learn(self.connection), self.connection)
            self.seeded = self._moment()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def row_counts(self, now: Counters) -> dict[int, TableCounts]:
        """The rows written since the clone was seeded, by table; `wrote` has the tables' names afterwards."""
        counts, tables = self._difference(), self.shape.tables
        self.wrote = tuple(tables[oid].label for oid in counts if oid in tables)
        if self._is_more_than(counts, now):
            raise Discard("more than rows of tables was written: the schema or large objects")
        owners = (self.shape.owners[oid] for oid in counts)
        return {owner: counts.get(owner, TableCounts()) for owner in owners}

    def start_over(self) -> None:
        """Take the present state for the seeded one."""
        self.connection.execute(_FLUSH)
        self.seeded = self._moment()

    def _moment(self) -> Moment:
        counters, newest = self.wait_until_alone("another client connected meanwhile")
        return Moment(counters, self._table_counts(), newest)

    def wait_until_alone(self, otherwise: str) -> tuple[Counters, str]:
        """End idle connections that the test left open, and wait until nobody is connected; `left` has them afterwards.

        Returns the counters and the first transaction number not used yet. Where a connection is busy or does not go,
        ``otherwise`` is why the clone is to be discarded.
        """
        started, looks = time.monotonic(), 0
        while True:
            rows, counters, newest = self.connection.execute(_LOOK).fetchall()[0]
            if counters is not None:
                return Counters(*counters), newest
            others = tuple(OpenConnection(*row) for _, *row in rows or ())
            waited, looks = time.monotonic() - started, looks + 1
            stays = waited > _CLOSING and looks > _LOOKS
            if stays and not self.left:
                self.left = others
            # Inside a transaction, or running something, or it may be.
            is_busy = any(other.state not in {"idle", "connecting"} for other in others)
            if waited > (_BUSY if is_busy else _PATIENCE):
                self.left = others
                raise Discard(otherwise)
            if stays:
                idle = [pid for pid, _, state, _ in rows or () if state == "idle"]
                self.connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", [idle])
            time.sleep(_POLL)

    def changes(self) -> Changes:
        """What has been written, as far as the server has been told."""
        now = Counters(*self.connection.execute(_OWN_COUNTERS).fetchall()[0])
        counts, tables = self._difference(), self.shape.tables
        others = self.connection.execute(_OTHERS).fetchall()
        return Changes(
            tables=tuple(
                TableChange(tables[oid].label, table.inserted, table.updated, table.deleted)
                for oid, table in counts.items()
                if oid in tables
            ),
            sequences=tuple(self.sequences.moves()),
            beyond_rows=now.beyond_rows(self.seeded.counters) or self._is_more_than(counts, now),
            connections=tuple(OpenConnection(*row) for _, *row in others),
        )

    def _difference(self) -> dict[int, TableCounts]:
        """Rows written since the clone was seeded, by table, those of long values included."""
        differences = {
            oid: counts.since(self.seeded.tables.get(oid, TableCounts()))
            for oid, counts in self._table_counts().items()
        }
        return {oid: counts for oid, counts in differences.items() if counts.total}

    def _table_counts(self) -> dict[int, TableCounts]:
        """Rows written in the clone, by table; none where nothing was ever written."""
        return {oid: TableCounts(*row) for oid, *row in self.connection.execute(_TABLES, [[*self.shape.owners]])}

    def _is_more_than(self, tables: dict[int, TableCounts], now: Counters) -> bool:
        """Whether the database counts rows that stand in none of these tables."""
        return now.tuples - self.seeded.counters.tuples != sum(counts.total for counts in tables.values())

    def watch(self, backend: int) -> None:
        """Take the present state for the seeded one, while one idle backend is connected that is to stay.

        From here on the observer commits nothing: what is committed now, another client did.
        """
        self.connection.execute(_FLUSH)
        with self.connection.transaction(force_rollback=True):
            self._watched = self._glance(backend)

    def is_as_watched(self, backend: int) -> bool:
        """Whether nothing was committed since `watch`, and only that backend is connected. Sets the sequences back.

        A commit that wrote nothing counts as well: it may have changed the session. The backend must have told the
        server what it did. What was written and rolled back has left dead rows: settle the clone now and then.
        """
        with self.connection.transaction(force_rollback=True):
            now, before = self._glance(backend), self._watched
            if now is None or before is None or now.committed != before.committed or now.beyond_rows(before):
                return False
            self.sequences.settle()
        self._watched = now
        return True

    def _glance(self, backend: int) -> Counters | None:
        """The counters, unless anybody else is connected, or the backend is in the middle of something."""
        row = self.connection.execute(_GLANCE, [backend]).fetchone()
        return Counters(*row[0]) if row and row[0] else None
