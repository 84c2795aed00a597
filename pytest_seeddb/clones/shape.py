"""What a template holds that settling needs to know: its tables, and the rows of those that tests update.

All clones of a template have the same tables under the same numbers, so this is read once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from pytest_seeddb.clones.sequences import Sequences
from pytest_seeddb.templates.contents import SMALL, THE_USERS, label

if TYPE_CHECKING:
    from collections.abc import Iterable

# A trigger or rule that fires in replica mode ("A" always, "R" there only) would write while rows are put back.
_TABLES: Final = f"""
SELECT c.oid, n.nspname, c.relname, c.relpages, c.reltuples, c.reltoastrelid,
    EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgenabled IN ('A', 'R'))
    OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid AND ev_enabled IN ('A', 'R'))
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {THE_USERS}
"""  # noqa: S608 - constants of ours

_KEPT_BYTES: Final = 32 * 2**20
"""Bytes of rows that are kept in this process for one template."""


@dataclass(frozen=True)
class Table:
    """One table of a template.

    Attributes:
        pages: Its size in the template, exact: the build ends with a VACUUM.
        tuples: How many rows the planner expects in it.
        toast: The number of the table that holds its long values, 0 where there is none.
        fires: Whether it has triggers or rules that fire while rows are put back.
    """

    oid: int
    schema: str
    name: str
    pages: int
    tuples: float
    toast: int
    fires: bool

    @property
    def identifier(self) -> sql.Identifier:
        """Its quoted name."""
        return sql.Identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        """Its name for people."""
        return label(self.schema, self.name)


@dataclass(frozen=True)
class Rows:
    """All rows of a table in their physical order, as binary COPY has them, and where each stands."""

    data: bytes
    number: int
    places: str


@dataclass
class Shape:
    """The tables and sequences of one template, and the rows of those whose rows were asked for.

    Concurrency: one thread reads it from a fresh clone while another settles; each step is one
    assignment.
    """

    tables: dict[int, Table] = field(default_factory=dict)
    relations: list[int] = field(default_factory=list)
    sequences: Sequences | None = None
    rows: dict[int, Rows] = field(default_factory=dict)
    _wanted: set[int] = field(default_factory=set)
    _unfit: set[int] = field(default_factory=set)

    def learn(self, clone: psycopg.Connection[Any]) -> Sequences:
        """Read from a clone that nobody has used yet: tables and sequences once, and the rows that are wanted."""
        if self.sequences is None:
            self.tables = {row[0]: Table(*row) for row in clone.execute(_TABLES)}
            toasts = (table.toast for table in self.tables.values() if table.toast)
            self.relations = [*self.tables, *toasts]
            self.sequences = Sequences(clone)  # last: it tells another thread that the rest is there
        for oid in tuple(self._wanted):
            self._wanted.discard(oid)
            _keep(self.rows, oid, _read(clone, self.tables[oid]))
        return self.sequences

    def want(self, oids: Iterable[int]) -> None:
        """Have the rows of these tables read from the next fresh clone, where they are few enough."""
        known = {*self.rows, *self._unfit}
        self._wanted.update(oid for oid in oids if oid not in known and self.tables[oid].pages <= SMALL)

    def give_up(self, table: Table) -> None:
        """Never try again to reload a table that does not come out as it was."""
        self._unfit.add(table.oid)
        self.rows.pop(table.oid, None)

    def owner(self, relation: int) -> int:
        """The table that a relation belongs to: itself, or that whose long values it holds."""
        if relation in self.tables:
            return relation
        return next(table.oid for table in self.tables.values() if table.toast == relation)


def _read(clone: psycopg.Connection[Any], table: Table) -> Rows | None:
    query = sql.SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(table.identifier)
    try:
        cursor = clone.cursor()
        with cursor.copy(query) as copy:
            data = b"".join(bytes(part) for part in copy)
        return Rows(data, cursor.rowcount, places(clone, table))
    except psycopg.Error:
        return None  # a type without a binary form; such a table is never reloaded


def places(clone: psycopg.Connection[Any], table: Table) -> str:
    """A digest of where each row stands, so that new rows will come to stand where they do in a fresh clone."""
    query = sql.SQL("SELECT md5(coalesce(string_agg(ctid::text, ''), '')) FROM ONLY {}").format(table.identifier)
    return str(clone.execute(query).fetchall()[0][0])


def _keep(kept: dict[int, Rows], oid: int, rows: Rows | None) -> None:
    """Keep the rows; the oldest make room."""
    if rows is None or len(rows.data) > _KEPT_BYTES:
        return
    kept[oid] = rows
    while sum(len(each.data) for each in kept.values()) > _KEPT_BYTES:
        del kept[next(iter(kept))]
