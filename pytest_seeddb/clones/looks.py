"""What the server counts for a clone, and who is connected to it: in one moment, by one statement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, LiteralString

from pytest_seeddb.servers.globals import MARKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from pytest_seeddb.servers.admin import Admin

    Connection = psycopg.Connection[Any]

# The order of the fields of `Counters`.
# Of the catalogs that all databases share, four are written whenever anybody creates or drops a
# database, and the counts come up to a second late: of those, what they say of this database is read.
COUNTERS: Final = """
SELECT pg_stat_get_db_sessions(oid), pg_stat_get_db_xact_commit(oid) - pg_stat_get_db_sessions(oid),
       pg_stat_get_db_tuples_inserted(oid) + pg_stat_get_db_tuples_updated(oid) + pg_stat_get_db_tuples_deleted(oid),
       (SELECT sum(pg_stat_get_tuples_inserted(of) + pg_stat_get_tuples_updated(of) + pg_stat_get_tuples_deleted(of))
        FROM unnest(ARRAY['pg_authid', 'pg_auth_members', 'pg_parameter_acl', 'pg_replication_origin', 'pg_shseclabel',
                    'pg_subscription', 'pg_tablespace']::regclass[]) of),
       concat_ws('/', xmin,
        (SELECT string_agg(xmin::text, ',' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid),
        (SELECT xmin FROM pg_shdescription WHERE classoid = 'pg_database'::regclass AND objoid = d.oid)),
       concat_ws('/', pg_stat_get_db_stat_reset_time(oid), (SELECT count(*) FROM pg_prepared_xact() WHERE dbid = d.oid),
        (SELECT count(*) FROM pg_get_replication_slots() WHERE datoid = d.oid)),
       'of the server'
FROM pg_database d WHERE datname = current_database()
"""
FETCHED: Final = """
SELECT o, pg_stat_get_blocks_fetched(o) FROM unnest(%s::oid[]) o WHERE pg_stat_get_blocks_fetched(o) <> 0
"""
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
                  FROM ({COUNTERS}) AS counters (a, b, c, d, e, f, g)) END,
       pg_snapshot_xmax(pg_current_snapshot())::xid::text,
       (SELECT json_agg(json_build_array(o::bigint, fetched)) FROM ({FETCHED}) counted (o, fetched))
"""  # noqa: S608 - constants of this module
LOOK: Final = _MOMENT.format("NOT EXISTS (SELECT FROM others)")
# Where nobody else is connected but one backend, which is idle.
_GLANCE: Final = _MOMENT.format("(SELECT array_agg((pid, state)::text) FROM others) = ARRAY[format('(%s,idle)', $1)]")


# The counts that are not zero, as they were before anything was set back.
_SET_BACK: Final = """
SELECT o::bigint, fetched, CASE WHEN fetched <> known THEN setval(o::regclass, last, called) END
FROM (SELECT o, last, called, known, pg_stat_get_blocks_fetched(o) AS fetched
      FROM unnest('{oids}'::oid[], '{last}'::bigint[], '{called}'::bool[], $1) AS seeded (o, last, called, known)
      OFFSET 0) AS counted
WHERE fetched <> 0 OR known <> 0
"""


@cache
def complete(query: LiteralString, *, superuser: bool) -> LiteralString:
    """The query with what the role may see of the server."""
    return query.replace("'of the server'", MARKS[superuser])


def rows(connection: Connection, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    """Run one of these queries."""
    superuser = connection.info.parameter_status("is_superuser") == "on"
    return connection.execute(complete(query, superuser=superuser), values or None).fetchall()


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
        return cls(*admin.run(complete(COUNTERS, superuser=admin.is_superuser))[0])

    @property
    def globals_mark(self) -> str:
        """A text that is another where something changed that belongs to the whole server."""
        return f"{self.shared}/{self.server}"

    def is_altered(self, earlier: Counters) -> bool:
        """Whether the database's own settings changed since, or its counters were reset."""
        return (self.own, self.doubt) != (earlier.own, earlier.doubt)

    def beyond_rows(self, earlier: Counters) -> bool:
        """Whether something changed since that no row of this database shows: roles, its settings, the counters."""
        return self.shared != earlier.shared or self.is_altered(earlier)

    @property
    def is_unwritten(self) -> bool:
        """Whether nothing was ever written in a new clone."""
        return (self.tuples, self.doubt) == (0, "0/0")

    def is_undisturbed(self, earlier: Counters) -> bool:
        """Whether nobody else was there since: nobody connected, or changed its settings from outside."""
        return self.sessions == earlier.sessions and not self.is_altered(earlier)

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
        query = complete(_GLANCE if beside_a_backend else LOOK, superuser=superuser).replace("%s::oid[]", array)
        connection.execute(f"BEGIN; PREPARE seeddb_look(int) AS {query}; ROLLBACK".encode())

    def look(self, backend: int = 0) -> Look:
        """What it shows."""
        cursor = self._connection.execute(b"BEGIN; EXECUTE seeddb_look(%d); ROLLBACK" % backend)
        cursor.nextset()
        return Look.of(*cursor.fetchall()[0])


class BackendLook(UnseenLook):
    """A look beside one idle backend, which sets back first the sequences that moved. All that is one round trip.

    ``seeded`` has each sequence's ``last_value`` and ``is_called``.
    """

    def __init__(self, connection: Connection, seeded: Mapping[int, tuple[Any, ...]]) -> None:
        super().__init__(connection, [*seeded], beside_a_backend=True)
        self._oids = [*seeded]
        last, called = zip(*seeded.values(), strict=True) if seeded else ((), ())
        columns = {"oids": self._oids, "last": last, "called": ["tf"[not value] for value in called]}
        query = _SET_BACK.format(**{name: f"{{{','.join(map(str, values))}}}" for name, values in columns.items()})
        connection.execute(f"BEGIN; PREPARE seeddb_set_back(bigint[]) AS {query}; ROLLBACK".encode())

    def set_back(self, known: Mapping[int, int], backend: int) -> tuple[dict[int, int], Look]:
        """Set back the sequences that were not fetched as often as is ``known``; how often they were, and a look."""
        counts = ",".join(str(known.get(oid, 0)) for oid in self._oids)
        looking = f"BEGIN; EXECUTE seeddb_look({backend}); ROLLBACK"
        cursor = self._connection.execute(
            f"BEGIN; EXECUTE seeddb_set_back('{{{counts}}}'); ROLLBACK; {looking}".encode()
        )
        cursor.nextset()
        fetched = {oid: count for oid, count, _ in cursor.fetchall() if count}
        for _ in range(3):
            cursor.nextset()
        return fetched, Look.of(*cursor.fetchall()[0])
