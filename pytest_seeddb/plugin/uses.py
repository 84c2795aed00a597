"""What tests did in their databases, and what each database cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

_OUTCOMES: Final = ("", "skipped", "passed", "failed", "error")
"""The later one counts, where tests share a database."""


@dataclass
class Use:
    """One database and the tests that had it, as plain data: xdist's workers send it, and reports show it.

    ``docs/reference/report.md`` says what each name means.
    """

    node: str
    isolation: str
    template: str
    taken: float
    tests: list[str] = field(default_factory=list)
    outcome: str = ""
    seconds: float = 0.0
    around: float = 0.0
    settled: float = 0.0
    afterwards: str = ""
    reason: str = ""
    wrote: list[dict[str, Any]] | None = None
    left: list[dict[str, str]] = field(default_factory=list)
    kept: str = ""
    given_away: bool = False
    shown: str = ""

    @property
    def cost(self) -> float:
        """Seconds for the database, all in all."""
        return self.taken + self.settled

    def add(self, report: pytest.TestReport) -> None:
        """Add one phase of a test."""
        is_call = report.when == "call"
        if is_call:
            self.seconds += report.duration
        else:
            self.around += report.duration
        if is_call or not report.passed:
            outcome = "error" if report.failed and not is_call else report.outcome
            self.outcome = max(self.outcome, outcome, key=_OUTCOMES.index)
        if report.failed:
            texts = [self.shown, *(text for name, text in report.sections if name == "seeddb")]
            self.shown = "\n\n".join(filter(None, texts))


def lines(uses: Iterable[Use]) -> list[str]:
    """For the terminal: what became of each database that was settled, the slowest first."""
    settled = (use for use in uses if use.afterwards in {"keep", "rewind", "discard"})
    return [_line(use) for use in sorted(settled, key=lambda use: -use.settled)]


def _line(use: Use) -> str:
    wrote = f", wrote {', '.join(change['table'] for change in use.wrote)}" if use.wrote else ""
    names = ", ".join(f"{other['application'] or 'no name'} ({other['state']})" for other in use.left)
    left = f", left {len(use.left)} open: {names}" if use.left else ""
    test = use.node or "the session"
    return f"{1000 * use.settled:6.1f} ms  {test}  {use.afterwards}: {use.reason}{wrote}{left}"
