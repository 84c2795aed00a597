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

    Attributes:
        node: The test, or what shares the database: a class, a module or a package. Empty for the session.
        tests: The tests.
        template: The plan and the profile.
        outcome: ``passed``, ``failed``, ``error`` (in set-up or tear-down), ``skipped``; empty if the run ended before.
        seconds: What the tests themselves took, without fixtures.
        around: What their set-up and tear-down took, all in all.
        taken: How long it took to get the database.
        settled: How long it took to put it back.
        afterwards: ``keep``, ``rewind`` or ``discard``; ``rollback`` or ``readonly`` where it is shared; ``stay`` where
            it was left on the server for somebody to look at.
        reason: Why.
        wrote: The rows written by table, rolled back ones as well; ``None`` where that is not known.
        left: The connections that were left open.
        kept: Its name where it stays on the server.
        given_away: Whether connections may have been opened by others than the fixtures.
        rows: The rows that a failed test changed.
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
    rows: str = ""

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
