"""The shared clone: one per worker and template, for tests that are rolled back or only read.

Nothing may be left in it, so every connection to it starts read-only. Only the connections that
the fixtures open for a ``rollback`` test may write, in one transaction that never commits.
Afterwards the server's counters are asked whether that held; where they leave doubt, the clone is
given up and the next test gets a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from pytest_seeddb.clones.changes import Changes, Counters
from pytest_seeddb.clones.sequences import Sequences, SequenceWatch

if TYPE_CHECKING:
    from pytest_seeddb.clones.clones import Clone, Clones
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.templates.templates import Template


class SharedClone:
    """One clone for many tests, seeded before each of them.

    Concurrency: one test at a time; it belongs to one worker.
    """

    def __init__(self, admin: Admin, clones: Clones, template: Template) -> None:
        self._admin = admin
        self._clones = clones
        self._template = template
        self._clone: Clone | None = None
        self._keeper: _Keeper | None = None
        self._before: Counters | None = None

    def take(self) -> Clone:
        """The clone, in the seeded state; nobody but its keeper is connected."""
        if self._clone is None:
            self._clone = self._clones.make(self._template)
            try:
                self._admin.make_read_only(self._clone.name)
                self._keeper = _Keeper(self._clone.address)
                self._before = Counters.of(self._admin, self._clone.name)
            except BaseException:
                self.give_up()
                raise
        return self._clone

    def settle(self, *, rolled_back: bool) -> None:
        """After a test: end its connections, set the sequences back, and keep the clone or give it up.

        It is given up also where this fails.

        Args:
            rolled_back: Whether the test was allowed to write in transactions that are rolled back.
        """
        kept = False
        try:
            kept = self._is_seeded(rolled_back=rolled_back)
        finally:
            if not kept:
                self.give_up()

    def _is_seeded(self, *, rolled_back: bool) -> bool:
        if self._clone is None or self._keeper is None or self._before is None:
            return False
        self._admin.evict(self._clone.name, spare=self._keeper.backend)
        now, before = Counters.of(self._admin, self._clone.name), self._before
        spoilt = now.committed_writes(before) if rolled_back else now.wrote(before)
        self._before = now
        return not spoilt and self._keeper.restore()

    def restore_sequences(self) -> None:
        """Set the sequences back in the middle of a test."""
        if self._keeper is not None:
            self._keeper.put_back()

    def changes(self) -> Changes:
        """The sequences that moved; rows can only be written in the test's own transaction."""
        return Changes(sequences=tuple(self._keeper.moved())) if self._keeper else Changes()

    def give_up(self) -> None:
        """Let the clone go; the next test gets a new one."""
        if self._keeper is not None:
            self._keeper.close()
        if self._clone is not None:
            self._clones.discard(self._clone)
        self._clone = self._keeper = self._before = None


class _Keeper:
    """A connection that stays on the shared clone and sets its sequences back.

    nextval and setval are not transactional: a rolled back insert leaves its number used. The
    keeper rolls back all that it does, so that the counters show no commit of its own.
    """

    def __init__(self, address: Address) -> None:
        self._connection = psycopg.connect(writing(address).conninfo, application_name="pytest-seeddb keeper")
        self.backend = self._connection.info.backend_pid
        self._sequences = SequenceWatch(Sequences(self._connection), self._connection)
        self._connection.rollback()

    def restore(self) -> bool:
        """Set back the sequences that moved; whether that could be done."""
        try:
            self._sequences.settle(self._connection)
            self._connection.rollback()
        except psycopg.Error:
            return False
        return True

    def put_back(self) -> None:
        """Set back the sequences that moved while the test may be in the middle of something."""
        self._sequences.put_back(self._connection)
        self._connection.rollback()

    def moved(self) -> list[str]:
        """The sequences that moved."""
        found = self._sequences.moved(self._connection)
        self._connection.rollback()
        return found

    def close(self) -> None:
        self._connection.close()


def writing(address: Address) -> Address:
    """The address for a connection that may write although the shared clone is read-only."""
    options = f"{address.params.get('options', '')} -c default_transaction_read_only=off".strip()
    return type(address)({**address.params, "options": options})
