"""How results, errors and the progress of builds are shown."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import asdict, is_dataclass
from io import TextIOWrapper
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TextIO

from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.plan.plan import Progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from rich.progress import Progress as Bars

    from pytest_seeddb.plan.plan import Plan, Step

UNITS: Final = ("B", "kB", "MB", "GB", "TB")
"""As PostgreSQL counts them: each is 1024 of the one before."""


def show(parsed: argparse.Namespace, result: object, lines: Iterable[str], *, with_quiet: bool = False) -> None:
    """Print a command's result: as JSON, or as lines, which ``-q`` leaves out if they only say what was done."""
    if parsed.json:
        say(json.dumps(result, indent=2, default=_plain), parsed.stream)
    elif with_quiet or not parsed.quiet:
        for line in lines:
            say(line, parsed.stream)


def parts_of(error: SeedDbError) -> dict[str, str]:
    """An error for machines."""
    return {"title": error.what, "saw": error.saw, "from": error.source, "do": error.remedy}


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line, by default on standard error; nothing happens where its reader is gone."""
    stream = stream or sys.stderr
    if stream is None:  # a shell can close it; `print` would take standard output
        return
    with suppress(AttributeError):  # of streams that are no TextIOWrapper
        line = line.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8")
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        silence(stream)


def silence(stream: TextIO) -> None:
    """Let a stream whose reader is gone lead nowhere, so that the end of the process does not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def stream_for_the_result(*, alone: bool, to_the_end: bool) -> Iterator[TextIO]:
    """Standard output; if the result is ``alone`` there, all else that is printed goes to standard error.

    That holds for the output of child processes, too, and ``to_the_end`` for what is printed when the process ends.
    """
    with ExitStack() as stack:
        stream = given = sys.stdout
        # Django's call_command and tests have streams of their own.
        if alone and isinstance(stream, TextIOWrapper) and stream is sys.__stdout__ and stream.fileno() == 1:
            stream.flush()
            stream = os.fdopen(os.dup(1), "w", encoding=stream.encoding)
            stack.callback(stream.close)
            stack.callback(os.dup2, stream.fileno(), 1)
            os.dup2(2, 1)
            stack.callback(sys.stdout.flush)
        if alone:
            stack.enter_context(redirect_stdout(sys.stderr))
        try:
            yield stream
        finally:
            if to_the_end:
                stack.pop_all()
                if stream is not given:
                    stream.close()


def _plain(value: Any) -> object:  # noqa: ANN401 - any dataclass
    if isinstance(value, SeedDbError):
        return parts_of(value)
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


def make_progress(parsed: argparse.Namespace | None = None, verb: str = "building", *, steps: bool = True) -> Progress:
    """The progress of a build, on standard error: a bar where that is a terminal that can draw one, else lines.

    ``-q`` shows none, and ``-v`` also each step as it begins. Without ``steps``, lines do not name the steps.
    """
    if parsed and parsed.quiet:
        return Progress()
    can_draw = (
        sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
    )
    return (_Bar if can_draw else _Lines)(verb, steps=steps, verbose=bool(parsed and parsed.verbose))


class _Lines(Progress):
    def __init__(self, verb: str, *, steps: bool, verbose: bool) -> None:
        self._verb = verb
        self._steps = steps
        self._verbose = verbose
        self._current = ""

    def waiting(self, why: str) -> None:
        say(f"waiting: {why}")

    def again(self, why: str) -> None:
        say(f"  once more, {why}")

    def begin(self, plan: Plan, stages: str, total: int) -> None:
        self._done, self._total = 0, total
        say(f"{self._verb} {plan.name}/{plan.profile}: {stages}")
        for line in plan.unusual():
            say(f"  {line}")

    def step(self, step: Step) -> None:
        self.end()
        self._done += 1
        self._current, self._started = f"{self._done}/{self._total} {step.name}", perf_counter()
        if self._verbose:
            say(f"  {self._current} begins")

    def end(self) -> None:
        """Tell the step that has ended, and how long it took."""
        if self._current and self._steps:
            say(f"  {self._current} ({perf_counter() - self._started:.1f} s)")
        self._current = ""


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
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # a file gets the output as it is
        )
        self._bars.start()
        for line in plan.unusual():
            self._bars.console.print(line, markup=False)
        self._task = self._bars.add_task(f"{self._verb} {plan.name}/{plan.profile}: {stages}", total=total, step="")

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
