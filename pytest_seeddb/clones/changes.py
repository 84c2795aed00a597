"""What a test changed in its database, as users see it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    import psycopg

_UNCOMMITTED: Final = """
SELECT CASE schemaname WHEN 'public' THEN relname ELSE schemaname || '.' || relname END, n_tup_ins, n_tup_upd, n_tup_del
FROM pg_stat_xact_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del <> 0 ORDER BY 1
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
        beyond_rows: Whether anything else changed: the schema, large objects, roles, settings.
        connections: Who is connected.
        not_known: Those of them that may have written more than is told here: the server learns it when they
            end. The connections of the fixtures, the redirected engines and Django are asked, unless they are in
            the middle of a transaction that writes.
    """

    tables: tuple[TableChange, ...] = ()
    sequences: tuple[str, ...] = ()
    beyond_rows: bool = False
    connections: tuple[OpenConnection, ...] = ()
    not_known: tuple[OpenConnection, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tables or self.sequences or self.beyond_rows or self.not_known)

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
            lines.append("more than rows changed: the schema, large objects, roles or settings")
        if self.not_known:
            names = ", ".join(map(str, self.not_known))
            lines.append(f"not known yet: all that was committed by {names}; close it to know")
        for other in self.connections:
            statement = textwrap.shorten(other.statement, _WIDTH, placeholder="...")
            lines.append(f"connected: {other.application or 'no name'}, {other.state}{statement and f': {statement}'}")
        return "\n".join(lines)


def changes_in_transaction(connection: psycopg.Connection[Any]) -> tuple[TableChange, ...]:
    """What a connection's present transaction has written so far."""
    if connection.info.transaction_status == TransactionStatus.INERROR:
        raise SeedDbError(
            "The changes of the test cannot be read now",
            saw="its transaction has failed, and PostgreSQL runs no query in it",
            remedy="roll back first",
        )
    cursor = connection.cursor(row_factory=tuple_row)
    return tuple(TableChange(*row) for row in cursor.execute(_UNCOMMITTED))
