"""The catalogs that all databases of a server share: each is looked at, or belongs to one database."""

from __future__ import annotations

import psycopg

from pytest_seeddb.clones.looks import COUNTERS
from pytest_seeddb.servers.globals import _SNAPSHOT, MARK

SHARED = "SELECT relname FROM pg_class WHERE relisshared AND relkind = 'r' ORDER BY 1"
NOT_UNDONE = {
    "pg_shdepend": "follows from the others",
    "pg_subscription": "of the database that subscribes",
    "pg_shseclabel": "only with a module that PostgreSQL does not have",
}


def test_no_shared_catalog_of_this_postgresql_is_unknown(empty_database):
    with psycopg.connect(empty_database.conninfo) as connection:
        catalogs = {name for (name,) in connection.execute(SHARED)}
    assert {name for name in catalogs if name not in COUNTERS + MARK} == {"pg_shdepend"}
    assert {name for name in catalogs if name not in _SNAPSHOT} == NOT_UNDONE.keys()
