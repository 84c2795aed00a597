"""What the tables of a database hold: as digests, to compare two of them, and as rows, to show a difference."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from pytest_seeddb.errors import names_a_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
FROM ONLY {} t
"""
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


def read_contents(address: Address) -> dict[str, TableContents]:
    """What each table of the user's holds, by its name; the public schema's without their schema."""
    contents: dict[str, TableContents] = {}
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        for schema, name in tables(connection):
            rows = connection.execute(sql.SQL(_DIGEST).format(sql.Identifier(schema, name))).fetchall()
            contents[label(schema, name)] = TableContents(*rows[0])
    return contents


def rows_made(before: Mapping[str, TableContents], after: Mapping[str, TableContents]) -> dict[str, int]:
    """How many rows each table has more than before; fewer is negative."""
    nothing = TableContents(0, "", "")
    counts = {name: now.rows - before.get(name, nothing).rows for name, now in after.items()}
    return {name: number for name, number in counts.items() if number}


def describe_difference(table: str, one: Address, other: Address) -> tuple[str, ...]:
    """Up to three rows of a table that only one of two databases has (``-`` and ``+``), secrets hidden."""
    mine, others = (Counter(_rows(address, table)) for address in (one, other))
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


def _rows(address: Address, table: str) -> list[str]:
    schema, dot, name = table.rpartition(".")
    identifier = sql.Identifier(schema, name) if dot else sql.Identifier("public", table)
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        query = sql.SQL("SELECT row_to_json(t)::text FROM ONLY {} t").format(identifier)
        return [text for (text,) in connection.execute(query).fetchall()]
