"""What did a test change: from counters that the server keeps anyway.

`Counters` are the database's as a whole, and decide; `TableCounts` tell which tables it was. Where
the tables' sum is less than the database's, something else was written: a catalog, a large object.

Measured on PostgreSQL 15 and 18: each connection counts as one committed transaction and as one
session when its backend exits; a transaction that is rolled back, or that its backend's end rolls
back, counts as rolled back; every insert, update and delete counts, rolled back or not.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import tuple_row

from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from pytest_seeddb.servers.admin import Admin

# Of the catalogs that all databases share, four are written whenever anybody creates or drops a
# database, and his counts come up to a second late: of those, what they say of this database is read.
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
COUNTERS: Final = _COUNTERS.format("current_database()")
"""Those of the connection's own database."""
_OF_ANOTHER: Final = _COUNTERS.format("%s")

_WIDTH: Final = 100
"""Characters of a statement that are shown."""

_TABLES: Final = """
SELECT o, i, u, d, pg_stat_get_live_tuples(o) FROM (
    SELECT o, pg_stat_get_tuples_inserted(o) i, pg_stat_get_tuples_updated(o) u, pg_stat_get_tuples_deleted(o) d
    FROM unnest(%s::oid[]) o OFFSET 0) counted
WHERE i + u + d <> 0
"""


@dataclass(frozen=True)
class Counters:
    """The server's counters for one database, read while nobody is connected to it.

    Attributes:
        committed: Transactions that sessions committed on purpose.
        tuples: Rows written in the database, whether it was committed or not.
        shared: Rows written in the catalogs of roles and such, which all databases share.
        own: What the shared catalogs say of this database: each version of it has another value.
        doubt: When the counters were last reset, and how many transactions are prepared.
    """

    committed: int
    tuples: int
    shared: int
    own: str
    doubt: str

    @classmethod
    def of(cls, admin: Admin, database: str) -> Counters:
        """Read them. A backend's counts arrive when it exits, so end the connections first."""
        return cls(*admin.run(_OF_ANOTHER, [database])[0])

    def beyond_rows(self, earlier: Counters) -> bool:
        """Whether something changed since that no row of this database shows: roles, its settings, the counters."""
        return (self.shared, self.own, self.doubt) != (earlier.shared, earlier.own, earlier.doubt)

    def wrote(self, earlier: Counters) -> bool:
        """Whether any row was written since, committed or not."""
        return self.tuples != earlier.tuples or self.beyond_rows(earlier)

    def committed_writes(self, earlier: Counters) -> bool:
        """Whether a write may have been committed since. In doubt, yes."""
        return self.doubt != earlier.doubt or (self.committed != earlier.committed and self.wrote(earlier))


@dataclass(frozen=True)
class TableCounts:
    """What the server counts for one table. Rolled back rows count, except in ``live``.

    Attributes:
        live: Committed inserts less committed deletes, since the last VACUUM or ANALYZE.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    live: int = 0

    @classmethod
    def of(cls, connection: psycopg.Connection[Any], oids: list[int]) -> dict[int, TableCounts]:
        """Those of the connection's database, by table; none where nothing was ever written."""
        return {oid: cls(*counts) for oid, *counts in connection.execute(_TABLES, [oids])}

    @property
    def written(self) -> int:
        """Rows written, in all."""
        return self.inserted + self.updated + self.deleted

    def since(self, earlier: TableCounts) -> TableCounts:
        """The difference."""
        now, before = vars(self), vars(earlier)
        return TableCounts(**{name: now[name] - before[name] for name in now})


def written_since(now: Mapping[int, TableCounts], earlier: Mapping[int, TableCounts]) -> dict[int, TableCounts]:
    """The tables that were written to between two looks, with how much."""
    differences = {oid: counts.since(earlier.get(oid, TableCounts())) for oid, counts in now.items()}
    return {oid: counts for oid, counts in differences.items() if counts.written}


_UNCOMMITTED: Final = """
SELECT CASE schemaname WHEN 'public' THEN relname ELSE schemaname || '.' || relname END, n_tup_ins, n_tup_upd, n_tup_del
FROM pg_stat_xact_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del <> 0 ORDER BY 1
"""


def uncommitted(connection: psycopg.Connection[Any]) -> tuple[TableChange, ...]:
    """What the transaction has written that a connection is in.

    Raises:
        SeedDbError: It has failed, and answers nothing before it is rolled back.
    """
    if connection.info.transaction_status == TransactionStatus.INERROR:
        raise SeedDbError(
            "What the test wrote cannot be told now",
            saw="its transaction has failed, and PostgreSQL answers nothing in it",
            remedy="roll back first",
        )
    cursor = connection.cursor(row_factory=tuple_row)
    return tuple(TableChange(*row) for row in cursor.execute(_UNCOMMITTED))


def report_now(connection: psycopg.Connection[Any]) -> None:
    """Have an idle connection tell the server what it wrote; without a word to the connection's own Python object."""
    if connection.pgconn.status == ConnStatus.OK and connection.pgconn.transaction_status == TransactionStatus.IDLE:
        connection.pgconn.exec_(b"SELECT pg_stat_force_next_flush()")


# -- what users see -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableChange:
    """Rows written in one table, whether they were committed or rolled back."""

    table: str
    inserted: int
    updated: int
    deleted: int


@dataclass(frozen=True)
class OpenConnection:
    """Somebody who is connected to a test's database."""

    application: str
    state: str
    statement: str

    def __str__(self) -> str:
        return f"{self.application or 'no name'} ({self.state})"


@dataclass(frozen=True)
class Changes:
    """What was written in a seeded database since the test got it. Prints as a short table.

    False where nothing was written, true otherwise.

    Attributes:
        tables: Rows inserted, updated and deleted, table by table; rolled back ones count as well.
        sequences: Those that moved.
        beyond_rows: Whether anything else changed: the schema, large objects, roles, settings.
        connections: Who is connected. A connection tells the server what it wrote when it is idle, up to
            ten seconds late, and at its end; those of this plugin's fixtures are asked at once.
    """

    tables: tuple[TableChange, ...] = ()
    sequences: tuple[str, ...] = ()
    beyond_rows: bool = False
    connections: tuple[OpenConnection, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tables or self.sequences or self.beyond_rows)

    def __str__(self) -> str:
        return "\n".join([*self._written(), *self._connected()])

    def _written(self) -> list[str]:
        if not self:
            return ["nothing was written"]
        width = max((len(each.table) for each in self.tables), default=0)
        rows = [f"{each.table:<{width}}  {_counts(each)}" for each in self.tables]
        moved = [f"sequences moved: {', '.join(self.sequences)}"] if self.sequences else []
        beyond = ["more than rows changed: the schema, large objects, roles or settings"] if self.beyond_rows else []
        return [*rows, *moved, *beyond]

    def _connected(self) -> list[str]:
        return [
            f"connected: {each.application or 'no name'}, {each.state}: {_shortened(each.statement)}"
            for each in self.connections
        ]


def _counts(change: TableChange) -> str:
    named = {"inserted": change.inserted, "updated": change.updated, "deleted": change.deleted}
    return ", ".join(f"{number} {name}" for name, number in named.items() if number)


def _shortened(statement: str) -> str:
    return textwrap.shorten(statement, _WIDTH, placeholder="...")
