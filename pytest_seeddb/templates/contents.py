"""What the tables of a database hold: as digests, to compare two of them, and as rows, to show a difference."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from pytest_seeddb.errors import names_a_secret
from pytest_seeddb.settings.converters import HASHES, TYPE, UUIDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_seeddb.servers.address import Address

THE_USERS: Final = "relkind = 'r' AND relpersistence <> 't' AND nspname NOT IN ('pg_catalog', 'information_schema')"
"""Which tables of ``pg_class``, joined with ``pg_namespace``, the user's code has made."""

SMALL: Final = 64
"""Pages up to which a table is read from its first page on, and its rows are kept in this process."""

_LISTED: Final = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'r' AND relpersistence <> 't' AND nspname NOT IN ('pg_catalog', 'information_schema', 'seeddb')
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
ORDER BY nspname, relname
"""
# A sum says which rows there are, whatever their order; the text says in which order they are read.
_DIGEST: Final = """
SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text,
       coalesce(md5(string_agg(md5(t::text), '')), '')
FROM {} t
"""
# With what kind of value a column has, and the column that it refers to.
_COLUMNS: Final = """
SELECT a.attname, y.typname, format_type(y.oid, NULL), y.typcategory = 'S', (
  SELECT ARRAY[n.nspname, c.relname, k.attname]::text[] FROM pg_constraint f
  JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = f.confkey[1]
  WHERE f.conrelid = a.attrelid AND f.contype = 'f' AND f.conkey = ARRAY[a.attnum] ORDER BY f.conname LIMIT 1)
FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_SALTED: Final = (
    r"^(\$(1|5|6|7|y|gy|2[abxy]?|sha1|argon2\w*|scrypt|pbkdf2[\w-]*|bcrypt[\w-]*)[$,]"
    r"|(pbkdf2|bcrypt|scrypt|argon2|md5|sha1)[\w:]*\$|\{(SSHA|SMD5|CRYPT|PBKDF2)|SCRAM-SHA-)\S{12,}$"
)
"""The hashes of passwords as crypt, Passlib, Django, Werkzeug, LDAP and PostgreSQL write them."""
_TEXTS: Final = {UUIDS: r"^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$", HASHES: _SALTED}
"""Which texts are values of a kind."""
_SHOWN: Final = 3
_WIDTH: Final = 160


@dataclass(frozen=True)
class TableContents:
    """What one table holds."""

    rows: int
    which: str  # which rows, in whatever order
    order: str  # which rows, in the order in which a plain SELECT reads them


def tables(connection: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Schema and name of each table that the user's code has made, and no extension."""
    return connection.execute(_LISTED).fetchall()


def label(schema: str, name: str) -> str:
    """A table's name for people."""
    return name if schema == "public" else f"{schema}.{name}"


def read_contents(address: Address, ignore: Sequence[str] = ()) -> dict[str, TableContents]:
    """What each table of the user's holds, by its name; the public schema's without their schema.

    ``ignore`` names the columns that do not count, as the setting ``verify.ignore`` does.
    """
    contents: dict[str, TableContents] = {}
    with address.connect(autocommit=True) as connection:
        for schema, name in tables(connection):
            query = sql.SQL(_DIGEST).format(_Table(connection, schema, name).rows(ignore))
            contents[label(schema, name)] = TableContents(*connection.execute(query).fetchall()[0])
    return contents


def ignored_columns(address: Address, ignore: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By entry of ``ignore``, the columns that do not count because of it, or of which not all values do."""
    columns: dict[str, tuple[str, ...]] = dict.fromkeys(ignore, ())
    with address.connect(autocommit=True) as connection:
        for schema, name in tables(connection) if ignore else ():
            table = _Table(connection, schema, name)
            for column in table.columns:
                for entry in filter(column.is_ignored, ignore):
                    columns[entry] += (f"{table.label}.{column.name}",)
                for entry in filter(_TEXTS.__contains__, () if any(map(column.is_ignored, ignore)) else ignore):
                    if table.has_texts(column, entry):
                        columns[entry] += (f"{table.label}.{column.name}",)
    return columns


@dataclass(frozen=True)
class _Column:
    table: str
    name: str
    types: tuple[str, str]  # its type's own name, and SQL's
    is_text: bool
    target: tuple[str, str, str] | None  # the column that it refers to

    def is_ignored(self, entry: str) -> bool:
        """Whether an entry of ``ignore`` names the column, or its type."""
        if entry.startswith(TYPE):
            return any(fnmatchcase(name, entry.removeprefix(TYPE)) for name in self.types)
        table, _, name = entry.rpartition(".")
        return fnmatchcase(self.table, table) and fnmatchcase(self.name, name)

    @property
    def text(self) -> sql.Composable | None:
        """Its value as text, where it may hold one."""
        if self.is_text:
            return sql.SQL("t.{}::text").format(sql.Identifier(self.name))
        return sql.SQL("encode(t.{}, 'escape')").format(sql.Identifier(self.name)) if "bytea" in self.types else None


class _Table:
    def __init__(self, connection: psycopg.Connection[Any], schema: str, name: str) -> None:
        self._connection = connection
        self._identifier = sql.Identifier(schema, name)
        self.label = label(schema, name)
        rows = connection.execute(_COLUMNS, [self._identifier.as_string(connection)]).fetchall()
        self.columns = [
            _Column(self.label, column, (own, sqls), is_text, tuple(target) if target else None)
            for column, own, sqls, is_text, target in rows
        ]

    def has_texts(self, column: _Column, kind: str) -> bool:
        """Whether a column holds texts of the kind."""
        if column.text is None:
            return False
        query = sql.SQL("SELECT EXISTS (SELECT FROM ONLY {} t WHERE {} ~ {})")
        texts = query.format(self._identifier, column.text, sql.Literal(_TEXTS[kind]))
        return bool(self._connection.execute(texts).fetchall()[0][0])

    def rows(self, ignore: Iterable[str]) -> sql.Composable:
        """What to select its rows from, with what counts of them. Of a UUID it counts which row it refers to."""
        ignore = [*ignore]
        if not ignore:
            return sql.SQL("ONLY {}").format(self._identifier)
        columns: list[sql.Composable] = []
        joins: list[sql.Composable] = []
        for column in self.columns:
            entries = [entry for entry in ignore if column.is_ignored(entry)]
            name = sql.Identifier(column.name)
            if entries == [UUIDS] and column.target:
                *place, key = column.target
                numbered = sql.Identifier(f"seeddb_{len(joins)}")
                rows = "LEFT JOIN (SELECT {} AS v, row_number() OVER (ORDER BY tableoid, ctid) AS n FROM {}) {}"
                join = sql.SQL(rows).format(sql.Identifier(key), sql.Identifier(*place), numbered)
                joins.append(sql.SQL("{} ON {}.v = t.{}").format(join, numbered, name))
                columns.append(sql.SQL("'row ' || {}.n AS {}").format(numbered, name))
            elif not entries:
                value: sql.Composable = sql.SQL("t.{}").format(name)
                for kind in filter(_TEXTS.__contains__, ignore if column.text else ()):
                    pattern = sql.Literal(_TEXTS[kind])
                    value = sql.SQL("CASE WHEN {} ~ {} THEN {} ELSE {}::text END").format(
                        column.text, pattern, sql.Literal(kind), value
                    )
                columns.append(sql.SQL("{} AS {}").format(value, name))
        query = sql.SQL("(SELECT {} FROM ONLY {} t {} ORDER BY t.ctid)")
        return query.format(sql.SQL(", ").join(columns), self._identifier, sql.SQL(" ").join(joins))


def rows_made(before: Mapping[str, TableContents], after: Mapping[str, TableContents]) -> dict[str, int]:
    """How many rows each table has more than before; fewer is negative."""
    nothing = TableContents(0, "", "")
    counts = {name: now.rows - before.get(name, nothing).rows for name, now in after.items()}
    return {name: number for name, number in counts.items() if number}


def describe_difference(table: str, one: Address, other: Address, ignore: Sequence[str] = ()) -> tuple[str, ...]:
    """Up to three rows of a table that only one of two databases has (``-`` and ``+``), secrets hidden."""
    mine, others = (Counter(_rows(address, table, ignore)) for address in (one, other))
    gone, come = (mine - others), (others - mine)
    if not gone and not come:
        return ("the same rows in another order",)
    if {_mask(text) for text in gone} & {_mask(text) for text in come}:
        return (*_lines("-", gone), *_lines("+", come), "what differs is in columns whose values are not shown")
    return (*_lines("-", gone), *_lines("+", come))


def _lines(sign: str, rows: Counter[str]) -> Iterator[str]:
    listed = sorted(rows.elements())
    for text in listed[:_SHOWN]:
        yield f"{sign} {_mask(text)}"[:_WIDTH]
    if len(listed) > _SHOWN:
        yield f"{sign} and {len(listed) - _SHOWN} more"


def _mask(text: str) -> str:
    row = json.loads(text)
    return json.dumps({key: "***" if names_a_secret(key) else value for key, value in row.items()}, ensure_ascii=False)


def _rows(address: Address, table: str, ignore: Sequence[str]) -> list[str]:
    schema, _, name = table.rpartition(".")
    with address.connect(autocommit=True) as connection:
        rows = _Table(connection, schema or "public", name).rows(ignore)
        query = sql.SQL("SELECT row_to_json(t)::text FROM {} t").format(rows)
        return [text for (text,) in connection.execute(query).fetchall()]
