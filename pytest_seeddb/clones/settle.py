"""Settle: keep a clone as it is after a test, rewind it, or discard it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Final, Literal

import psycopg

from pytest_seeddb.clones.rewind import NotRewindable

if TYPE_CHECKING:
    from pytest_seeddb.clones.changes import OpenConnection
    from pytest_seeddb.clones.observer import Keeper, Moment

Verdict = Literal["keep", "rewind", "discard"]

_WEIGHT: Final = 0.2
"""How much the latest measurement counts against the earlier ones."""


@dataclass(frozen=True)
class Settlement:
    """What became of a clone after a test.

    Attributes:
        verdict: ``keep``, ``rewind`` or ``discard``.
        reason: Why, for the report.
        wrote: The tables that were written to, where that is known.
        left: Connections that the test left open.
        seconds: How long it took to find out and to do; a discarded clone's drop comes later.
    """

    verdict: Verdict
    reason: str
    wrote: tuple[str, ...] = ()
    left: tuple[OpenConnection, ...] = ()
    seconds: float = 0.0


@dataclass
class Costs:
    """What rewinding and cloning really take, learned while it is done.

    Attributes:
        clone: Seconds for a clone, 0 where none was timed.
        factor: What a rewind took, as a multiple of its rough estimate.
    """

    clone: float = 0.0
    factor: float = 1.0
    _tried: int = field(default=0, repr=False)

    def cloned(self, seconds: float) -> None:
        """Learn from a clone that was made."""
        self.clone = seconds if not self.clone else (1 - _WEIGHT) * self.clone + _WEIGHT * seconds

    def rewound(self, estimate: float, seconds: float) -> None:
        """Learn from a rewind that was done."""
        if estimate:
            self.factor = (1 - _WEIGHT) * self.factor + _WEIGHT * seconds / estimate

    def prefer_clone(self, estimate: float) -> bool:
        """Whether a new clone is cheaper. Now and then the dearer one is tried, so that the estimate stays honest."""
        if not self.clone or estimate * self.factor <= self.clone:
            return False
        self._tried += 1
        return bool(self._tried % 20)


def settle(keeper: Keeper, costs: Costs) -> Settlement:
    """Decide, and rewind where that is the decision.

    After ``keep`` and ``rewind`` the clone equals a fresh one; after ``discard`` it is in no defined
    state. Any doubt, and any error of the server's, means ``discard``.
    """
    started = perf_counter()
    try:
        found = _decided(keeper, costs)
    except NotRewindable as verdict:
        found = Settlement("discard", str(verdict))
    except psycopg.Error as error:
        found = Settlement("discard", f"the server refused to look or to rewind: {str(error).splitlines()[0]}")
    return replace(found, wrote=keeper.wrote, left=keeper.left, seconds=perf_counter() - started)


def _decided(keeper: Keeper, costs: Costs) -> Settlement:
    now = keeper.wait_until_alone()
    if now is None:
        return Settlement("discard", "a connection was left inside a transaction, or does not end")
    if keeper.beyond_rows(now):
        return Settlement("discard", "roles, settings of the database or the server's counters changed")
    if not keeper.wrote_rows(now) and not keeper.moved_sequences():
        return Settlement("keep", "nothing was written")
    return _rewound(keeper, costs, now)


def _rewound(keeper: Keeper, costs: Costs, now: Moment) -> Settlement:
    written = keeper.written(now)
    if written is None:
        return Settlement("discard", "more than rows of tables was written: the schema or large objects")
    rewind = keeper.plan_rewind(written)
    if costs.prefer_clone(rewind.seconds):
        return Settlement("discard", "a new clone is cheaper than putting the rows back")
    started = perf_counter()
    keeper.rewind(rewind)
    costs.rewound(rewind.seconds, perf_counter() - started)
    return Settlement("rewind", "rows were put back" if written else "sequences were set back")
