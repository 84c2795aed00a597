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
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, LiteralString

from pytest_seeddb.clones.changes import OpenConnection
from pytest_seeddb.servers.globals import MARKS

if TYPE_CHECKING:
    import psycopg

    from pytest_seeddb.clones.shape import Sequences, Shape
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin

    Connection = psycopg.Connection[Any]

NAME: Final = "pytest-seeddb keeper"
"""The ``application_name`` of connections that observe."""

# The order of the fields of `Counters`.
# Of the catalogs that all databases share, four are written whenever anybody creates or drops a
# database, and the counts come up to a second late: of those, what they say of this database is read.
_COUNTERS: Final = """
SELECT pg_stat_get_db_sessions(oid), pg_stat_get_db_xact_commit(oid) - pg_stat_get_db_sessions(oid),
       pg_stat_get_db_tuples_inserted(oid) + pg_stat_get_db_tuples_updated(oid) + pg_stat_get_db_tuples_deleted(oid),
       (SELECT sum(pg_stat_get_tuples_inserted(of) + pg_stat_get_tuples_updated(of) + pg_stat_get_tuples_deleted(of))
        FROM unnest(ARRAY['pg_authid', 'pg_auth_members', 'pg_parameter_acl', 'pg_shseclabel', 'pg_subscription',
                    'pg_tablespace']::regclass[]) of),
       concat_ws('/', xmin,
        (SELECT string_agg(xmin::text, ',' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid),
        (SELECT xmin FROM pg_shdescription WHERE classoid = 'pg_database'::regclass AND objoid = d.oid)),
       concat_ws('/', pg_stat_get_db_stat_reset_time(oid), (SELECT count(*) FROM pg_prepared_xact() WHERE dbid = d.oid),
        (SELECT count(*) FROM pg_get_replication_slots() WHERE datoid = d.oid)),
       'of the server'
FROM pg_database d WHERE datname = current_database()
"""
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
# Read in one moment: the counters in between two looks at the sessions, of which neither may miss one. A backend that
# is listed among the others has not told all that it did; one that came after the list, and has gone, is one session
# more in the counters than before the list. CASE sees to the order, and the first column to being the first.
_MOMENT: Final = f"""
WITH before AS MATERIALIZED (
        SELECT pg_stat_get_db_sessions(oid) AS sessions, pg_stat_clear_snapshot()
        FROM pg_database, pg_stat_clear_snapshot() WHERE datname = current_database()),
     others AS MATERIALIZED ({_OTHERS})
SELECT (SELECT sessions FROM before),
       (SELECT json_agg(json_build_array(pid, application, state, query)) FROM others),
       CASE WHEN {{}}
            THEN (SELECT json_build_array(a, b, c, d, e, f, g)
                  FROM ({_COUNTERS}) AS counters (a, b, c, d, e, f, g)) END,
       pg_snapshot_xmax(pg_current_snapshot())::xid::text,
       (SELECT json_agg(json_build_array(o::bigint, fetched)) FROM ({_FETCHED}) counted (o, fetched))
"""  # noqa: S608 - constants of this module
_LOOK: Final = _MOMENT.format("NOT EXISTS (SELECT FROM others)")
# Where nobody else is connected but one backend, which is idle.
_GLANCE: Final = _MOMENT.format("(SELECT array_agg((pid, state)::text) FROM others) = ARRAY[format('(%s,idle)', $1)]")
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


@cache
def _complete(query: LiteralString, *, superuser: bool) -> LiteralString:
    """The query with what the role may see of the server."""
    return query.replace("'of the server'", MARKS[superuser])


def _rows(connection: Connection, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    superuser = connection.info.parameter_status("is_superuser") == "on"
    return connection.execute(_complete(query, superuser=superuser), values or None).fetchall()


class Discard(Exception):  # noqa: N818 - a verdict, not an error: it never leaves settling
    """The clone must be discarded: to make it equal to a fresh one is uncertain, or takes too long."""


class Disturbed(Discard):
    """Another client was in the clone while it had to be alone; what it did there is not known."""


@dataclass(frozen=True)
class Counters:
    """The server's counters for one database, read while nobody is connected to it."""

    sessions: int
    """Clients that ever connected. One counts when it is idle for the first time, or at the latest when it goes."""
    committed: int
    """Transactions that sessions committed on purpose."""
    tuples: int
    """Rows written in the database, whether it was committed or not."""
    shared: int
    """Rows written in the catalogs of roles and such, which all databases share."""
    own: str
    """What the shared catalogs say of this database: each version of it has another value."""
    doubt: str
    """When the counters were last reset, and how many transactions are prepared and replication slots there are."""
    server: str
    """What the whole server has beside roles: databases of others, settings, what ``ALTER SYSTEM`` wrote."""

    @classmethod
    def of(cls, admin: Admin) -> Counters:
        """Those of the maintenance database."""
        return cls(*admin.run(_complete(_COUNTERS, superuser=admin.is_superuser))[0])

    @property
    def globals_mark(self) -> str:
        """A text that is another where something changed that belongs to the whole server."""
        return f"{self.shared}/{self.server}"

    def beyond_rows(self, earlier: Counters) -> bool:
        """Whether something changed since that no row of this database shows: roles, its settings, the counters."""
        return (self.shared, self.own, self.doubt) != (earlier.shared, earlier.own, earlier.doubt)

    @property
    def is_unwritten(self) -> bool:
        """Whether nothing was ever written in a new clone."""
        return (self.tuples, self.doubt) == (0, "0/0")

    def is_undisturbed(self, earlier: Counters) -> bool:
        """Whether nobody else was there since: nobody connected, or changed its settings from outside."""
        return (self.sessions, self.own, self.doubt) == (earlier.sessions, earlier.own, earlier.doubt)

    def is_moved(self, earlier: Counters) -> bool:
        """Whether the database got another name since, its observer came back, and nothing else was done."""
        renamed = self.own.partition("/")[2] == earlier.own.partition("/")[2]
        return renamed and self.is_at_rest(replace(earlier, sessions=earlier.sessions + 1, own=self.own))

    def is_at_rest(self, earlier: Counters) -> bool:
        """Whether nobody else was there since, and nothing was written in any other way."""
        return self.tuples == earlier.tuples and self.is_undisturbed(earlier)

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


@dataclass(frozen=True)
class Look:
    """What one statement shows of a clone; ``counters`` is ``None`` where somebody else is connected."""

    others: list[tuple[int, str, str, str]]
    counters: Counters | None
    newest: str
    """The first transaction number not used yet."""
    fetched: dict[int, int]
    """How often each sequence was fetched, if ever."""

    @property
    def is_untouched(self) -> bool:
        """Whether a new clone is as it was made: nobody but its observer was there, or who was there only read."""
        now = self.counters
        # The observer's own reads of the sequences are not counted yet, unless it was slow.
        return now is not None and now.is_unwritten and (now.sessions == 1 or not self.fetched)

    @classmethod
    def of(cls, sessions: int, others: Any, counters: Any, newest: str, fetched: Any) -> Look:  # noqa: ANN401 - JSON
        """From a row of `_MOMENT`."""
        is_quiet = counters and counters[0] == sessions
        return cls(others or [], Counters(*counters) if is_quiet else None, newest, dict(fetched or ()))


class UnseenLook:
    """A look at a clone that leaves no commit in its counters, in one round trip.

    psycopg gives up what it has prepared with each ROLLBACK, and to plan a look takes longer than the look. So this one
    is prepared by hand on a connection that has nothing prepared, and psycopg prepares nothing there until its
    ``prepare_threshold`` is set again.
    """

    def __init__(self, connection: Connection, oids: list[int], *, beside_a_backend: bool) -> None:
        self._connection = connection
        connection.prepare_threshold = None
        array = f"'{{{','.join(map(str, oids))}}}'::oid[]"
        superuser = connection.info.parameter_status("is_superuser") == "on"
        query = _complete(_GLANCE if beside_a_backend else _LOOK, superuser=superuser).replace("%s::oid[]", array)
        connection.execute(f"BEGIN; PREPARE seeddb_look(int) AS {query}; ROLLBACK".encode())

    def look(self, backend: int = 0) -> Look:
        """What it shows."""
        cursor = self._connection.execute(b"BEGIN; EXECUTE seeddb_look(%d); ROLLBACK" % backend)
        cursor.nextset()
        return Look.of(*cursor.fetchall()[0])


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
        self.oids = list(sequences.names)
        self._fetched = self._counts()

    def is_settled(self, counts: dict[int, int]) -> bool:
        """Whether all are in their seeded state, as far as the counts of fetched blocks say."""
        return not self._differences(self.suspects(counts))

    def settle(self, counts: dict[int, int] | None = None) -> bool:
        """Set back those that moved; whether any did."""
        counts = self._counts() if counts is None else counts
        moved = self._differences(self.suspects(counts))
        self._set_back(moved)
        # What is read and set here counts as well, some time later: then it is read once more for nothing.
        self._fetched = counts
        return bool(moved)

    @property
    def names(self) -> dict[int, str]:
        """The names of all."""
        return self._sequences.names

    def moves(self, among: list[int] | None = None) -> list[str]:
        """The names of those that are not in their seeded state."""
        return [self.names[oid] for oid in self._differences(self.oids if among is None else among)]

    def restore(self) -> None:
        """Set back those that moved, also where the server has not been told yet."""
        self._set_back(self._differences(self.oids))

    def look(self) -> Look:
        """What the server says of the clone."""
        return Look.of(*_rows(self.connection, _LOOK, self.oids)[0])

    def counters(self) -> Counters:
        """What the server counts now, as far as it has been told, whoever is connected."""
        return Counters(*self.connection.execute(_COUNTERS).fetchall()[0])

    def _counts(self) -> dict[int, int]:
        return dict(self.connection.execute(_FETCHED, [self.oids]).fetchall()) if self.oids else {}

    def suspects(self, counts: dict[int, int]) -> list[int]:
        """Those that somebody may have moved."""
        return [oid for oid in self.oids if counts.get(oid, 0) != self._fetched.get(oid, 0)]

    def _differences(self, oids: list[int]) -> list[int]:
        states = self._sequences.states(self.connection, oids)
        return [oid for oid in oids if states[oid] != self._sequences.seeded[oid]]

    def _set_back(self, oids: list[int]) -> None:
        for oid in oids:
            self.connection.execute("SELECT setval(%s::oid::regclass, %s, %s)", [oid, *self._sequences.seeded[oid]])


def is_crowded() -> bool:
    """Whether more processes want to run on this machine than it has processors."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


class Observer:
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
        self.wrote: tuple[str, ...] = ()
        self.globals_mark = ""
        """As of the last look; empty where there was none."""
        self._watched: Counters | None = None
        self._unseen: UnseenLook | None = None
        self._connect(address)
        try:
            reading = shape.read(self.connection)
            self.sequences = SequenceWatch(reading.sequences, self.connection)
            now, look = self.wait_until_alone("another client is connected to the new clone")
            if is_fresh and not look.is_untouched:
                self._check_visited(now)
            shape.learn(reading)
            self.seeded = Moment(now, {} if is_fresh else self._table_counts(), look.newest)
            self.resting = now
        except BaseException:
            self.close()
            raise

    def _connect(self, address: Address) -> None:
        self.connection = address.connect(autocommit=True, application_name=NAME, prepare_threshold=0)
        replica = "; SET session_replication_role = replica" if self.superuser else ""
        self.connection.execute(f"{_FLUSH}; {_SETTINGS}{replica}", prepare=False)

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
        """Take the state after a rewind for the seeded one, if nobody else was there since ``alone`` was read."""
        self.connection.execute(_FLUSH)
        look = self._look()
        if look.counters is None or not look.counters.is_undisturbed(alone):
            raise Disturbed("another client connected while the rows were put back")
        self.seeded = Moment(look.counters, self._table_counts(), look.newest)
        self.resting = look.counters

    def is_at_rest(self) -> bool:
        """Whether nobody was in the clone since it was settled."""
        now = self._look().counters
        return now is not None and now.is_at_rest(self.resting)

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

    def watch(self, backend: int) -> bool:
        """Take the present state for the seeded one, while one idle backend is connected that is to stay.

        From here on the observer commits nothing: what is committed now, another client did. False if somebody else was
        there since the clone was settled. What the backend wrote when it connected is not watched but settled.
        """
        self.connection.execute(_FLUSH)
        with self.connection.transaction(force_rollback=True):
            self.connection.execute("DEALLOCATE ALL")
        self._unseen = UnseenLook(self.connection, self.sequences.oids, beside_a_backend=True)
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
        look = unseen.look(backend)
        now = look.counters
        if now is None or now.committed != before.committed or now.beyond_rows(before):
            return False
        if self.sequences.suspects(look.fetched):
            with self.connection.transaction(force_rollback=True):
                moved = self.sequences.settle(look.fetched)
            again = unseen.look(backend).counters if moved else now
            if again is None or again.committed != now.committed or not again.is_undisturbed(now):
                return False
        self._watched, self.globals_mark = now, now.globals_mark
        return True
