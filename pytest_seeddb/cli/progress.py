"""Progress of a build on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
from time import perf_counter
from typing import TYPE_CHECKING

from pytest_seeddb.plan.plan import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from pytest_seeddb.plan.plan import Plan, Step


def shown_progress() -> Progress:
    """A bar where standard error is a terminal that can draw one, lines where it is not."""
    can_draw = sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
    return BarProgress() if can_draw else LineProgress()


class _Waiting(Progress):
    """Says why nothing happens."""

    def waiting(self, why: str) -> None:
        """A line, on standard error."""
        print(f"waiting: {why}", file=sys.stderr)


class LineProgress(_Waiting):
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


class BarProgress(_Waiting):
    """A bar that stays on the terminal when the build is over; without colours under ``NO_COLOR``.

    What seeders print meanwhile appears above it.
    """

    _bars: Bars | None = None

    def begin(self, plan: Plan, stages: str, total: int) -> None:
        """Draw it, empty."""
        self._total, self._begun = total, 0
        self._bars = _bars()
        self._bars.start()
        self._task = self._bars.add_task(f"building {plan.name}/{plan.profile}: {stages}", total=total, step="")

    def step(self, step: Step) -> None:
        """Fill it up to the step that begins."""
        if self._bars:
            self._bars.update(self._task, completed=self._begun, step=step.name)
            self._begun += 1

    def end(self) -> None:
        """Fill it, unless the step failed, and leave the terminal as it was found."""
        if self._bars:
            if sys.exc_info()[0] is None:
                self._bars.update(self._task, completed=self._total, step="")
            self._bars.stop()
            self._bars = None


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        console=Console(stderr=True, highlight=False),
        redirect_stdout=sys.stdout.isatty(),  # what goes into a file is none of the bar's business
    )
