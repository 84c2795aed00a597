"""The pool: who gets which clone, what becomes of it after a test, and spares made beside the tests."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

import psycopg

from pytest_seeddb.changes import Changes
from pytest_seeddb.keeper import Keeper
from pytest_seeddb.rewinding import NotRewindable
from pytest_seeddb.settle import Costs, Settlement, settle
from pytest_seeddb.shape import Shape

if TYPE_CHECKING:
    from pytest_seeddb.admin import Admin
    from pytest_seeddb.clones import Clone, Clones
    from pytest_seeddb.disposal import Disposal
    from pytest_seeddb.templates import Template

MAX_SPARES: Final = 2
"""Spare clones of one worker, of all its templates together: that much disk is taken in advance."""

_ROOM: Final = """
SELECT count(*) < current_setting('max_connections')::int / 2 FROM pg_stat_get_activity(NULL) WHERE datid IS NOT NULL
"""
"""Spares keep a connection each; above half of what the server allows, none is made."""


@dataclass
class Leased:
    """A clone in a test's hands, with the keeper that will settle it; without one it is discarded."""

    clone: Clone
    keeper: Keeper | None = None

    def changes(self) -> Changes:
        """What was written; nothing is known without a keeper."""
        return self.keeper.changes() if self.keeper else Changes()

    def release(self) -> None:
        """End the keeper's connection, before the clone is renamed or dropped."""
        if self.keeper:
            self.keeper.close()
            self.keeper = None


class Settling:
    """What is known of one template: its shape, and what its clones cost."""

    def __init__(self) -> None:
        self.shape = Shape()
        self.costs = Costs()
        self.ready: list[Leased] = []
        self.spares: list[Future[Leased | None]] = []


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
            if spare := known.spares.pop(0).result():
                return spare
        return self._make(template)

    def give_back(self, leased: Leased) -> Settlement:
        """Settle it: it goes to the next test, or away."""
        template = leased.clone.template
        known = self._templates[template.name]
        found = settle(leased.keeper, known.costs) if leased.keeper else Settlement("discard", "asked for")
        if found.verdict == "discard":
            self._order_spare(template)
            self._discard(leased)
        else:
            known.ready.append(leased)
        self.verdicts[found.verdict] = self.verdicts.get(found.verdict, 0) + 1
        self.seconds += found.seconds
        return found

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
        leased.keeper = self._keeper(leased.clone)

    def close(self) -> None:
        """Give up all clones that wait for a test, and the spares."""
        for known in self._templates.values():
            for each in known.spares:
                if not each.cancel() and (spare := each.result()):
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
        leased = Leased(clone, self._keeper(clone))
        self._templates[template.name].costs.cloned(perf_counter() - started)
        return leased

    def _keeper(self, clone: Clone) -> Keeper | None:
        """None where it cannot be had, for want of connections or privileges: such a clone is discarded."""
        if not self._keeps:
            return None
        shape = self._templates[clone.template.name].shape
        with contextlib.suppress(psycopg.Error, NotRewindable):
            return Keeper(clone.address, shape, superuser=self._superuser)
        return None

    def _order_spare(self, template: Template) -> None:
        if sum(len(each.spares) for each in self._templates.values()) >= MAX_SPARES:
            return
        spares = self._templates[template.name].spares
        if not spares:
            spares.append(Future())
            self._disposal.do(partial(self._make_spare, template, spares[-1]))

    def _make_spare(self, template: Template, spare: Future[Leased | None], admin: Admin) -> None:
        if not spare.set_running_or_notify_cancel():
            return
        made = None
        try:
            if admin.run(_ROOM)[0][0]:
                made = self._make(template, admin)
        finally:
            spare.set_result(made)
