"""The sequences of a database: what they stand at, and how to set them back.

nextval and setval are not transactional, so neither a rollback nor a deleted row brings a number back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

States = dict[str, tuple[Any, ...]]
"""What each sequence stands at: ``last_value`` and ``is_called``."""

_LISTED = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind = 'S' AND c.relpersistence <> 't' ORDER BY c.oid
"""


class Sequences:
    """All sequences of one database, as they were when this was made."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        listed = connection.execute(_LISTED).fetchall()
        self._query = sql.SQL(" UNION ALL ").join(_state_of(name) for (name,) in listed)
        self._any = bool(listed)
        self.seeded = self.now(connection)

    def now(self, connection: psycopg.Connection[Any]) -> States:
        """What they stand at."""
        if not self._any:
            return {}
        return {name: tuple(state) for name, *state in connection.execute(self._query)}

    def moved(self, connection: psycopg.Connection[Any]) -> list[str]:
        """The names of those that do not stand where they stood."""
        return [name for name, state in self.now(connection).items() if state != self.seeded[name]]

    def restore(self, connection: psycopg.Connection[Any]) -> None:
        """Set back those that moved."""
        for name in self.moved(connection):
            connection.execute("SELECT setval(%s::regclass, %s, %s)", [name, *self.seeded[name]])


def _state_of(name: str) -> sql.Composed:
    # The name comes from regclass, which quotes what needs quotes.
    return sql.SQL("SELECT {}, last_value, is_called FROM {}").format(sql.Literal(name), sql.SQL(name))
