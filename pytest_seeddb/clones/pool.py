"""The pool: who gets which clone, what becomes of it after a test, and spares made beside the tests."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.clones.observer import Keeper
from pytest_seeddb.clones.rewind import NotRewindable
from pytest_seeddb.clones.settle import Costs, Settlement, settle
from pytest_seeddb.clones.shape import Shape
from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_seeddb.clones.changes import Changes
    from pytest_seeddb.clones.clones import Clone, Clones
    from pytest_seeddb.clones.disposal import Disposal
    from pytest_seeddb.servers.admin import Admin
    from pytest_seeddb.templates.templates import Template

MAX_SPARES: Final = 2
"""Spare clones of one worker, of all its templates together: that much disk is taken in advance."""

_ROOM: Final = """
SELECT count(*) < current_setting('max_connections')::int / 2 FROM pg_stat_get_activity(NULL) WHERE datid IS NOT NULL
"""
"""Spares keep a connection each; above half of what the server allows, none is made."""


@dataclass
class Leased:
    """A clone in a test's hands, with the keeper that will settle it; without one it is discarded.

    Attributes:
        seconds: What making it took, without its keeper.
    """

    clone: Clone
    seconds: float = 0.0
    keeper: Keeper | None = None

    def changes(self) -> Changes:
        """What was written.

        Raises:
            SeedDbError: Nothing is known without a keeper.
        """
        if self.keeper is None:
            raise SeedDbError(
                "What was written is not known: nobody looked at the clone before the test",
                source='reset = "clone", or the server had no connection left',
                remedy='choose reset = "auto", the default, or --seed-db-reset=auto',
            )
        return self.keeper.changes()

    def release(self) -> None:
        """End the keeper's connection, before the clone is renamed or dropped."""
        if self.keeper:
            self.keeper.close()
            self.keeper = None


class Spare:
    """A clone that is made beside the tests.

    Its keeper is made beside them, too, unless a test waits already: that test makes it while the
    maker's connection goes on with the drops that are due.
    """

    def __init__(self) -> None:
        self._made: Future[Leased | None] = Future()
        self._wanted = threading.Event()

    def wait(self) -> Leased | None:
        """The clone; ``None`` where it could not be made."""
        self._wanted.set()
        return self._made.result()

    def give_up(self) -> Leased | None:
        """Have it not made, or get what was made."""
        return None if self._made.cancel() else self.wait()

    def fail(self) -> None:
        """Let nobody wait for it any longer, where it was not made."""
        self.make(lambda: None, lambda _: None)

    def make(self, clone: Callable[[], Leased | None], watch: Callable[[Leased], object]) -> None:
        """Make it, unless it was given up."""
        if self._made.done() or not self._made.set_running_or_notify_cancel():
            return
        made = None
        try:
            made = clone()
            if made and not self._wanted.is_set():
                watch(made)
        finally:
            self._made.set_result(made)


class Settling:
    """What is known of one template: its shape, and what its clones cost."""

    def __init__(self) -> None:
        self.shape = Shape()
        self.costs = Costs()
        self.ready: list[Leased] = []
        self.spares: list[Spare] = []


class Pool:
    """The clones that one worker's tests take and give back.

    A clone that settles as kept or rewound goes to the next test. After one is discarded, a spare
    is made on the disposal's thread and connection, at most `MAX_SPARES` at a time.

    Concurrency: one thread takes and gives back.
    """

    def __init__(self, clones: Clones, disposal: Disposal, *, superuser: bool, reset: str) -> None:
        self._clones = clones
        self._disposal = disposal
        self._superuser = superuser
        self._keeps = reset == "auto"
        self._unseen = Settlement("discard", "nobody looked at it before the test" if self._keeps else "asked for")
        self._templates: dict[str, Settling] = {}
        self.verdicts: dict[str, int] = {}
        self.seconds = 0.0
        self.unused = 0

    def take(self, template: Template) -> Leased:
        """A clone in the seeded state.

        Raises:
            ServerError: The server refused it.
        """
        known = self._templates.setdefault(template.name, Settling())
        if known.ready:
            return known.ready.pop()
        while known.spares:
            if spare := known.spares.pop(0).wait():
                return self.watch(spare)
        return self.watch(self._make(template))

    def give_back(self, leased: Leased) -> Settlement:
        """Settle it: it goes to the next test, or away."""
        template = leased.clone.template
        known = self._templates[template.name]
        found = settle(leased.keeper, known.costs) if leased.keeper else self._unseen
        if found.verdict == "discard":
            self._order_spare(template)
            self._discard(leased)
        else:
            known.ready.append(leased)
        self.verdicts[found.verdict] = self.verdicts.get(found.verdict, 0) + 1
        self.seconds += found.seconds
        return found

    def is_as_watched(self, leased: Leased, backend: int) -> bool:
        """Whether a clone with one backend still connected is as it was when its keeper began to watch.

        Counts as kept where it is; else give it back.
        """
        started = perf_counter()
        with contextlib.suppress(psycopg.Error):
            if leased.keeper and leased.keeper.is_as_watched(backend):
                self.verdicts["keep"] = self.verdicts.get("keep", 0) + 1
                self.seconds += perf_counter() - started
                return True
        return False

    def keep(self, leased: Leased, name: str) -> None:
        """Let it stay on the server under ``name``, for somebody to look at."""
        leased.release()
        self._order_spare(leased.clone.template)
        self._clones.keep(leased.clone, name)

    def renew(self, leased: Leased) -> None:
        """Put the seeded state back in the middle of a test, under the same name. Ends every connection to it.

        Raises:
            ServerError: The server refused a new clone.
        """
        costs = self._templates[leased.clone.template.name].costs
        if leased.keeper and settle(leased.keeper, costs).verdict != "discard":
            return
        leased.release()
        self._clones.renew(leased.clone)
        self.watch(leased)

    def close(self) -> None:
        """Give up all clones that wait for a test, and the spares."""
        for known in self._templates.values():
            for each in known.spares:
                if spare := each.give_up():
                    self.unused += 1
                    known.ready.append(spare)
            for leased in known.ready:
                self._discard(leased)
            known.ready, known.spares = [], []

    def _discard(self, leased: Leased) -> None:
        leased.release()
        self._clones.discard(leased.clone)

    # -- making ----------------------------------------------------------------------------------

    def _make(self, template: Template, admin: Admin | None = None) -> Leased:
        started = perf_counter()
        clone = self._clones.make(template, admin)
        return Leased(clone, perf_counter() - started)

    def watch(self, leased: Leased) -> Leased:
        """Give it a keeper, unless it has one or needs none."""
        if self._keeps and leased.keeper is None:
            started = perf_counter()
            leased.keeper = self._keeper(leased.clone)
            self._templates[leased.clone.template.name].costs.cloned(leased.seconds + perf_counter() - started)
        return leased

    def _keeper(self, clone: Clone) -> Keeper | None:
        """None where it cannot be had, for want of connections or privileges: such a clone is discarded."""
        shape = self._templates[clone.template.name].shape
        with contextlib.suppress(psycopg.Error, NotRewindable):
            return Keeper(clone.address, shape, superuser=self._superuser)
        return None

    def _order_spare(self, template: Template) -> None:
        if sum(len(each.spares) for each in self._templates.values()) >= MAX_SPARES:
            return
        spares = self._templates[template.name].spares
        if not spares:
            spares.append(Spare())
            self._disposal.do(partial(self._make_spare, template, spares[-1]), spares[-1].fail)

    def _make_spare(self, template: Template, spare: Spare, admin: Admin) -> None:
        def clone() -> Leased | None:
            return self._make(template, admin) if admin.run(_ROOM)[0][0] else None

        spare.make(clone, self.watch)
