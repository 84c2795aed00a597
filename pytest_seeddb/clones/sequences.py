"""The sequences of a database: what they stand at, and how to set them back.

nextval and setval are not transactional, so neither a rollback nor a deleted row brings a number back.

Reading hundreds of sequences takes longer than most tests. But the server counts for each how often its
block was fetched, and nobody moves a sequence without that (PostgreSQL 15 and 18: nextval, setval, ALTER
SEQUENCE, identity columns, RESTART IDENTITY). So only those are read whose count has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    State = tuple[Any, ...]

_LISTED = """
SELECT c.oid, c.oid::regclass::text FROM pg_class c
WHERE c.relkind = 'S' AND c.relpersistence <> 't' ORDER BY c.oid
"""
_FETCHED = "SELECT o, pg_stat_get_blocks_fetched(o) FROM unnest(%s::oid[]) o WHERE pg_stat_get_blocks_fetched(o) <> 0"


class Sequences:
    """All sequences of one database and what they stood at when this was made; the same in all of its clones."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.names: dict[int, str] = dict(connection.execute(_LISTED).fetchall())
        self.seeded = self.now(connection, self.names)

    def now(self, connection: psycopg.Connection[Any], oids: Iterable[int]) -> dict[int, State]:
        """What some of them stand at: ``last_value`` and ``is_called``."""
        queries = [_state_of(oid, self.names[oid]) for oid in oids]
        if not queries:
            return {}
        return {
            oid: tuple(state) for oid, *state in connection.execute(sql.SQL(" UNION ALL ").join(queries), prepare=False)
        }


class SequenceWatch:
    """The sequences of one clone, in the seeded state when this is made.

    The server learns what a backend has fetched when that is idle or exits. `settled` and `settle` trust it
    to know; `moved` and `put_back` read every sequence, for when somebody may be in the middle of something.
    """

    def __init__(self, sequences: Sequences, connection: psycopg.Connection[Any]) -> None:
        self._sequences = sequences
        self._oids = list(sequences.names)
        self._fetched = self._counts(connection)

    def settled(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether all stand where they stood."""
        return not self._elsewhere(connection, self._touched(self._counts(connection)))

    def settle(self, connection: psycopg.Connection[Any]) -> None:
        """Set back those that moved."""
        counts = self._counts(connection)
        self._set_back(connection, self._touched(counts))
        # What is read and set here counts as well, some time later: then it is read once more for nothing.
        self._fetched = counts

    def moved(self, connection: psycopg.Connection[Any]) -> list[str]:
        """The names of those that do not stand where they stood."""
        return [self._sequences.names[oid] for oid in self._elsewhere(connection, self._oids)]

    def put_back(self, connection: psycopg.Connection[Any]) -> None:
        """Set back those that moved, whatever the server has been told."""
        self._set_back(connection, self._oids)

    def _counts(self, connection: psycopg.Connection[Any]) -> dict[int, int]:
        return dict(connection.execute(_FETCHED, [self._oids]).fetchall()) if self._oids else {}

    def _touched(self, counts: Mapping[int, int]) -> list[int]:
        return [oid for oid in self._oids if counts.get(oid, 0) != self._fetched.get(oid, 0)]

    def _elsewhere(self, connection: psycopg.Connection[Any], oids: list[int]) -> list[int]:
        found = self._sequences.now(connection, oids)
        return [oid for oid in oids if found[oid] != self._sequences.seeded[oid]]

    def _set_back(self, connection: psycopg.Connection[Any], oids: list[int]) -> None:
        for oid in self._elsewhere(connection, oids):
            connection.execute("SELECT setval(%s::oid::regclass, %s, %s)", [oid, *self._sequences.seeded[oid]])


def _state_of(oid: int, name: str) -> sql.Composed:
    # The name comes from regclass, which quotes what needs quotes.
    return sql.SQL("SELECT {}, last_value, is_called FROM {}").format(sql.Literal(oid), sql.SQL(name))
