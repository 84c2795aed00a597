"""Other ways to a seeded state, done as those who offer them do it. Each gives a database for one test."""

from __future__ import annotations

import contextlib
import os
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_seeddb.servers.address import Address

_numbers = count(1)

# What Django asks for the names of the tables that there are.
_DJANGO_TABLES = """
SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END,
       obj_description(c.oid, 'pg_class')
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND n.nspname NOT IN ('pg_catalog', 'pg_toast')
  AND pg_catalog.pg_table_is_visible(c.oid)
"""


@contextlib.contextmanager
def pgtestdb(maintenance: Address, template: str) -> Iterator[Address]:
    """pgtestdb's statements: a connection for the copy, another one for the drop, no FORCE."""
    name = _new_name("p")
    with psycopg.connect(maintenance.conninfo, autocommit=True) as admin:
        parts = map(sql.Identifier, (name, template, admin.info.user))
        admin.execute(sql.SQL("CREATE DATABASE {} WITH TEMPLATE {} OWNER {}").format(*parts))
    yield maintenance.with_database(name)
    with psycopg.connect(maintenance.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


@contextlib.contextmanager
def janitor(kind: Any, maintenance: Address, template: str) -> Iterator[Address]:
    """pytest-postgresql's own `DatabaseJanitor`, as its client fixtures use it: template mode."""
    params, name = maintenance.params, _new_name("j")
    with kind(
        user=params.get("user", "postgres"),
        host=params.get("host", ""),
        port=params.get("port", "5432"),
        dbname=name,
        template_dbname=template,
        password=params.get("password"),
    ):
        yield maintenance.with_database(name)


def rows_of(address: Address, tables: list[str]) -> dict[str, bytearray]:
    """What the tables hold, as COPY takes it back."""
    rows = {table: bytearray() for table in tables}
    with psycopg.connect(address.conninfo) as connection:
        for table in tables:
            statement = sql.SQL("COPY {} TO STDOUT (FORMAT BINARY)").format(sql.Identifier(table))
            with connection.cursor().copy(statement) as copy:
                for part in copy:
                    rows[table] += part
    return rows


@contextlib.contextmanager
def truncated(address: Address, rows: dict[str, bytearray]) -> Iterator[Address]:
    """A fixture of one's own: all tables emptied at once, and the seeds anew, from memory, in one transaction.

    Sequences are left where they are.
    """
    yield address
    with psycopg.connect(address.conninfo) as connection:
        names = sql.SQL(", ").join(map(sql.Identifier, rows))
        connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(names))
        connection.execute("DROP TABLE IF EXISTS extra")
        for table, data in rows.items():
            statement = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table))
            with connection.cursor().copy(statement) as copy:
                copy.write(data)


@contextlib.contextmanager
def flushed(address: Address, tables: list[str]) -> Iterator[Address]:
    """What `TransactionTestCase` of Django issues after a test: the tables' names, and one TRUNCATE.

    Nothing else: sequences are left where they are, which is its default (``reset_sequences``),
    and the seeds are gone. To have them back it would save them one by one (``serialized_rollback``).
    """
    yield address
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        found = {name for name, *_ in connection.execute(_DJANGO_TABLES)}
        names = sql.SQL(", ").join(sql.Identifier(table) for table in tables if table in found)
        with connection.transaction():
            connection.execute(sql.SQL("TRUNCATE {}").format(names))


def _new_name(letter: str) -> str:
    return f"bench_{letter}_{os.getpid()}_{next(_numbers)}"
