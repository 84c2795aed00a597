"""The state of a template, read once from a fresh clone: tables, sequences, and the rows of tables that tests update.

All clones of a template have the same tables and sequences under the same numbers.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import md5
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from pytest_seeddb.templates.contents import SMALL, THE_USERS, label

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from contextlib import AbstractContextManager

    Connection = psycopg.Connection[Any]
    State = tuple[Any, ...]

# A trigger or rule that fires in replica mode ("A" always, "R" there only) would write while rows are put back.
_TABLES: Final = f"""
SELECT c.oid, n.nspname, c.relname, c.relpages, c.reltuples, c.reltoastrelid,
    EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND tgenabled IN ('A', 'R'))
    OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid AND ev_enabled IN ('A', 'R'))
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {THE_USERS}
"""  # noqa: S608 - constants of this package
_SEQUENCES: Final = """
SELECT c.oid, c.oid::regclass::text FROM pg_class c
WHERE c.relkind = 'S' AND c.relpersistence <> 't' ORDER BY c.oid
"""
_LAST_VALUES: Final = "SELECT o::bigint, pg_sequence_last_value(o) FROM unnest(%s::oid[]) o"
_KEPT_BYTES: Final = 32 * 2**20
"""Bytes of rows that are kept in this process for one template."""


@dataclass(frozen=True)
class Table:
    """One table of a template; ``toast`` is the number of the table that holds its long values, or 0."""

    oid: int
    schema: str
    name: str
    pages: int
    """Its size in the template, exact: the build ends with a VACUUM."""
    tuples: float
    """How many rows the planner expects in it."""
    toast: int
    fires: bool
    """Whether it has triggers or rules that fire while rows are put back."""

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


class Sequences:
    """All sequences of a template and their seeded states, read from a database in the seeded state."""

    def __init__(self, connection: Connection) -> None:
        self.names: dict[int, str] = dict(connection.execute(_SEQUENCES).fetchall())
        # The names come from regclass, which quotes what needs quotes.
        state = sql.SQL("SELECT {}, last_value, is_called FROM {}")
        self._queries = {oid: state.format(sql.Literal(oid), sql.SQL(name)) for oid, name in self.names.items()}
        self.seeded: dict[int, State] = {}
        self.seeded = self.states(connection, self.names)

    def states(self, connection: Connection, oids: Collection[int]) -> dict[int, State]:
        """The present ``last_value`` and ``is_called`` of some of them."""
        # The function is thirty times as quick as a SELECT from each, but tells nothing of a sequence not called yet.
        called = [oid for oid in oids if oid in self.seeded and self.seeded[oid][1]]
        rows = connection.execute(_LAST_VALUES, [called]).fetchall() if called else []
        states: dict[int, State] = {oid: (value, True) for oid, value in rows if value is not None}
        if rest := [self._queries[oid] for oid in oids if oid not in states]:
            query = sql.SQL(" UNION ALL ").join(rest)
            states |= {oid: tuple(row) for oid, *row in connection.execute(query, prepare=False)}
        return states


_NO_ROWS: Final = Rows(b"PGCOPY\n\xff\r\n\x00" + bytes(8) + b"\xff\xff", 0, md5(b"", usedforsecurity=False).hexdigest())
"""An empty table's, as binary COPY has them: its signature, two empty fields, and the end."""


@dataclass(frozen=True)
class Reading:
    """What was read from one clone."""

    tables: dict[int, Table]
    sequences: Sequences


@dataclass
class Shape:
    """The tables and sequences of one template, and the rows of the tables that tests have updated.

    ``reference`` lends another clone in the seeded state, or ``None``, to read rows from. It raises at the end if that
    clone was disturbed meanwhile.

    Concurrency: one thread reads it from a fresh clone while another settles; each step is one assignment.
    """

    reference: Callable[[], AbstractContextManager[Connection | None]] = nullcontext
    tables: dict[int, Table] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)
    """The table of each relation: the relation itself, or the table whose long values it holds."""
    sequences: Sequences | None = None
    _rows: dict[int, Rows] = field(default_factory=dict)
    _unfit: set[int] = field(default_factory=set)

    @property
    def is_known(self) -> bool:
        """Whether it was learned."""
        return self.sequences is not None

    def read(self, clone: Connection) -> Reading:
        """Read what is not known yet from a clone that nobody has used; `learn` it if that proves to be so."""
        if self.sequences is None:
            tables = {row[0]: Table(*row) for row in clone.execute(_TABLES)}
            sequences = Sequences(clone)
        else:
            tables, sequences = self.tables, self.sequences
        return Reading(tables, sequences)

    def learn(self, reading: Reading) -> None:
        """Remember what was read, once."""
        if self.sequences is None:
            self.tables = reading.tables
            toasts = {table.toast: oid for oid, table in self.tables.items() if table.toast}
            self.owners = {**{oid: oid for oid in self.tables}, **toasts}
            self.sequences = reading.sequences  # last: it tells another thread that the rest is there

    def rows_of(self, tables: Iterable[Table]) -> dict[int, Rows]:
        """The template's rows of these tables, without those tables whose rows cannot be put back.

        Raises:
            Disturbed: Another client was in the clone from which they were read.
        """
        tables = [table for table in tables if table.oid not in self._unfit and table.pages <= SMALL]
        rows = {table.oid: self._rows.get(table.oid) if table.pages else _NO_ROWS for table in tables}
        if unknown := [table for table in tables if rows[table.oid] is None]:
            with self.reference() as clone:
                read = {table.oid: _read(clone, table) for table in unknown} if clone is not None else {}
            rows |= {oid: self._learn_rows(oid, found) for oid, found in read.items()}
        return {oid: known for oid, known in rows.items() if known}

    def _learn_rows(self, oid: int, rows: Rows | None) -> Rows | None:
        if rows is None or len(rows.data) > _KEPT_BYTES:
            self._unfit.add(oid)
            return None
        self._rows[oid] = rows
        while sum(len(kept.data) for kept in self._rows.values()) > _KEPT_BYTES:
            del self._rows[next(iter(self._rows))]  # the oldest make room
        return rows

    def give_up(self, table: Table) -> None:
        """Never try again to reload a table that does not come out as it was."""
        self._unfit.add(table.oid)
        self._rows.pop(table.oid, None)


def _read(clone: Connection, table: Table) -> Rows | None:
    query = sql.SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(table.identifier)
    try:
        cursor = clone.cursor()
        with cursor.copy(query) as copy:
            data = b"".join(bytes(part) for part in copy)
        return Rows(data, cursor.rowcount, places(clone, table))
    except psycopg.Error:
        return None  # a type without a binary form; such a table is never reloaded


def places(clone: Connection, table: Table) -> str:
    """A digest of where each row stands. If it is the same, new rows will stand where they do in a fresh clone."""
    query = sql.SQL("SELECT md5(coalesce(string_agg(ctid::text, ''), '')) FROM ONLY {}").format(table.identifier)
    return str(clone.execute(query).fetchall()[0][0])
