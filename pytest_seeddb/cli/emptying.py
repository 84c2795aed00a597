"""Empty a database: everything that was made in it goes, the database itself and its grants stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

# A partitioned table depends on itself, by the columns of its key.
_OWN: Final = """
NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = o.oid AND e.refobjid <> o.oid AND e.deptype IN ('e', 'i', 'a'))
"""

_EXTENSIONS: Final = """
SELECT extname FROM pg_extension
WHERE extnamespace <> 'pg_catalog'::regnamespace AND pg_has_role(extowner, 'USAGE') ORDER BY oid
"""
# public itself stays: what is granted on it, nobody would grant again.
_SCHEMAS: Final = f"""
SELECT nspname FROM pg_namespace o
WHERE nspname NOT IN ('public', 'information_schema') AND nspname NOT LIKE 'pg\\_%' AND {_OWN} ORDER BY oid
"""  # noqa: S608 - constants of ours

_KINDS: Final = {
    "r": "TABLE",
    "p": "TABLE",
    "f": "FOREIGN TABLE",
    "v": "VIEW",
    "m": "MATERIALIZED VIEW",
    "S": "SEQUENCE",
}
_RELATIONS: Final = f"""
SELECT relkind::text, o.oid::regclass::text FROM pg_class o
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND {_OWN} ORDER BY oid
"""  # noqa: S608
_ROUTINES: Final = f"""
SELECT CASE prokind WHEN 'a' THEN 'AGGREGATE' WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, o.oid::regprocedure::text
FROM pg_proc o WHERE pronamespace = 'public'::regnamespace AND {_OWN} ORDER BY oid
"""  # noqa: S608
_TYPES: Final = f"""
SELECT CASE typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, o.oid::regtype::text FROM pg_type o
WHERE typnamespace = 'public'::regnamespace AND typelem = 0 AND {_OWN}
  AND (typrelid = 0 OR (SELECT relkind FROM pg_class c WHERE c.oid = typrelid) = 'c') ORDER BY oid
"""  # noqa: S608
_COLLATIONS: Final = f"""
SELECT 'COLLATION', o.oid::regcollation::text FROM pg_collation o
WHERE collnamespace = 'public'::regnamespace AND {_OWN} ORDER BY oid
"""  # noqa: S608
_CONFIGURATIONS: Final = f"""
SELECT 'TEXT SEARCH CONFIGURATION', o.oid::regconfig::text FROM pg_ts_config o
WHERE cfgnamespace = 'public'::regnamespace AND {_OWN}
UNION ALL
SELECT 'TEXT SEARCH DICTIONARY', o.oid::regdictionary::text FROM pg_ts_dict o
WHERE dictnamespace = 'public'::regnamespace AND {_OWN}
"""  # noqa: S608


def empty(connection: psycopg.Connection[Any]) -> None:
    """Drop all schemas but ``public``, all that is in it, our role's extensions and all large objects.

    In one transaction: killed in the middle, everything is as before. What is granted on ``public``,
    on the database and by default privileges stays, and so do extensions of other roles.

    Raises:
        psycopg.Error: The role may not drop something, or somebody uses it; nothing is dropped then.
    """
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '30s'")
        for (name,) in connection.execute(_EXTENSIONS).fetchall():
            connection.execute(sql.SQL("DROP EXTENSION IF EXISTS {} CASCADE").format(sql.Identifier(name)))
        for (name,) in connection.execute(_SCHEMAS).fetchall():
            connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))
        for query in (_RELATIONS, _ROUTINES, _TYPES, _COLLATIONS, _CONFIGURATIONS):
            _drop_each(connection, query)
        connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")


def _drop_each(connection: psycopg.Connection[Any], query: str) -> None:
    # The names come from PostgreSQL's own types for them, which quote what needs quotes.
    for kind, name in connection.execute(query).fetchall():
        word = _KINDS.get(kind, kind)
        connection.execute(sql.SQL("DROP {} IF EXISTS {} CASCADE").format(sql.SQL(word), sql.SQL(name)))
