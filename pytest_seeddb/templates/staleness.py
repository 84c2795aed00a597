"""What can happen to a finished template although nobody can connect to it.

A crash of the server empties unlogged tables, in templates as anywhere. And after an upgrade of the
operating system the server refuses to clone a database that was sorted by other rules of its locale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import psycopg

    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.templates.record import Record

_SAME_COLLATION: Final = """
SELECT datcollversion IS NOT DISTINCT FROM pg_database_collation_actual_version(oid)
FROM pg_database WHERE datname = %s
"""
_UNLOGGED: Final = """
SELECT coalesce(md5(string_agg(format('%s %s %s', oid, pg_relation_size(oid),
    CASE WHEN relkind = 'S' THEN pg_sequence_last_value(oid) END), ',' ORDER BY oid)), '')
FROM pg_class WHERE relpersistence = 'u' AND relkind IN ('r', 'S', 't')
"""


def unlogged_digest(connection: psycopg.Connection[Any]) -> str:
    """A digest of the sizes of the database's unlogged tables and sequences; empty without any."""
    return str(connection.execute(_UNLOGGED).fetchall()[0][0])


def staleness(admin: Admin, name: str, record: Record, trial: str) -> str:
    """Why the template is no longer what was built, in one line; empty if it still is.

    ``trial`` names a clone to look into, which is dropped again; only templates with unlogged tables need it.
    """
    if not admin.run(_SAME_COLLATION, [name])[0][0]:
        return "the operating system sorts text by other rules than when the earlier one was built"
    if not record.unlogged:
        return ""
    try:
        admin.clone(name, trial, record.strategy)
        with admin.address.with_database(trial).connect() as connection:
            is_intact = unlogged_digest(connection) == record.unlogged
    finally:
        if not admin.is_broken:
            admin.drop(trial)
    return "" if is_intact else "a crash of the server has emptied unlogged tables of the earlier one"
