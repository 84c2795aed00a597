"""The clones of one worker: made from a template in milliseconds, handed to tests, taken back, kept or dropped."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from time import perf_counter, time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import psycopg

from pytest_seeddb.clones.counting import read_changes
from pytest_seeddb.clones.observer import Discard, Disturbed, Observer
from pytest_seeddb.clones.rows import Sides, read_diff
from pytest_seeddb.clones.settle import Costs, Settlement, settle
from pytest_seeddb.clones.shape import Shape
from pytest_seeddb.errors import CloneError, SeedDbError
from pytest_seeddb.servers.database_errors import server_errors
from pytest_seeddb.servers.memory import DISK
from pytest_seeddb.servers.naming import clone_name
from pytest_seeddb.templates.inventory import drop_oldest_kept, owner_note

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_seeddb.application.flushing import Told
    from pytest_seeddb.clones.changes import Changes
    from pytest_seeddb.clones.diff import Diff
    from pytest_seeddb.clones.disposal import Disposal
    from pytest_seeddb.clones.leftovers import Leftovers
    from pytest_seeddb.clones.rows import Wish
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.servers.memory import Memory
    from pytest_seeddb.templates.templates import Template

_Made = TypeVar("_Made")

MAX_SPARES: Final = 2
"""Spare clones of one worker, of all its templates together: that much disk is taken in advance."""

ATTEMPTS: Final = 10
"""How often a clone is tried again in which somebody else was meanwhile."""

_ROOM: Final = """
SELECT count(*) < current_setting('max_connections')::int / 2 FROM pg_stat_get_activity(NULL) WHERE datid IS NOT NULL
"""
"""Spares keep a connection each; above half of what the server allows, none is made."""


def disturbed(template: str, address: Address) -> CloneError:
    """No clone could be handed out that only its test has."""
    return CloneError(
        f"Another client connects to each new clone of {template} before its test does",
        saw=f"{ATTEMPTS} clones, one after the other, in which another client was connected or wrote",
        source=address.masked,
        remedy="end the client that connects to every database of the server, or make it skip databases *seeddb_c_*",
    )


@dataclass(frozen=True)
class CloneOptions:
    """How clones are reset and named: the settings `reset` and `clone_name`, which names the worker here."""

    reset: str = "auto"
    form: str = "{clone}"


@dataclass(frozen=True)
class Clone:
    """A database made from a template, leased to one test at a time."""

    name: str
    address: Address
    template: Template
    seconds: float = 0.0
    """The time it took to make."""


class Clones:
    """The clones of one lease.

    Lifetime: a clone lives until `discard`, or until its worker is gone and the next run sweeps.
    """

    def __init__(
        self, admin: Admin, lease: str, disposal: Disposal, form: str = "{clone}", memory: Memory | None = None
    ) -> None:
        self.made = 0
        self._memory = memory
        self._form = form
        self.seconds = 0.0
        self._admin = admin
        self._lease = lease
        self._disposal = disposal
        self._numbers = count(1)
        self._counting = threading.Lock()
        self._living: dict[str, Clone] = {}

    def make(self, template: Template, admin: Admin | None = None) -> Clone:
        """A new clone of the template, made through ``admin`` where another thread makes it; nothing after an error."""
        name = self._name()
        started = perf_counter()
        with server_errors("The clone for a test could not be made", self._admin.address):
            copy = partial(template.carried.clone, admin or self._admin, template.name, name, template.record.strategy)
            tablespace = self._memory.tablespace_for(template.record.size) if self._memory else ""
            try:
                copy(tablespace)
            except psycopg.Error as error:
                if self._memory is None:
                    raise
                # A frozen clone stays where it is if it has a table on the disk already.
                copy("" if tablespace == DISK else DISK)
                if tablespace != DISK:
                    self._memory.note(f"PostgreSQL could not make one in memory ({type(error).__name__})")
        clone = Clone(name, self._admin.address.with_database(name), template, perf_counter() - started)
        with self._counting:
            self.made += 1
            self.seconds += clone.seconds
            self._living[name] = clone
        return clone

    def _name(self) -> str:
        return clone_name(self._lease, next(self._numbers), self._form)

    def discard(self, clone: Clone) -> None:
        """Give the clone up; it is dropped off the caller's path, whoever is still connected."""
        self._living.pop(clone.name, None)
        self._disposal.drop(clone.name)

    @contextmanager
    def lent(self, template: Template) -> Iterator[Clone]:
        """A new clone of the template for a block."""
        clone = self.make(template)
        try:
            yield clone
        finally:
            self.discard(clone)

    def keep(self, clone: Clone, name: str) -> None:
        """Keep the clone on the server under another name, after this lease and this run."""
        with server_errors("The database of a failed test could not be kept", self._admin.address):
            if self._memory:  # before anybody can connect to it under its new name
                clone = self.move(clone)
                self._admin.take_to(DISK, clone.name)
            self._admin.move(clone.name, name)
            self._admin.comment(name, owner_note(clone.template.record.plan, clone.template.project))
        self._living.pop(clone.name, None)
        self._disposal.do(drop_oldest_kept)

    def discard_all(self) -> None:
        """Give up every clone that nobody gave up."""
        for clone in tuple(self._living.values()):
            self.discard(clone)

    def renew(self, clone: Clone) -> None:
        """Put the seeded state back under the clone's own name. Every connection to it is ended.

        The old database is renamed away first, so that only two renames and one clone are waited for, not the drop.
        """
        with server_errors("The clone of a test could not be reset", self._admin.address):
            fresh = self.make(clone.template)
            away = self._name()
            self._admin.move(clone.name, away)
            self._disposal.drop(away)
            self._admin.rename(fresh.name, clone.name)
            del self._living[fresh.name]

    def move(self, clone: Clone, admin: Admin | None = None) -> Clone:
        """The same clone under another name, after it was settled. Every connection to it is ended."""
        name = self._name()
        with server_errors("The clone of a test could not be renamed", self._admin.address):
            (admin or self._admin).move(clone.name, name, is_settled=True)
        self._living.pop(clone.name, None)
        moved = self._living[name] = replace(clone, name=name, address=clone.address.with_database(name))
        return moved


@dataclass
class Leased:
    """A clone that a test uses, with the observer to settle it. Without an observer it is discarded."""

    clone: Clone
    observer: Observer | None = None
    since: float = 0.0
    """When its test began, in seconds of the clock."""

    def changes(
        self, told: Told, deadline: float = float("inf"), is_shared: Callable[[], bool] = lambda: True
    ) -> Changes:
        """What was committed; see `read_changes`."""
        if self.observer is None:
            raise SeedDbError(
                "The changes of the test are not known: its clone was not inspected before the test",
                source='reset = "clone", or the server had no connection left',
                remedy='choose reset = "auto", the default, or --seed-db-reset=auto',
            )
        return read_changes(self.observer, told, deadline, is_shared)

    def diff(self, changes: Changes, wish: Wish, _transaction: psycopg.Connection[object] | None = None) -> Diff:
        """The rows behind the ``changes``, which are committed; see `read_diff`."""
        observer = self.observer
        assert observer is not None  # noqa: S101 - else there are no changes
        sides = Sides(observer.connection, observer.shape.reference, observer.since.newest)
        with observer.reading():
            return read_diff(sides, changes, wish)

    def release(self) -> None:
        """End the observer's connection, before the clone is renamed or dropped."""
        if self.observer:
            self.observer.close()
            self.observer = None


@dataclass
class Spare(Generic[_Made]):
    """A clone that is made, or given another name, beside the tests; ``None`` where that failed."""

    is_new: bool = True
    made: Future[_Made | None] = field(default_factory=Future)
    wanted: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> _Made | None:
        """Wait until it is made."""
        self.wanted.set()
        return self.made.result()

    def give_up(self) -> _Made | None:
        """Cancel it, or get the clone if it is made already."""
        return None if self.made.cancel() else self.wait()

    def fail(self) -> None:
        """End the wait for it if it was not made."""
        with contextlib.suppress(InvalidStateError):
            self.made.set_result(None)


@dataclass
class Stock:
    """The clones of one template that wait for a test, and what is known of it."""

    shape: Shape = field(default_factory=Shape)
    costs: Costs = field(default_factory=Costs)
    ready: list[Leased] = field(default_factory=list)
    spares: list[Spare[Leased]] = field(default_factory=list)


class Pool:
    """The clones that one worker's tests take and give back.

    A clone that settles as kept or rewound goes to the next test. After one is discarded, a spare
    is made on the disposal's thread and connection, at most `MAX_SPARES` at a time.

    Concurrency: one thread takes and gives back.
    """

    def __init__(
        self, clones: Clones, disposal: Disposal, leftovers: Leftovers, *, superuser: bool, reset: str
    ) -> None:
        self._leftovers = leftovers
        self._clones = clones
        self._disposal = disposal
        self._superuser = superuser
        self._observes = reset == "auto"
        self._stocks: dict[str, Stock] = {}
        self.verdicts: Counter[str] = Counter()
        self.seconds = 0.0
        self.unused = 0

    def take(self, template: Template) -> Leased:
        """A clone in the seeded state, in which nobody was since that was found.

        Raises:
            CloneError: Another client writes into each new clone.
        """
        stock, since = self._stock(template), time()
        while stock.ready or stock.spares:
            waiting = stock.ready.pop() if stock.ready else self._wait_for_spare(stock, template)
            if waiting and self._is_seeded(waiting, stock):
                waiting.since = since
                return waiting
        for _ in range(ATTEMPTS):
            leased = Leased(self._clones.make(template), since=since)
            if self.watch(leased):
                return leased
            self._discard(leased)
        raise disturbed(template.name, leased.clone.address)

    def _stock(self, template: Template) -> Stock:
        if template.name not in self._stocks:
            self._stocks[template.name] = Stock(Shape(partial(self._reference, template)))
        return self._stocks[template.name]

    @contextmanager
    def _reference(self, template: Template) -> Iterator[psycopg.Connection[object] | None]:
        """A connection to a clone in the seeded state, which waits for a test afterwards."""
        leased = None
        with contextlib.suppress(SeedDbError):  # the server has no room for another one
            leased = self.take(template)
        observer = leased.observer if leased else None
        try:
            yield observer.connection if observer else None
            if observer and not observer.is_at_rest():
                raise Disturbed("another client connected to the clone from which rows were read")
        finally:
            if leased:
                self._stocks[template.name].ready.insert(0, leased)

    def _wait_for_spare(self, stock: Stock, template: Template) -> Leased | None:
        spare = next((spare for spare in stock.spares if spare.made.done()), stock.spares[0])
        stock.spares.remove(spare)
        if not spare.is_new and not spare.made.done():
            self._order_spare(template)  # from now on two take turns, and nobody waits for one
        return spare.wait()

    def _is_seeded(self, leased: Leased, stock: Stock) -> bool:
        """Whether it is in the seeded state now. If somebody was there meanwhile, it is settled once more."""
        if leased.observer is None:
            return self.watch(leased)
        with contextlib.suppress(psycopg.Error):
            for _ in range(ATTEMPTS):
                if leased.observer.is_at_rest():
                    return True
                if settle(leased.observer, stock.costs).verdict == "discard":
                    break
        self._discard(leased)
        return False

    def give_back(self, leased: Leased, *, given_away: bool = False) -> Settlement:
        """Settle it: it goes to the next test, or away. If its address was given away, it goes under another name."""
        stock, mark = self._stocks[leased.clone.template.name], ""
        if leased.observer:
            leased.observer.globals_mark = ""
            settlement = settle(leased.observer, stock.costs)
            mark = leased.observer.globals_mark
        else:
            settlement = Settlement("discard", "nobody looked at it before the test" if self._observes else "asked for")
        if settlement.verdict == "discard":
            self._order_spare(leased.clone.template)
            self._discard(leased)
        elif given_away:
            spare = Spare[Leased](is_new=False)
            stock.spares.append(spare)
            self._disposal.do(lambda admin: self._move(leased, spare, admin), spare.fail)
        else:
            stock.ready.append(leased)
        self.verdicts[settlement.verdict] += 1
        self.seconds += settlement.seconds
        if mark != self._leftovers.mark:
            self._leftovers.after_test(mark, leased.since)
        return settlement

    def _move(self, leased: Leased, spare: Spare[Leased], admin: Admin) -> None:
        """Give a settled clone another name, which nobody knows yet."""
        if not spare.made.set_running_or_notify_cancel():
            self._discard(leased)
            return
        moved = None
        try:
            leased.clone = self._clones.move(leased.clone, admin)
            if leased.observer:
                leased.observer.connect_again(leased.clone.address)
                moved = leased
        except (psycopg.Error, SeedDbError, Discard):
            self._discard(leased)
        finally:
            spare.made.set_result(moved)

    def is_as_watched(self, leased: Leased, backend: int) -> bool:
        """Whether a clone with one backend still connected is as it was when its observer began to watch.

        If so, it counts as kept; else give it back.
        """
        started = perf_counter()
        with contextlib.suppress(psycopg.Error):
            if leased.observer and leased.observer.is_as_watched(backend):
                self.verdicts["keep"] += 1
                self.seconds += perf_counter() - started
                if leased.observer.globals_mark != self._leftovers.mark:
                    self._leftovers.after_test(leased.observer.globals_mark, leased.since)
                leased.since = time()
                return True
        return False

    def keep(self, leased: Leased, name: str) -> None:
        """Keep it on the server under ``name`` after the run."""
        leased.release()
        self._order_spare(leased.clone.template)
        self._clones.keep(leased.clone, name)

    def renew(self, leased: Leased) -> None:
        """Put the seeded state back in the middle of a test, under the same name. Ends every connection to it."""
        costs = self._stocks[leased.clone.template.name].costs
        if leased.observer and settle(leased.observer, costs).verdict != "discard":
            return
        leased.release()
        for _ in range(ATTEMPTS):
            self._clones.renew(leased.clone)
            if self.watch(leased):
                break

    def close(self) -> None:
        """Give up all clones that wait for a test, and the spares."""
        for stock in self._stocks.values():
            for spare in stock.spares:
                if leased := spare.give_up():
                    self.unused += spare.is_new
                    stock.ready.append(leased)
            for leased in stock.ready:
                self._discard(leased)
            stock.ready, stock.spares = [], []

    def _discard(self, leased: Leased) -> None:
        leased.release()
        self._clones.discard(leased.clone)

    def watch(self, leased: Leased, *, is_fresh: bool = True) -> bool:
        """Give it an observer, unless it has one. A clone without one (the server may refuse it) will be discarded.

        False if somebody else was in it, or it is not known: the clone is of no use. If it is not fresh, its present
        state is the one to come back to.
        """
        if self._observes and leased.observer is None:
            stock, started = self._stocks[leased.clone.template.name], perf_counter()
            address, shape = leased.clone.address, stock.shape
            try:
                leased.observer = Observer(address, shape, superuser=self._superuser, is_fresh=is_fresh)
            except Discard:
                return False
            except psycopg.Error:
                return True
            finally:
                stock.costs.learn_clone(leased.clone.seconds + perf_counter() - started)
        return True

    def _order_spare(self, template: Template) -> None:
        spares = self._stocks[template.name].spares
        if not spares and sum(len(stock.spares) for stock in self._stocks.values()) < MAX_SPARES:
            spare = Spare[Leased]()
            spares.append(spare)
            self._disposal.do(lambda admin: self._make_spare(template, spare, admin), spare.fail)

    def _make_spare(self, template: Template, spare: Spare[Leased], admin: Admin) -> None:
        # A test that waits already makes the observer itself, while this thread goes on with the drops that are due.
        if spare.made.done() or not spare.made.set_running_or_notify_cancel():  # done: tried again, or given up
            return
        leased = None
        try:
            if admin.run(_ROOM)[0][0]:
                leased = Leased(self._clones.make(template, admin))
                if not spare.wanted.is_set() and not self.watch(leased):
                    self._discard(leased)
                    leased = None
        finally:
            spare.made.set_result(leased)
