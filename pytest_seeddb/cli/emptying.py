"""Drops everything in a database, without making anybody who works in it wait."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

from psycopg import errors, sql

from pytest_seeddb.errors import ServerError

if TYPE_CHECKING:
    import psycopg

    from pytest_seeddb.plan.plan import Progress

LOCK_TIMEOUT: Final = 10.0
_INTERVAL: Final = 0.1
"""Seconds between attempts to lock everything."""
_NAMED_OBJECTS: Final = 5

_OWN: Final = """
NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = o.oid AND e.refobjid <> o.oid AND e.deptype IN ('e', 'i', 'a'))
"""
"""Not made by an extension, nor with another object. A partitioned table depends on itself, by its key's columns."""

_EXTENSIONS: Final = """
SELECT extname FROM pg_extension
WHERE extnamespace <> 'pg_catalog'::regnamespace AND pg_has_role(extowner, 'USAGE') ORDER BY oid
"""
# public itself stays: nothing would restore its grants.
_SCHEMAS: Final = f"""
SELECT nspname FROM pg_namespace o
WHERE nspname NOT IN ('public', 'information_schema') AND nspname NOT LIKE 'pg\\_%' AND {_OWN} ORDER BY oid
"""  # noqa: S608 - constants

_RELATIONS: Final = """
CASE relkind WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
             WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, o.oid::regclass::text
FROM pg_class o WHERE relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND relnamespace"""
_ROUTINES: Final = """
CASE prokind WHEN 'a' THEN 'AGGREGATE' WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, o.oid::regprocedure::text
FROM pg_proc o WHERE pronamespace"""
_TYPES: Final = """
CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, o.oid::regtype::text FROM pg_type o
WHERE typelem = 0 AND (typrelid = 0 OR (SELECT relkind FROM pg_class c WHERE c.oid = typrelid) = 'c')
  AND typnamespace"""
_COLLATIONS: Final = "'COLLATION', o.oid::regcollation::text FROM pg_collation o WHERE collnamespace"
_CONFIGURATIONS: Final = "'TEXT SEARCH CONFIGURATION', o.oid::regconfig::text FROM pg_ts_config o WHERE cfgnamespace"
_DICTIONARIES: Final = "'TEXT SEARCH DICTIONARY', o.oid::regdictionary::text FROM pg_ts_dict o WHERE dictnamespace"
_OBJECTS: Final = (_RELATIONS, _ROUTINES, _TYPES, _COLLATIONS, _CONFIGURATIONS, _DICTIONARIES)
"""What DROP calls each object, its name as PostgreSQL quotes it, and in the end the column of its schema."""

_STAYS: Final = """
EXISTS (
    SELECT FROM pg_depend e JOIN pg_extension x ON x.oid = e.refobjid
    WHERE e.objid = o.oid AND e.deptype = 'e'
        AND (x.extnamespace = 'pg_catalog'::regnamespace OR NOT pg_has_role(x.extowner, 'USAGE'))
)
"""
"""It belongs to an extension that is not dropped."""
# LOCK takes tables only. Whoever uses a view holds locks on its tables, too.
_TABLES: Final = f"""
SELECT o.oid::regclass::text FROM pg_class o
WHERE relkind IN ('r', 'p') AND relpersistence <> 't' AND o.oid >= 16384 AND pg_has_role(relowner, 'USAGE')
    AND NOT {_STAYS} ORDER BY o.oid
"""  # noqa: S608 - constants
_HOLDERS: Final = f"""
SELECT l.pid, a.usename, a.application_name, host(a.client_addr), a.backend_type, a.state, x.gid,
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, x.prepared))::int,
       array_agg(DISTINCT o.oid::regclass::text) FILTER (WHERE o.relkind IN ('r', 'p', 'v', 'm', 'f', 'S'))
FROM pg_locks l
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
        AND t.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_prepared_xacts x ON x.transaction = t.transactionid
    LEFT JOIN pg_class o ON l.locktype = 'relation' AND o.oid = l.relation
    LEFT JOIN pg_namespace n ON n.oid = o.relnamespace OR (l.classid = 'pg_namespace'::regclass AND n.oid = l.objid)
WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (o.oid >= 16384 OR (l.locktype = 'object' AND l.objid >= 16384))
    AND (n.oid IS NOT NULL OR l.classid <> 'pg_namespace'::regclass)
    AND coalesce(n.nspname, '') !~ '^pg_(toast_)?temp_' AND NOT {_STAYS}
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1
"""  # noqa: S608 - constants


def empty(connection: psycopg.Connection[Any], lock_timeout: float, progress: Progress) -> None:
    """Drop all schemas but ``public``, all that is in it, our role's extensions and all large objects.

    In one transaction: killed in the middle, everything is as before. What is granted on ``public``,
    on the database and by default privileges stays, and so do extensions of other roles.

    Nobody waits behind a lock that this waits for: it takes all locks at once or none, and tries again for
    ``lock_timeout`` seconds.

    Raises:
        ServerError: Others still hold locks; names them. Nothing is dropped.
        psycopg.Error: The role may not drop an object; nothing is dropped.
    """
    deadline, has_waited = monotonic() + lock_timeout, False
    while True:
        holders = _holders(connection)
        if not holders:
            with suppress(errors.LockNotAvailable, errors.UndefinedTable):
                _drop_all(connection)
                return
        if monotonic() >= deadline:
            raise _in_use(connection, _holders(connection), lock_timeout)
        if not has_waited:
            progress.waiting("; ".join(map(str, holders)) or "others use the database's tables")
            has_waited = True
        sleep(_INTERVAL)


def _drop_all(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction():
        # For what LOCK does not take: sequences, materialized views, schemas, functions.
        connection.execute("SET LOCAL lock_timeout = '1ms'")
        tables = [name for (name,) in connection.execute(_TABLES).fetchall()]
        if tables:
            names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.SQL(name)) for name in tables)
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(names))
        for word, query in (("EXTENSION", _EXTENSIONS), ("SCHEMA", _SCHEMAS)):
            for (name,) in connection.execute(query).fetchall():
                drop = sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(word), sql.Identifier(name))
                connection.execute(drop)
        for objects in _OBJECTS:
            query = f"SELECT {objects} = 'public'::regnamespace AND {_OWN} ORDER BY o.oid"
            for word, name in connection.execute(query).fetchall():
                connection.execute(sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(word), sql.SQL(name)))
        connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")


@dataclass(frozen=True)
class _Holder:
    """A session or a prepared transaction with locks on what is to be dropped."""

    pid: int | None
    role: str | None
    application: str | None
    host: str | None
    kind: str | None
    state: str | None
    gid: str | None
    seconds: int | None
    objects: list[str] | None

    def __str__(self) -> str:
        if self.pid is None:
            session = f"the prepared transaction {self.gid!r}"
        else:
            kind = "" if self.kind in {None, "client backend"} else f" ({self.kind})"
            origin = (("role", self.role), ("application", self.application), ("from", self.host))
            session = ", ".join([f"pid {self.pid}{kind}", *(f"{word} {value}" for word, value in origin if value)])
        state = "idle in transaction" if (self.state or "").startswith("idle in") else "in a transaction"
        since = f" for {self.seconds} s" if self.seconds is not None else ""
        more = ", ..." if self.objects and len(self.objects) > _NAMED_OBJECTS else ""
        names = ", ".join((self.objects or ["objects"])[:_NAMED_OBJECTS])
        return f"{session}, {state}{since}, holds locks on {names}{more}"

    @property
    def end(self) -> str:
        """The statement that ends it."""
        if self.pid is None:
            return "ROLLBACK PREPARED '{}'".format((self.gid or "").replace("'", "''"))
        return f"SELECT pg_terminate_backend({self.pid})"


def _holders(connection: psycopg.Connection[Any]) -> list[_Holder]:
    return [_Holder(*row) for row in connection.execute(_HOLDERS).fetchall()]


def _in_use(connection: psycopg.Connection[Any], holders: list[_Holder], lock_timeout: float) -> ServerError:
    end = f"end their transactions: {'; '.join(holder.end for holder in holders)}" if holders else "stop what uses it"
    return ServerError(
        f"The database could not be emptied within {lock_timeout:g} s: other clients are using it. Nothing was changed",
        saw="\n".join(map(str, holders)) or "short transactions, one after the other; none is open now",
        source=f"the locks in the database {connection.info.dbname}",
        remedy=f"{end}; or try for longer: --lock-timeout {max(60, 2 * lock_timeout):g}",
    )
