"""The progress of a build that takes long, while pytest captures everything else."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from time import monotonic
from typing import IO, TYPE_CHECKING, Final

from pytest_seeddb.plan.plan import Progress

if TYPE_CHECKING:
    import pytest

    from pytest_seeddb.plan.plan import Plan, Step

_TICK: Final = 1.0  # seconds between updates, and so what a build may take before anything is shown

_REPEAT: Final = 30.0  # seconds after which a step that still runs is shown again, where lines cannot be changed


class TerminalProgress(Progress):
    """A line that a thread keeps changing on a terminal, plain lines elsewhere, nothing with ``-q``; never captured."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._quiet = config.get_verbosity() < 0
        self._line: _Line | None = None

    def begin(self, plan: Plan, stages: str, total: int) -> None:
        """A build begins; nothing is shown yet."""
        if not self._quiet and (stream := self._standard_error()):
            self._line = _Line(stream, f"seeddb: building {plan.name}/{plan.profile}: {stages}", total)

    def step(self, step: Step) -> None:
        """The next step begins."""
        if self._line:
            self._line.step(step.name)

    def end(self) -> None:
        """Leave the terminal as it was, except for one line."""
        if self._line:
            self._line.close()
            self._line = None

    def _standard_error(self) -> IO[str] | None:
        capture = self._config.pluginmanager.getplugin("capturemanager")
        uncaptured = getattr(capture, "global_and_fixture_disabled", contextlib.nullcontext)
        # A doctest, or the test itself, may have put streams of its own in place, which pytest does not put back.
        streams = sys.stdout, sys.stderr
        try:
            with uncaptured(), contextlib.suppress(OSError, ValueError, AttributeError):
                return os.fdopen(os.dup(sys.__stderr__.fileno()), "w", encoding="utf-8", errors="replace")  # type: ignore[union-attr]  # None where there is none
        finally:
            sys.stdout, sys.stderr = streams
        return None


class _Line:
    """The line of one build and the thread that writes it."""

    def __init__(self, stream: IO[str], label: str, total: int) -> None:
        self._stream = stream
        self._changeable = stream.isatty()
        self._label = label
        self._total = total
        self._current = (0, "", monotonic())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, name="seeddb-progress", daemon=True)
        self._thread.start()

    def step(self, name: str) -> None:
        self._current = (self._current[0] + 1, name, monotonic())

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._stream.close()

    def _show(self) -> None:
        last, when = 0, 0.0
        while not self._over.wait(_TICK):
            number, name, began = self._current
            if self._changeable or number != last or monotonic() - when > _REPEAT:
                # pytest's own line is open: it holds the name of the test's file.
                text = f"{self._label} {number}/{self._total}, {name}, for {monotonic() - began:.0f} s"
                self._write(text, first=not when)
                last, when = number, monotonic()
        if when and self._changeable:
            self._write("", first=False)

    def _write(self, text: str, *, first: bool) -> None:
        line = f"\r\x1b[K{text}" if self._changeable else f"{text}\n"
        with contextlib.suppress(OSError, ValueError):  # a closed terminal is no reason to fail a build
            self._stream.write(f"\n{line}" if first else line)
            self._stream.flush()
