"""What the terminal shows at the end: what was built, reused and cloned."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_seeddb.clones.settle import Settlement
    from pytest_seeddb.clones.worker import Worker


@dataclass
class Tally:
    """What one process did, or several together: it travels from xdist's workers as plain data."""

    servers: list[str] = field(default_factory=list)
    built: dict[str, tuple[float, str]] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)
    clones: int = 0
    clone_seconds: float = 0.0
    verdicts: dict[str, int] = field(default_factory=dict)
    settle_seconds: float = 0.0
    settled: list[tuple[float, str, str]] = field(default_factory=list)
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
        self.clones += worker.clones.made - worker.pool.unused
        self.clone_seconds += worker.clones.seconds
        self._settled(worker.pool.verdicts, worker.pool.seconds)
        self.failures += worker.failures

    def merge(self, other: Self) -> None:
        """Add what another process did."""
        self.servers += other.servers
        self.built.update(other.built)
        self.reused += other.reused
        self.clones += other.clones
        self.clone_seconds += other.clone_seconds
        self._settled(other.verdicts, other.settle_seconds)
        self.settled += other.settled
        self.failures += other.failures

    def note(self, test: str, settlement: Settlement) -> None:
        """Remember what became of a test's database, for the report."""
        wrote = f", wrote {', '.join(settlement.wrote)}" if settlement.wrote else ""
        left = f", left {len(settlement.left)} open: {', '.join(map(str, settlement.left))}" if settlement.left else ""
        self.settled.append((settlement.seconds, test, f"{settlement.verdict}: {settlement.reason}{wrote}{left}"))

    def report(self) -> list[str]:
        """What became of each test's database, the slowest first."""
        slowest = sorted(self.settled, key=lambda each: -each[0])
        return [f"{1000 * seconds:6.1f} ms  {test}  {told}" for seconds, test, told in slowest]

    def _settled(self, verdicts: dict[str, int], seconds: float) -> None:
        for verdict, number in verdicts.items():
            self.verdicts[verdict] = self.verdicts.get(verdict, 0) + number
        self.settle_seconds += seconds

    def to_data(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The summary: one line a server, one a template, one for the clones."""
        if not self.servers:
            return []
        return [
            *_unique(self.servers),
            *self._templates(),
            *self._clones(),
            *self._settlements(),
            *_unique(self.failures),
        ]

    def _templates(self) -> Iterable[str]:
        for label, (seconds, reason) in self.built.items():
            yield f"template {label} built in {seconds:.1f} s: {reason}"
        for label in _unique(each for each in self.reused if each not in self.built):
            yield f"template {label} reused"

    def _clones(self) -> Iterable[str]:
        if self.clones:
            yield f"{_counted(self.clones, 'clone')}, {1000 * self.clone_seconds / self.clones:.0f} ms each"

    def _settlements(self) -> Iterable[str]:
        if total := sum(self.verdicts.values()):
            done = (("keep", "kept"), ("rewind", "rewound"), ("discard", "discarded"))
            named = ", ".join(f"{self.verdicts[verdict]} {word}" for verdict, word in done if verdict in self.verdicts)
            yield f"after tests: {named}, {1000 * self.settle_seconds / total:.1f} ms each"


def _unique(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
