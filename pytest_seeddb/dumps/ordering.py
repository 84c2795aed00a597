"""Put a database's rows in the order of their keys, so that a dump of them tells only what is in it.

``pg_dump`` writes rows as they lie on the disk. Where rows were updated, that depends on when the
server found room for the new versions, and so on everything else that it did at the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

if TYPE_CHECKING:
    from pytest_seeddb.servers.address import Address

_WITHOUT: Final = sql.SQL("SET WITHOUT CLUSTER")

# The primary key, else the first unique index that every row is in. A table's name comes from regclass,
# which quotes what needs quotes.
_KEYS: Final = """
SELECT DISTINCT ON (c.oid) c.oid::regclass::text, i.relname,
       (SELECT o.relname FROM pg_index u JOIN pg_class o ON o.oid = u.indexrelid
        WHERE u.indrelid = c.oid AND u.indisclustered)
FROM pg_class c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
     JOIN pg_am a ON a.oid = i.relam
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND a.amname = 'btree'
  AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
  AND x.indisunique AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL
  AND NOT EXISTS (SELECT FROM pg_attribute t
                  WHERE t.attrelid = c.oid AND t.attnum = ANY (x.indkey) AND NOT t.attnotnull)
  AND pg_has_role(c.relowner, 'USAGE') AND pg_relation_size(c.oid) > 0
ORDER BY c.oid, x.indisprimary DESC, i.relname
"""


def put_in_order(address: Address) -> int:
    """Write each table anew in the order of its key; for a private database that is to be dumped.

    Tables without a primary key or another key that every row has stay as they are, and so do those of
    other roles.

    Returns:
        How many tables have an order now.
    """
    import psycopg

    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute("SET statement_timeout = 0")
        found = connection.execute(_KEYS).fetchall()
        for table, key, clustered in found:
            name = sql.SQL(table)
            connection.execute(sql.SQL("CLUSTER {} USING {}").format(name, sql.Identifier(key)))
            # CLUSTER remembers its index, and pg_dump would say so.
            again = sql.SQL("CLUSTER ON {}").format(sql.Identifier(clustered)) if clustered else _WITHOUT
            connection.execute(sql.SQL("ALTER TABLE {} {}").format(name, again))
    return len(found)
