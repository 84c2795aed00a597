"""What the terminal shows: a header, the progress of long builds, a summary."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Self

from pytest_seeddb.plan import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pytest

    from pytest_seeddb.plan import Plan, Step
    from pytest_seeddb.worker import Worker

_QUIET_FOR: Final = 1.0
"""Seconds that a build may take before anybody hears of it."""


@dataclass
class Tally:
    """What one process did, or several together: it travels from xdist's workers as plain data."""

    servers: list[str] = field(default_factory=list)
    built: dict[str, tuple[float, str]] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    clones: int = 0
    clone_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, worker: Worker) -> None:
        """Count what a worker did."""
        self.servers.append(f"PostgreSQL {worker.server.version} ({worker.server.kind}, {worker.server.origin})")
        for template in worker.templates:
            label = f"{template.record.plan}/{template.record.profile}"
            if template.built:
                self.built[label] = (template.record.seconds, template.reason)
            else:
                self.reused.append(label)
        self.clones += worker.clones.made
        self.clone_seconds += worker.clones.seconds
        self.failures += worker.failures

    def merge(self, other: Self) -> None:
        """Add what another process did."""
        self.servers += other.servers
        self.built.update(other.built)
        self.reused += other.reused
        self.clones += other.clones
        self.clone_seconds += other.clone_seconds
        self.failures += other.failures

    def to_data(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The summary: one line a server, one a template, one for the clones."""
        if not self.servers:
            return []
        return [*_unique(self.servers), *self._templates(), *self._clones(), *_unique(self.failures)]

    def _templates(self) -> Iterable[str]:
        for label, (seconds, reason) in self.built.items():
            yield f"template {label} built in {seconds:.1f} s: {reason}"
        for label in _unique(each for each in self.reused if each not in self.built):
            yield f"template {label} reused"

    def _clones(self) -> Iterable[str]:
        if self.clones:
            yield f"{_counted(self.clones, 'clone')}, {1000 * self.clone_seconds / self.clones:.0f} ms each"


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class TerminalProgress(Progress):
    """Shows a build that takes long: a line that changes on a terminal, plain lines elsewhere."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._quiet = config.get_verbosity() < 0
        self._started = 0.0
        self._shown = 0.0
        self._done = 0
        self._total = 0
        self._label = ""
        self._open_line = False

    def begin(self, plan: Plan, total: int) -> None:
        """A build begins; nothing is shown yet."""
        self._started = self._shown = perf_counter()
        self._done, self._total = 0, total
        self._label = f"seeddb: building {plan.name}/{plan.profile}"

    def step(self, step: Step) -> None:
        """Show the step, where the build has taken a while already."""
        self._done += 1
        now = perf_counter()
        if self._quiet or now - self._started < _QUIET_FOR:
            return
        text = f"{self._label}: {self._done}/{self._total} {step.name}, {now - self._started:.0f} s"
        if sys.__stderr__ is not None and sys.__stderr__.isatty():
            self._write(f"\r\x1b[K{text}")
            self._open_line = True
        elif now - self._shown >= _QUIET_FOR:
            self._shown = now
            self._write(f"{text}\n")

    def end(self) -> None:
        """Leave the terminal as it was found."""
        if self._open_line:
            self._write("\r\x1b[K")
            self._open_line = False

    def _write(self, text: str) -> None:
        with self._uncaptured():
            stream = sys.__stderr__
            if stream is not None:
                stream.write(text)
                stream.flush()

    def _uncaptured(self) -> contextlib.AbstractContextManager[None]:
        capture = self._config.pluginmanager.getplugin("capturemanager")
        suspended: Callable[[], contextlib.AbstractContextManager[None]] | None = getattr(
            capture, "global_and_fixture_disabled", None
        )
        return suspended() if suspended else contextlib.nullcontext()
