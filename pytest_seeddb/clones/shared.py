"""The shared clone: one per worker and template, for tests that are rolled back or only read.

Nothing may be left in it, so every connection to it starts read-only. Only the connections that
the fixtures open for a ``rollback`` test may write, in one transaction that never commits.
Afterwards the server's counters say whether that held. In doubt, the clone is given up, and the next
test gets a new one.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg

from pytest_seeddb.clones.changes import Changes
from pytest_seeddb.clones.observer import NAME, SequenceWatch
from pytest_seeddb.clones.pool import ATTEMPTS, disturbed
from pytest_seeddb.clones.shape import Sequences
from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from pytest_seeddb.application.flushing import Told
    from pytest_seeddb.clones.observer import Counters, Look
    from pytest_seeddb.clones.pool import Clone, Clones
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.templates.templates import Template


class SharedClone:
    """One clone for many tests, seeded before each of them.

    A connection stays on it and sets its sequences back: a rolled back insert leaves its number used.
    It rolls back all that it does, so that the counters show no commit of its own.

    Concurrency: one test at a time; it belongs to one worker.
    """

    def __init__(self, admin: Admin, clones: Clones, template: Template) -> None:
        self._admin = admin
        self._clones = clones
        self._template = template
        self._clone: Clone | None = None
        self._watch: SequenceWatch | None = None
        self._resting: Counters | None = None
        self._counted: Counters | None = None
        """Since when `changes` are told."""

    def take(self) -> Clone:
        """The clone, in the seeded state; nobody but its own connection was connected since that was found.

        Raises:
            CloneError: Another client connects to each new clone.
        """
        for _ in range(ATTEMPTS):
            if self._clone is None:
                self._make()
            elif self._is_at_rest():
                self._counted = self._resting
                return self._clone
            else:
                self.settle(rolled_back=False)
        raise disturbed(self._template.name, self._admin.address)

    def _make(self) -> None:
        self._clone = self._clones.make(self._template)
        try:
            self._admin.make_read_only(self._clone.name)
            connection = psycopg.connect(writing(self._clone.address).conninfo, application_name=NAME)
            self._watch = SequenceWatch(Sequences(connection), connection)
            self._resting = self._look(self._watch).counters
        except BaseException:
            self.give_up()
            raise
        if self._resting is None or not self._resting.is_fresh:  # somebody else was there already
            self.give_up()

    def _look(self, watch: SequenceWatch) -> Look:
        watch.connection.rollback()
        look = watch.look()
        watch.connection.rollback()
        return look

    def _is_at_rest(self) -> bool:
        with contextlib.suppress(psycopg.Error):
            now = self._look(self._watch).counters if self._watch else None
            return bool(now and self._resting and now.is_at_rest(self._resting))
        return False

    def settle(self, *, rolled_back: bool, given_away: object = False) -> None:
        """After a test: end its connections, set the sequences back, and keep the clone. In doubt, give it up.

        ``rolled_back`` says that the test was allowed to write in transactions that are rolled back. If its address
        was ``given_away``, it gets another name.
        """
        is_seeded = False
        try:
            if self._clone and self._watch and (before := self._resting):
                self._admin.evict(self._clone.name, spare=self._watch.connection.info.backend_pid)
                with contextlib.suppress(psycopg.Error, SeedDbError):
                    look = self._look(self._watch)
                    now = self._resting = look.counters
                    if now and not (now.has_committed_writes(before) if rolled_back else now.wrote(before)):
                        self._watch.settle(look.fetched)
                        self._watch.connection.rollback()
                        is_seeded = not given_away or self._move(self._clone, self._watch, now)
        finally:
            if not is_seeded:
                self.give_up()

    def _move(self, clone: Clone, watch: SequenceWatch, before: Counters) -> bool:
        """Give a settled clone another name, which nobody knows yet; whether nobody came meanwhile."""
        watch.connection.close()
        self._clone = self._clones.move(clone)
        watch.connection = psycopg.connect(writing(self._clone.address).conninfo, application_name=NAME)
        self._resting = self._look(watch).counters
        return self._resting is not None and self._resting.is_moved(before)

    def restore_sequences(self) -> None:
        """Set the sequences back while the test may be in the middle of something."""
        if self._watch:
            self._watch.restore()
            self._counted = self._watch.counters()
            self._watch.connection.rollback()

    def changes(self, _told: Told, _deadline: float, *, rolled_back: bool) -> Changes:
        """The sequences that moved, and whether a connection that was to be read-only committed something."""
        if self._watch is None or self._counted is None:
            return Changes()
        names, now = self._watch.moves(), self._watch.counters()
        self._watch.connection.rollback()
        wrote = now.has_committed_writes(self._counted) if rolled_back else now.wrote(self._counted)
        return Changes(sequences=tuple(names), beyond_rows=wrote)

    def give_up(self) -> None:
        """Let the clone go; the next test gets a new one."""
        if self._watch:
            self._watch.connection.close()
        if self._clone:
            self._clones.discard(self._clone)
        self._clone = self._watch = self._resting = None


def writing(address: Address) -> Address:
    """The address for a connection that may write although the shared clone is read-only."""
    options = f"{address.params.get('options', '')} -c default_transaction_read_only=off".strip()
    return type(address)({**address.params, "options": options})
