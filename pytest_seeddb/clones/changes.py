"""What a test changed in its database, as users see it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from functools import reduce
from operator import add, or_
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

_UNCOMMITTED: Final = """
SELECT schemaname = 'pg_catalog', CASE schemaname WHEN 'public' THEN relname ELSE schemaname || '.' || relname END,
    n_tup_ins, n_tup_upd, n_tup_del
FROM pg_stat_xact_all_tables WHERE n_tup_ins + n_tup_upd + n_tup_del <> 0 AND schemaname !~ '^pg_toast' ORDER BY 2
"""
_WIDTH: Final = 100
"""Characters of a statement that are shown."""


@dataclass(frozen=True)
class TableChange:
    """Rows written in one table, whether they were committed or rolled back."""

    table: str
    inserted: int
    updated: int
    deleted: int
    is_exact: bool = True
    """Else it is the least that was written, and a new and a deleted row may count as an update."""


@dataclass(frozen=True)
class OpenConnection:
    """A connection to a test's database."""

    application: str
    state: str
    statement: str

    def __str__(self) -> str:
        return f"{self.application or 'no name'} ({self.state})"


@dataclass(frozen=True)
class Changes:
    """What was written in a seeded database since the test got it. Prints as a short table.

    False where it is certain that nothing was written, true otherwise.

    Attributes:
        tables: Rows inserted, updated and deleted, table by table; rolled back ones count as well.
        sequences: Those that moved.
        beyond_rows: Whether anything else changed: the schema, large objects, the database's own settings, and what
            belongs to the whole server (roles, databases, settings, comments, ``ALTER SYSTEM``). With ``rollback`` and
            ``readonly`` also whether a connection of its own wrote rows.
        connections: Who is connected.
        not_known: Those of them that may have written more than is told here: the server learns it when they
            end. The connections of the fixtures, the redirected engines and Django are asked, unless they are in
            the middle of a transaction that writes.
        server_not_known: Whether roles, databases or settings of the server changed that another process may have
            changed, because it uses the server, too.
    """

    tables: tuple[TableChange, ...] = ()
    sequences: tuple[str, ...] = ()
    beyond_rows: bool = False
    connections: tuple[OpenConnection, ...] = ()
    not_known: tuple[OpenConnection, ...] = ()
    server_not_known: bool = False

    def of(self, alias: str) -> Changes:
        """The same with an alias in front of the tables and sequences."""
        return replace(
            self,
            tables=tuple(replace(change, table=f"{alias}: {change.table}") for change in self.tables),
            sequences=tuple(f"{alias}: {name}" for name in self.sequences),
        )

    def joined(self, others: Iterable[Changes]) -> Changes:
        """These and others."""
        parts = [vars(changes) for changes in (self, *others)]
        return Changes(
            **{
                name: reduce(or_ if isinstance(value, bool) else add, (part[name] for part in parts))
                for name, value in parts[0].items()
            }
        )

    def __bool__(self) -> bool:
        return bool(self.tables or self.sequences or self.beyond_rows or self.not_known or self.server_not_known)

    def __str__(self) -> str:
        lines = [] if self else ["nothing was written"]
        width = max((len(change.table) for change in self.tables), default=0)
        for change in self.tables:
            numbers = {"inserted": change.inserted, "updated": change.updated, "deleted": change.deleted}
            counts = ", ".join(f"{number} {verb}" for verb, number in numbers.items() if number)
            lines.append(f"{change.table:<{width}}  {counts}{'' if change.is_exact else ' (at least)'}")
        if self.sequences:
            lines.append(f"sequences moved: {', '.join(self.sequences)}")
        if self.beyond_rows:
            lines.append(
                "more changed than is counted: the schema, large objects, roles, settings or rows of a shared clone"
            )
        if self.server_not_known:
            lines.append("not known: roles, databases or settings of the server changed, maybe by another of its users")
        if self.not_known:
            names = ", ".join(map(str, self.not_known))
            lines.append(f"not known yet: all that was committed by {names}; close it to know")
        for other in self.connections:
            statement = textwrap.shorten(other.statement, _WIDTH, placeholder="...")
            lines.append(f"connected: {other.application or 'no name'}, {other.state}{statement and f': {statement}'}")
        return "\n".join(lines)


def changes_in_transaction(connection: psycopg.Connection[Any]) -> Changes:
    """What a connection's present transaction has written so far."""
    if connection.info.transaction_status == TransactionStatus.INERROR:
        raise SeedDbError(
            "The changes of the test cannot be read now",
            saw="its transaction has failed, and PostgreSQL runs no query in it",
            remedy="roll back first",
        )
    rows = connection.cursor(row_factory=tuple_row).execute(_UNCOMMITTED).fetchall()
    tables = tuple(TableChange(*row) for is_catalog, *row in rows if not is_catalog)
    return Changes(tables, beyond_rows=len(tables) < len(rows))
