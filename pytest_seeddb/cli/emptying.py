"""Drops everything in a database, without making anybody who works in it wait."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, LiteralString

from psycopg import errors, sql

from pytest_seeddb.errors import ServerError

if TYPE_CHECKING:
    import psycopg

    from pytest_seeddb.plan.plan import Progress

LOCK_TIMEOUT: Final = 10.0
_INTERVAL: Final = 0.1
"""Seconds between attempts to lock everything."""
_NAMED_OBJECTS: Final = 5
_IS_SUPERUSER: Final[LiteralString] = "current_setting('is_superuser')::bool"
_IS_TYPE_ALONE: Final[LiteralString] = "(typrelid = 0 OR (SELECT relkind FROM pg_class c WHERE c.oid = typrelid) = 'c')"
_OWNS_TYPE: Final[LiteralString] = (
    "(SELECT pg_has_role(typowner, 'USAGE') AND typowner <> 10 FROM pg_type t WHERE t.oid = {})"
)

_OBJECTS: Final[tuple[tuple[LiteralString, LiteralString], ...]] = (
    ("pg_event_trigger", "pg_has_role(evtowner, 'USAGE')"),  # first: one may forbid to drop anything
    ("pg_extension", "extnamespace <> 'pg_catalog'::regnamespace AND pg_has_role(extowner, 'USAGE')"),
    # public itself stays: nothing would restore its grants.
    ("pg_namespace", "nspname NOT LIKE 'pg\\_%'"),
    ("pg_class", "relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND relnamespace = 'public'::regnamespace"),
    ("pg_proc", "pronamespace = 'public'::regnamespace"),
    ("pg_type", f"typnamespace = 'public'::regnamespace AND typelem = 0 AND {_IS_TYPE_ALONE}"),
    ("pg_collation", "collnamespace = 'public'::regnamespace"),
    ("pg_ts_config", "cfgnamespace = 'public'::regnamespace"),
    ("pg_ts_dict", "dictnamespace = 'public'::regnamespace"),
    # What may be made of functions that every database has. What belongs to another role stays.
    ("pg_publication", "pg_has_role(pubowner, 'USAGE')"),
    ("pg_cast", f"{_IS_SUPERUSER} OR {_OWNS_TYPE.format('castsource')} OR {_OWNS_TYPE.format('casttarget')}"),
    ("pg_transform", f"{_IS_SUPERUSER} OR {_OWNS_TYPE.format('trftype')}"),
    ("pg_operator", "pg_has_role(oprowner, 'USAGE')"),
    ("pg_opclass", "pg_has_role(opcowner, 'USAGE')"),
    ("pg_opfamily", "pg_has_role(opfowner, 'USAGE')"),
    ("pg_conversion", "pg_has_role(conowner, 'USAGE')"),
    ("pg_foreign_server", "pg_has_role(srvowner, 'USAGE')"),
    ("pg_foreign_data_wrapper", "pg_has_role(fdwowner, 'USAGE')"),
    ("pg_language", "pg_has_role(lanowner, 'USAGE')"),
    ("pg_ts_template", _IS_SUPERUSER),
    ("pg_ts_parser", _IS_SUPERUSER),
    ("pg_am", _IS_SUPERUSER),
)
"""The catalogs of what is dropped, in this order, and which of their rows."""
# Not made by an extension, nor with another object that goes. A partitioned table depends on itself, by its key's
# columns. PostgreSQL's names of an object and of its kind are those that DROP takes, but for a letter and a word.
_DROPPED: Final[LiteralString] = """
SELECT replace(upper(i.type), '-', ' '),
       CASE i.type WHEN 'transform' THEN regexp_replace(i.identity, ' on language ', ' LANGUAGE ') ELSE i.identity END
FROM {catalog} o CROSS JOIN pg_identify_object('{catalog}'::regclass, o.oid, 0) i
WHERE o.oid >= 16384 AND ({condition}) AND NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = '{catalog}'::regclass AND e.objid = o.oid AND e.refobjid <> o.oid
        AND (e.deptype IN ('e', 'i') OR (e.deptype = 'a' AND e.refobjid >= 16384)))
ORDER BY o.oid
"""

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
    """Drop all schemas but ``public``, all that is in it, our role's objects that are in no schema, and large objects.

    In one transaction: killed in the middle, everything is as before. What is granted on ``public``,
    on the database and by default privileges stays, and so do extensions, publications and the like of other roles.

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
        for catalog, condition in _OBJECTS:
            query = _DROPPED.format(catalog=catalog, condition=condition)
            for kind, name in connection.execute(query).fetchall():
                connection.execute(sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(kind), sql.SQL(name)))
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
