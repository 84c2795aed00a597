"""Rewind: put back the rows of a few tables, and their physical order with them.

Triggers and rules are off meanwhile, foreign keys too (``session_replication_role = replica``).
Rows that are newer than the lease are deleted. Where then rows of the template are missing, the
table is emptied, vacuumed so that it starts from its first page again, and reloaded in the
template's order. The vacuum is not optional: without it new rows would come to stand elsewhere
than in a fresh clone, and a test that reads without an order would see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

from pytest_seeddb.clones.shape import places
from pytest_seeddb.templates.contents import SMALL

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from pytest_seeddb.clones.changes import TableCounts
    from pytest_seeddb.clones.shape import Rows, Shape, Table


# With few dead rows VACUUM would leave the indexes alone, and with them the places that the rows had.
_VACUUM: Final = sql.SQL("VACUUM (TRUNCATE, INDEX_CLEANUP ON) {}")
_OTHER_SIZES: Final = """
SELECT o FROM unnest(%s::oid[], %s::bigint[]) AS given (o, pages)
WHERE pg_relation_size(o) <> pages * current_setting('block_size')::bigint
"""
_SKIPPED: Final = 32
"""Pages up to which VACUUM skips no all-visible page: SKIP_PAGES_THRESHOLD in PostgreSQL's vacuumlazy.c.

Where it skips pages, it estimates the number of rows, and the estimate differs a little each time.
"""
_EXPECTED: Final = """
UPDATE pg_class SET reltuples = tuples FROM unnest(%s::oid[], %s::float4[]) AS given (o, tuples)
WHERE oid = o AND reltuples <> tuples
"""


class NotRewindable(Exception):  # noqa: N818 - a verdict, not an error: it never leaves settling
    """These changes cannot be undone exactly, or not cheaply; the clone must be discarded."""


_STATEMENT: Final = 0.00015
_ROW: Final = 0.000002
_RELOAD: Final = 0.001
"""Seconds for one table, one row and one reload, as measured with PostgreSQL 15 and 18 on two cores. Only
their proportions matter: what rewinding really took corrects the estimate (`pytest_seeddb.clones.settle`)."""


@dataclass(frozen=True)
class Rewind:
    """What is to be undone in one clone.

    Attributes:
        shape: The template's tables and rows.
        written: How many rows were written, by table.
        newest: The first transaction number that the test could have had.
    """

    shape: Shape
    written: Mapping[int, TableCounts]
    newest: str

    @property
    def seconds(self) -> float:
        """A rough estimate of what it takes."""
        rows = sum(counts.written for counts in self.written.values())
        reloads = [self.shape.rows[oid].number for oid, counts in self.written.items() if self._may_reload(oid, counts)]
        return _STATEMENT * len(self.written) + _RELOAD * len(reloads) + _ROW * (rows + sum(reloads))

    def _may_reload(self, oid: int, counts: TableCounts) -> bool:
        return bool(counts.updated or counts.deleted) and oid in self.shape.rows

    def run(self, clone: psycopg.Connection[Any]) -> None:
        """Undo it.

        Raises:
            NotRewindable: It cannot be done; the clone is then in no defined state.
            psycopg.Error: The server refused something; likewise.
        """
        tables = [self.shape.tables[oid] for oid in self.written]
        if firing := [table.label for table in tables if table.fires]:
            raise NotRewindable(f"{', '.join(firing)} has triggers or rules that fire always")
        found = dict(zip(self.written, self._delete_new(clone, tables), strict=True))
        spoilt = [self.shape.tables[oid] for oid in self.written if not self._is_intact(clone, oid, found[oid])]
        for table in spoilt:
            self._reload(clone, table)
        self._shrink(clone, tables)
        if any(table.pages > _SKIPPED for table in tables):
            clone.execute(_EXPECTED, [[table.oid for table in tables], [table.tuples for table in tables]])

    def _shrink(self, clone: psycopg.Connection[Any], tables: list[Table]) -> None:
        """Vacuum, and see that each table is as long as the template's: a longer one takes its next rows elsewhere.

        VACUUM leaves a few empty pages where they are less than a sixteenth of the table. A small one is
        then written anew.
        """
        grown = _vacuumed(clone, tables)
        for table in grown:
            if table.pages > SMALL:
                raise NotRewindable(f"{table.label} did not shrink to the template's size")
            self._reload(clone, table)
        if grown and _vacuumed(clone, grown):
            raise NotRewindable(f"{', '.join(table.label for table in grown)} did not shrink to the template's size")

    def _delete_new(self, clone: psycopg.Connection[Any], tables: list[Table]) -> list[int]:
        """Delete the rows that are newer than the lease, in one transaction; how many they were in each."""
        cursor = clone.execute(sql.SQL(";").join(self._deletion(table) for table in tables), prepare=False)
        deleted = [cursor.rowcount]
        while cursor.nextset():
            deleted.append(cursor.rowcount)
        return deleted

    def _deletion(self, table: Table) -> sql.Composed:
        # In a big table new rows stand at its end, where it is looked for them; that all were found is checked.
        first = table.pages - 1 if table.pages > SMALL else 0
        return sql.SQL("DELETE FROM ONLY {} WHERE ctid >= {}::tid AND age(xmin) <= age({}::xid)").format(
            table.identifier, sql.Literal(f"({first},0)"), sql.Literal(self.newest)
        )

    def _is_intact(self, clone: psycopg.Connection[Any], oid: int, found: int) -> bool:
        """Whether all rows of the template are still there, and nothing else is.

        An update of a template's row makes a new version, which was deleted as new: then one is missing.
        Where there were inserts only, the server's ``live`` says how many there must have been to delete.
        """
        counts, table = self.written[oid], self.shape.tables[oid]
        if counts.updated or counts.deleted:
            rows = self._rows_of(table)
            query = sql.SQL("SELECT count(*) FROM ONLY {}").format(table.identifier)
            return bool(clone.execute(query).fetchall()[0][0] == rows.number)
        if found != counts.live:
            raise NotRewindable(f"new rows of {table.label} stand among the template's")
        return True

    def _rows_of(self, table: Table) -> Rows:
        if table.oid not in self.shape.rows:
            touched = (oid for oid, counts in self.written.items() if counts.updated or counts.deleted)
            self.shape.want({table.oid, *touched})
            raise NotRewindable(f"rows of {table.label} were updated or deleted")
        return self.shape.rows[table.oid]

    def _reload(self, clone: psycopg.Connection[Any], table: Table) -> None:
        rows = self._rows_of(table)
        _refill(clone, table, rows)
        # A template whose table has gaps takes its next row there; a reloaded one has none.
        if places(clone, table) != rows.places:
            self.shape.give_up(table)
            raise NotRewindable(f"rows of {table.label} do not come to stand where they stood")


def _vacuumed(clone: psycopg.Connection[Any], tables: list[Table]) -> list[Table]:
    """Vacuum the tables; those of them that are not as long as the template's afterwards."""
    clone.execute(_VACUUM.format(sql.SQL(", ").join(table.identifier for table in tables)))
    found = clone.execute(_OTHER_SIZES, [[table.oid for table in tables], [table.pages for table in tables]])
    others = {oid for (oid,) in found.fetchall()}
    return [table for table in tables if table.oid in others]


def _refill(clone: psycopg.Connection[Any], table: Table, rows: Rows) -> None:
    clone.execute(sql.SQL("DELETE FROM ONLY {}").format(table.identifier))
    clone.execute(_VACUUM.format(table.identifier))
    if clone.execute("SELECT pg_relation_size(%s::oid)", [table.oid]).fetchall()[0][0]:
        raise NotRewindable(f"{table.label} could not be emptied to its first page")
    cursor = clone.cursor()
    with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(table.identifier)) as copy:
        copy.write(rows.data)
    if cursor.rowcount != rows.number:
        raise NotRewindable(f"{table.label} took {cursor.rowcount} of {rows.number} rows")
