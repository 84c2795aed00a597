"""How results and the progress of builds are shown."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from dataclasses import asdict, is_dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.plan.plan import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import Progress as Bars

    from pytest_seeddb.plan.plan import Plan, Step

UNITS: Final = ("B", "kB", "MB", "GB", "TB")
"""As PostgreSQL counts them: each is 1024 of the one before."""


def as_json(result: object) -> str:
    """A command's result for machines: dictionaries and dataclasses."""
    return json.dumps(result, indent=2, default=_plain)


def _plain(value: Any) -> object:  # noqa: ANN401 - any dataclass
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def size_text(size: int | None) -> str:
    """Bytes as people read them: ``8.1 MB``."""
    if size is None:
        return "?"
    number, unit = float(size), 0
    while number >= 1000 and unit < len(UNITS) - 1:  # noqa: PLR2004 - three digits at most
        number, unit = number / 1024, unit + 1
    return f"{number:.1f} {UNITS[unit]}" if unit else f"{size} B"


def ago(moment: str) -> str:
    """How long ago an ISO time or day was: ``3 h``, ``12 d``; ``?`` where there is none."""
    try:
        then = dt.datetime.fromisoformat(moment)
    except ValueError:
        return "?"
    seconds = (dt.datetime.now(dt.UTC) - (then if then.tzinfo else then.replace(tzinfo=dt.UTC))).total_seconds()
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table, indented by two, each column as wide as it needs."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        yield "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def make_progress() -> Progress:
    """The progress of a build, on standard error: a bar where that is a terminal that can draw one, else lines."""
    can_draw = sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
    return _Bar() if can_draw else _Lines()


class _Lines(Progress):
    def waiting(self, why: str) -> None:
        print(f"waiting: {why}", file=sys.stderr)

    def begin(self, plan: Plan, stages: str, total: int) -> None:
        self._started, self._done, self._total = perf_counter(), 0, total
        print(f"building {plan.name}/{plan.profile}: {stages}", file=sys.stderr)
        for line in plan.unusual():
            print(f"  {line}", file=sys.stderr)

    def step(self, step: Step) -> None:
        self._done += 1
        seconds = perf_counter() - self._started
        print(f"  {self._done}/{self._total} {step.name} ({seconds:.1f} s)", file=sys.stderr)


class _Bar(_Lines):
    """A bar that stays on the terminal; what seeders print appears above it; no colours under ``NO_COLOR``."""

    _bars: Bars | None = None

    def begin(self, plan: Plan, stages: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._total, self._done = total, 0
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[step]}", markup=False),
            console=Console(stderr=True, highlight=False),
            redirect_stdout=sys.stdout.isatty(),  # a file gets the output as it is
        )
        self._bars.start()
        for line in plan.unusual():
            self._bars.console.print(line, markup=False)
        self._task = self._bars.add_task(f"building {plan.name}/{plan.profile}: {stages}", total=total, step="")

    def step(self, step: Step) -> None:
        if self._bars:
            self._bars.update(self._task, completed=self._done, step=step.name)
            self._done += 1

    def end(self) -> None:
        """Fill it, unless the step failed, and leave the terminal as it was found."""
        if self._bars:
            if sys.exc_info()[0] is None:
                self._bars.update(self._task, completed=self._total, step="")
            self._bars.stop()
            self._bars = None
