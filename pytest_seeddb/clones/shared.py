"""The shared clone: one per worker and template, for tests that are rolled back or only read.

Nothing may be left in it, so every connection to it starts read-only. Only the connections that
the fixtures open for a ``rollback`` test may write, in one transaction that never commits.
Afterwards the server's counters say whether that held. In doubt, the clone is given up, and the next
test gets a new one.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from pytest_seeddb.clones.changes import Changes
from pytest_seeddb.clones.counting import read_changes
from pytest_seeddb.clones.looks import UnseenLook
from pytest_seeddb.clones.observer import FLUSH, NAME, Moment, Observed, SequenceWatch
from pytest_seeddb.clones.pool import ATTEMPTS, Spare, disturbed
from pytest_seeddb.clones.rows import Sides, Wish, read_diff
from pytest_seeddb.clones.shape import Sequences, Shape
from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_seeddb.application.flushing import Told
    from pytest_seeddb.clones.diff import Diff
    from pytest_seeddb.clones.disposal import Disposal
    from pytest_seeddb.clones.looks import Counters, Look
    from pytest_seeddb.clones.pool import Clone, Clones
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.templates.templates import Template


class Watched(Observed):
    """A clone that tests share, and the connection that stays on it.

    It rolls back all that it does, so that the counters show no commit of its own. Tables are not told apart: what
    earlier tests rolled back counts in them, and is not read before a test.
    """

    commits = False

    def __init__(self, clone: Clone) -> None:
        self.clone = clone
        self.shape = Shape()
        self.resting: Counters | None = None
        self._is_moved = False
        self.connection = self._connect()
        try:
            with self.connection.transaction(force_rollback=True):
                self.sequences = SequenceWatch(Sequences(self.connection), self.connection)
            self._unseen = UnseenLook(self.connection, self.sequences.oids, beside_a_backend=False)
            self.first = self.look()
        except BaseException:
            self.connection.close()
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        address = writing(self.clone.address)
        # Else each of the first five looks is planned anew. By an option: a SET would count as a commit.
        options = f"{address.params['options']} -c plan_cache_mode=force_generic_plan"
        return address.having(options=options).connect(autocommit=True, application_name=NAME)

    def look(self) -> Look:
        """What the server says of it."""
        return self._unseen.look()

    def is_at_rest(self) -> bool:
        """Whether nobody was there since it was settled, but for its own connection after a `move`."""
        before, is_moved = self.resting, self._is_moved
        self._is_moved = False
        with suppress(psycopg.Error):
            look = self.look()
            now = look.counters
            if now and before and (now.is_moved(before) if is_moved else now.is_at_rest(before)):
                self.resting = now
                self.seeded = self.since = Moment(now, {}, look.newest)
                return True
        return False

    def set_back(self, fetched: dict[int, int]) -> bool:
        """Set back the sequences that moved, by the counts of a look: a rolled back insert leaves its number used."""
        if not (suspects := self.sequences.suspects(fetched)):
            return True
        with suppress(psycopg.Error):
            with self.connection.transaction(force_rollback=True):
                self.sequences.restore(suspects)
                self.connection.execute(FLUSH)
            look = self.look()
            if look.counters and self.resting and look.counters.is_at_rest(self.resting):
                self.sequences.fetched = look.fetched  # with what was read here
            return True
        return False

    def move(self, clones: Clones, admin: Admin) -> None:
        """Give it another name, which nobody knows yet."""
        self.connection.close()
        self.clone = clones.move(self.clone, admin)
        self.connection = self.sequences.connection = self._connect()
        self._unseen = UnseenLook(self.connection, self.sequences.oids, beside_a_backend=False)
        self._is_moved = True


class SharedClone:
    """One clone for many tests, seeded before each of them; two take turns where tests give their address away.

    Concurrency: one test at a time; it belongs to one worker.
    """

    def __init__(self, admin: Admin, clones: Clones, disposal: Disposal, template: Template) -> None:
        self._admin = admin
        self._clones = clones
        self._disposal = disposal
        self._template = template
        self._watched: Watched | None = None
        self._moving: list[Spare[Watched]] = []

    def take(self) -> Clone:
        """The clone, in the seeded state; nobody but its own connection was connected since that was found.

        Raises:
            CloneError: Another client connects to each new clone.
        """
        for _ in range(ATTEMPTS):
            watched = self._watched = self._watched or self._next()
            if watched and watched.is_at_rest():
                return watched.clone
            self.settle(rolled_back=False)
        raise disturbed(self._template.name, self._admin.address)

    def _next(self) -> Watched | None:
        """One that has another name by now, or a new one, unless somebody else was there already."""
        while len(self._moving) > 1 or (self._moving and self._moving[0].made.done()):
            if watched := self._moving.pop(0).wait():
                return watched
        clone = self._clones.make(self._template)
        try:
            self._admin.make_read_only(clone.name)
            watched = Watched(clone)
        except BaseException:
            self._clones.discard(clone)
            raise
        look = watched.first if watched.first.counters else self._look_alone(watched)
        if look and look.is_untouched:
            watched.resting = look.counters
            return watched
        self._discard(watched)
        return None

    def settle(self, *, rolled_back: bool, given_away: bool = False) -> str:
        """After a test: end its connections, set the sequences back, and keep the clone. In doubt, give it up.

        ``rolled_back`` says that the test was allowed to write in transactions that are rolled back. If its address
        was ``given_away``, it gets another name before it goes to another test. Returns `Counters.globals_mark`; empty
        where it is not known.
        """
        watched, is_seeded, mark = self._watched, False, ""
        try:
            if watched and (before := watched.resting) and (look := self._look_alone(watched)):
                now = watched.resting = look.counters
                mark = now.globals_mark if now else ""
                if now and not (now.has_committed_writes(before) if rolled_back else now.wrote(before)):
                    is_seeded = watched.set_back(look.fetched)
        finally:
            if watched and not is_seeded:
                self._discard(watched)
            if given_away or not is_seeded:
                self._watched = None
        if watched and is_seeded and given_away:
            spare = Spare[Watched](is_new=False)
            self._moving.append(spare)
            self._disposal.do(partial(self._move, watched, spare), spare.fail)
        return mark

    def _look_alone(self, watched: Watched) -> Look | None:
        """What the server says when nobody else is connected; ``None`` where it says nothing."""
        with suppress(psycopg.Error):
            look = watched.look()
            if look.counters:
                return look
        self._admin.evict(watched.clone.name, spare=watched.connection.info.backend_pid)
        with suppress(psycopg.Error):
            return watched.look()
        return None

    def _move(self, watched: Watched, spare: Spare[Watched], admin: Admin) -> None:
        moved, is_wanted = None, spare.made.set_running_or_notify_cancel()
        with suppress(psycopg.Error, SeedDbError):
            if is_wanted:
                watched.move(self._clones, admin)
                moved = watched
        if moved is None:
            self._discard(watched)
        if is_wanted:
            spare.made.set_result(moved)

    def restore_sequences(self) -> None:
        """Set the sequences back while the test may be in the middle of something; `changes` are told from here on."""
        if watched := self._watched:
            with watched.reading():
                watched.sequences.restore(watched.sequences.differences(watched.sequences.oids))
                counters = watched.sequences.counters()
            # The transaction number stays: a client that is still there may have committed before.
            watched.seeded = watched.since = replace(watched.since, counters=counters)

    def changes(self, told: Told, deadline: float, is_shared: Callable[[], bool]) -> Changes:
        """What was committed in it in spite of all, and the sequences that moved; see `read_changes`.

        Of the connections those that may have written, and not those of the fixtures.
        """
        if self._watched is None:
            return Changes()
        changes = read_changes(self._watched, told, deadline, is_shared)
        return replace(changes, connections=changes.not_known)

    def diff(self, changes: Changes, wish: Wish, transaction: psycopg.Connection[Any] | None) -> Diff:
        """The rows behind the ``changes`` of the fixtures' transaction; what it has not committed, nobody else sees."""
        watched = self._watched
        assert watched is not None  # noqa: S101 - its test goes on
        sides = Sides(transaction or watched.connection, lambda: nullcontext(watched.connection), watched.since.newest)
        with watched.reading():
            return read_diff(sides, changes, wish)

    def give_up(self) -> None:
        """Let the clone go; the next test gets a new one."""
        going = [self._watched, *(spare.give_up() for spare in self._moving)]
        self._watched, self._moving = None, []
        for watched in filter(None, going):
            self._discard(watched)

    def _discard(self, watched: Watched) -> None:
        watched.connection.close()
        self._clones.discard(watched.clone)


def writing(address: Address) -> Address:
    """The address for a connection that may write although the shared clone is read-only."""
    options = f"{address.params.get('options', '')} -c default_transaction_read_only=off".strip()
    return address.having(options=options)
