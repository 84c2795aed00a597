"""Progress of a build on standard error."""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING

from pytest_seeddb.plan import Progress

if TYPE_CHECKING:
    from pytest_seeddb.plan import Plan, Step


class LineProgress(Progress):
    """A line for each step, on standard error."""

    def begin(self, plan: Plan, stages: str, total: int) -> None:
        """Say what is built."""
        self._started, self._done, self._total = perf_counter(), 0, total
        print(f"building {plan.name}/{plan.profile}: {stages}", file=sys.stderr)

    def step(self, step: Step) -> None:
        """Say which step begins."""
        self._done += 1
        seconds = perf_counter() - self._started
        print(f"  {self._done}/{self._total} {step.name} ({seconds:.1f} s)", file=sys.stderr)

    def waiting(self, why: str) -> None:
        """Say why nothing happens."""
        print(f"waiting: {why}", file=sys.stderr)
