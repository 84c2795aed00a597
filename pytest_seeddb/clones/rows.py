"""Read which rows of a clone differ from the template's.

A table into which rows were only inserted is read once, its new rows alone: they have newer transaction numbers. Of
any other table all rows are read, here and in a database in the seeded state, and compared as the server sends them.
Rows that differ are paired by the table's key; without one, an update shows as a deleted and an inserted row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg import sql
from psycopg.adapt import Transformer
from psycopg.pq import Format
from psycopg.rows import tuple_row

from pytest_seeddb.clones.diff import Diff, check
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.templates.contents import THE_USERS, label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    import psycopg
    from psycopg import abc

    from pytest_seeddb.clones.changes import Changes
    from pytest_seeddb.clones.diff import Row

    Connection = psycopg.Connection[Any]
    Raw = tuple[bytes | None, ...]

LARGE: Final = 8 * 2**20
"""Bytes of a table's rows above which they are read only where the test asks for them."""
_TABLES: Final = f"""
SELECT c.oid, n.nspname, c.relname, (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {THE_USERS}
"""  # noqa: S608 - constants of this package
# A key is unique, and has no NULL.
_KEYS: Final = """
SELECT o::bigint, pg_table_size(o), (SELECT array_agg(attname::text) FROM pg_attribute
    WHERE attrelid = o AND attnum = ANY((SELECT indkey FROM pg_index i WHERE indrelid = o AND indisunique
        AND indpred IS NULL AND indexprs IS NULL AND NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = o AND a.attnum = ANY(i.indkey) AND NOT attnotnull)
        ORDER BY indisprimary DESC, indexrelid LIMIT 1)::int2[]))
FROM unnest(%s::oid[]) o
"""
_WRITERS: Final = """
SELECT format('%%s (%%s)', coalesce(nullif(application_name, ''), 'no name'), state) FROM pg_stat_get_activity(NULL)
WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND backend_xid IS NOT NULL
  AND pid <> ALL(%s)
"""
_COUNTS: Final = sql.SQL("SELECT {}, count(*), count(*) FILTER (WHERE age(xmin) <= age({}::xid)) FROM ONLY {}")


class Wish(NamedTuple):
    """What a test asks for: these tables alone, however large; columns that do not count; whole rows."""

    tables: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class Sides:
    """A connection that sees what the test wrote, and what lends one that sees the template's rows."""

    clone: Connection
    template: Callable[[], AbstractContextManager[Connection | None]]
    newest: str
    """The first transaction number that no row of the template has."""


class _Table(NamedTuple):
    oid: int
    identifier: sql.Identifier
    columns: tuple[str, ...]


class _Tables(dict[str, _Table]):
    """The tables of one side, by label."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        for oid, schema, name, columns in _fetch(connection, _TABLES):
            self[label(schema, name)] = _Table(oid, sql.Identifier(schema, name), tuple(columns or ()))

    def sizes_and_keys(self, labels: Iterable[str]) -> dict[str, tuple[int, tuple[str, ...]]]:
        """Each table's size in bytes, and the columns by which its rows are told apart, if there are any."""
        names = {self[name].oid: name for name in labels if name in self}
        rows = _fetch(self.connection, _KEYS, [[*names]]) if names else []
        return {names[oid]: (size, tuple(key or ())) for oid, size, key in rows}

    def counts(self, newest: str) -> dict[str, tuple[int, int]]:
        """How many rows each table has, and how many of them are new."""
        names = {table.oid: name for name, table in self.items()}
        number = sql.Literal(newest)
        parts = [_COUNTS.format(sql.Literal(table.oid), number, table.identifier) for table in self.values()]
        rows = _fetch(self.connection, sql.SQL(" UNION ALL ").join(parts)) if parts else []
        return {names[oid]: (count, new) for oid, count, new in rows}


@dataclass
class _Rows:
    """Rows of one table on one side, as the server sent them."""

    columns: tuple[str, ...] = ()
    raw: list[Raw] = field(default_factory=list)
    types: tuple[int, ...] = ()
    transformer: abc.Transformer = field(default_factory=Transformer)

    @classmethod
    def read(cls, tables: _Tables, name: str, wanted: tuple[str, ...], key: tuple[str, ...], newest: str = "") -> _Rows:
        """All rows, or only those that are new, with the columns that are wanted and those of the key."""
        columns = (
            tuple(column for column in tables[name].columns if column in {*wanted, *key}) if name in tables else ()
        )
        if name not in tables or not columns:
            return cls(columns)
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        query = sql.SQL("SELECT {} FROM ONLY {}").format(listed, tables[name].identifier)
        if newest:
            query += sql.SQL(" WHERE age(xmin) <= age({}::xid)").format(sql.Literal(newest))
        cursor = tables.connection.cursor(row_factory=tuple_row)
        result = cursor.execute(query, prepare=False).pgresult
        assert result is not None  # noqa: S101 - it was a SELECT
        value, places = result.get_value, range(len(columns))
        raw = [tuple([value(row, place) for place in places]) for row in range(result.ntuples)]
        return cls(columns, raw, tuple(map(result.ftype, places)), Transformer(tables.connection))

    def row(self, raw: Raw, shown: Iterable[str]) -> Row:
        """Its values as psycopg reads them, of the columns that are shown."""
        load = self.transformer.get_loader
        values = {
            name: None if value is None else load(oid, Format.TEXT).load(value)
            for name, value, oid in zip(self.columns, raw, self.types, strict=True)
        }
        return {name: values[name] for name in shown if name in values}

    def without(self, others: _Rows) -> list[Raw]:
        """Those that the others do not have, each as often as it is missing there."""
        left = Counter(others.raw)
        missing = []
        for raw in self.raw:
            if left[raw]:
                left[raw] -= 1
            else:
                missing.append(raw)
        return missing

    def key_of(self, raw: Raw, key: tuple[str, ...]) -> Raw:
        return tuple(raw[self.columns.index(name)] for name in key)


def read_diff(sides: Sides, changes: Changes, wish: Wish) -> Diff:
    """The rows that differ from the template's, of the tables that ``changes`` says were written.

    Where it does not know that of all, or knows of more than rows, it is found out which tables differ.

    Raises:
        SeedDbError: A transaction that has written is open, or there is no template to compare with.
    """
    if writers := [name for (name,) in _fetch(sides.clone, _WRITERS, [[sides.clone.info.backend_pid]])]:
        raise SeedDbError(
            "The rows that the test changed cannot be told: a transaction that has written is open",
            saw=", ".join(writers),
            source="pg_stat_activity",
            remedy="commit it or roll it back first. Of Django's tests, those with transaction=True commit",
        )
    reading = _Reading(sides, changes, wish)
    if reading.is_certain and reading.changed == reading.only_inserted and not wish.tables:
        return reading.compare(None)
    with sides.template() as connection:
        if connection is None:
            raise SeedDbError(
                "The rows that the test changed cannot be told: there is no second clone to compare with",
                saw="the server did not make one",
                remedy="see whether the server has room for another database",
            )
        return reading.compare(_Tables(connection))


class _Reading:
    def __init__(self, sides: Sides, changes: Changes, wish: Wish) -> None:
        self._sides = sides
        self._changes = changes
        self._wish = wish
        self._clone = _Tables(sides.clone)
        self.counts = {change.table: change for change in changes.tables}
        self.changed = set(self.counts)
        self.is_certain = not (changes.not_known or changes.beyond_rows) and all(t.is_exact for t in changes.tables)
        writes = changes.tables if self.is_certain else ()
        self.only_inserted = {change.table for change in writes if not change.updated and not change.deleted}

    def compare(self, template: _Tables | None) -> Diff:
        """The difference from the template's rows, which are needed unless rows were only inserted."""
        clone, wish, newest = self._clone, self._wish, self._sides.newest
        if template is not None and not self.is_certain:
            now, seeded = clone.counts(newest), template.counts(newest)
            self.changed |= {name for name in {*now, *seeded} if now.get(name) != (seeded.get(name, (-1,))[0], 0)}
        columns = {name: table.columns for name, table in {**(template or {}), **clone}.items()}
        if wish.tables is not None:
            asked = {name.removeprefix("public.") for name in wish.tables}
            for name in asked:
                check(name, columns, "table")
            self.changed &= asked
        columns = {
            name: tuple(c for c in of if not any(fnmatchcase(f"{name}.{c}", entry) for entry in wish.ignore))
            for name, of in columns.items()
        }
        here = clone.sizes_and_keys(self.changed)
        there = template.sizes_and_keys(self.changed) if template is not None else {}
        rows = {}
        for name in sorted(self.changed):
            size, key = here.get(name, (0, ()))
            if wish.tables is None and max(size, there.get(name, (0, ()))[0]) > LARGE:
                rows[name] = self._numbers(name)
                continue
            new = _Rows.read(clone, name, columns[name], key, newest if name in self.only_inserted else "")
            is_needed = template is not None and name not in self.only_inserted
            old = _Rows.read(template, name, columns[name], key) if template is not None and is_needed else _Rows()
            rows[name] = _kinds(old, new, key, columns[name])
        beyond_rows = self._changes.beyond_rows and wish.tables is None
        changed = {name: kinds for name, kinds in rows.items() if kinds}
        return Diff(changed, columns=columns, beyond_rows=beyond_rows, whole=wish.whole)

    def _numbers(self, name: str) -> dict[str, int]:
        """How many rows of a large table were written; one at least was, whatever the counters say."""
        change = self.counts.get(name)
        kinds = {"inserted": change.inserted, "updated": change.updated, "deleted": change.deleted} if change else {}
        return {kind: number for kind, number in kinds.items() if number} or {"updated": 1}


def _kinds(old: _Rows, new: _Rows, key: tuple[str, ...], shown: tuple[str, ...]) -> dict[str, Any]:
    """The rows of one table that differ, by kind of change."""
    gone, come = old.without(new), new.without(old)
    if not set(key) <= set(old.columns):
        key = ()
    by_key = {new.key_of(raw, key): raw for raw in come} if key else {}
    updated, deleted = [], []
    for raw in gone:
        if key and (successor := by_key.pop(old.key_of(raw, key), None)):
            updated.append({"old": old.row(raw, shown), "new": new.row(successor, shown)})
        else:
            deleted.append(old.row(raw, shown))
    inserted = [new.row(raw, shown) for raw in (by_key.values() if key and old.columns else come)]
    return {kind: rows for kind, rows in (("inserted", inserted), ("updated", updated), ("deleted", deleted)) if rows}


def _fetch(connection: Connection, query: Any, values: Any = None) -> list[tuple[Any, ...]]:  # noqa: ANN401 - psycopg's
    return connection.cursor(row_factory=tuple_row).execute(query, values, prepare=False).fetchall()
