"""The summary in the terminal: templates that were built or reused, and clones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pytest_seeddb.errors import mask

if TYPE_CHECKING:
    from pytest_seeddb.clones.worker import Worker
    from pytest_seeddb.plugin.uses import Use


@dataclass
class Tally:
    """What one process did, or several together. It comes from xdist's workers as plain data.

    Attributes:
        uses: What was done in each database, where a report is asked for.
    """

    servers: list[str] = field(default_factory=list)
    built: dict[str, tuple[float, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    clones: int = 0
    clone_seconds: float = 0.0
    verdicts: dict[str, int] = field(default_factory=dict)
    settle_seconds: float = 0.0
    uses: list[Use] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    outside: dict[str, str] = field(default_factory=dict)
    roles: list[str] = field(default_factory=list)
    clashes: dict[str, str] = field(default_factory=dict)

    def add(self, worker: Worker) -> None:
        """Count what a worker did."""
        self.servers.append(f"PostgreSQL {worker.server.version} ({worker.server.kind}, {worker.server.origin})")
        self.failures += worker.failures
        for template in worker.templates:
            label = f"{template.record.plan}/{template.record.profile}"
            if template.built:
                self.built[label] = (template.record.seconds, template.reason)
            else:
                self.reused.append(label)
        for home in (worker, *worker.others):
            self.clones += home.clones.made - home.pool.unused
            self.clone_seconds += home.clones.seconds
            self._add_verdicts(home.pool.verdicts, home.pool.seconds)
        self.notes += worker.notes

    def merge(self, other: Self) -> None:
        """Add what another process did."""
        self.servers += other.servers
        self.built.update(other.built)
        self.reused += other.reused
        self.clones += other.clones
        self.clone_seconds += other.clone_seconds
        self._add_verdicts(other.verdicts, other.settle_seconds)
        self.uses += other.uses
        self.failures += other.failures
        self.notes += other.notes
        self.roles += other.roles
        self.outside = {**other.outside, **self.outside}
        self.clashes = {**other.clashes, **self.clashes}

    def warnings(self) -> list[str]:
        """Which engines connected to databases of their own, and for whom; which fixtures hide the plugin's."""
        engines = [f"{engine}, first in {asker} (see the setting `outside`)" for engine, asker in self.outside.items()]
        fixtures = [
            f"{test} gets the project's own fixture {fixture}, and no seeded database. To use both, rename the "
            "project's; to have one, build it on the plugin's, which it takes as a parameter of the same name"
            for fixture, test in self.clashes.items()
        ]
        return [*engines, *fixtures]

    def _add_verdicts(self, verdicts: dict[str, int], seconds: float) -> None:
        for verdict, number in verdicts.items():
            self.verdicts[verdict] = self.verdicts.get(verdict, 0) + number
        self.settle_seconds += seconds

    def lines(self) -> list[str]:
        """The summary: the servers, the templates, the clones, and what went wrong while tidying up."""
        lines = [*self.servers]
        for label, (seconds, reason) in self.built.items():
            lines.append(f"template {label} built in {seconds:.1f} s: {reason}")
        lines += self.notes
        lines += [f"template {label} reused" for label in self.reused if label not in self.built]
        if self.roles:
            lines.append(f"the application connected with the role {', '.join(sorted(set(self.roles)))}")
        if self.clones:
            noun = "clone" if self.clones == 1 else "clones"
            lines.append(f"{self.clones} {noun}, {1000 * self.clone_seconds / self.clones:.0f} ms each")
        if total := sum(self.verdicts.values()):
            words = {"keep": "kept", "rewind": "rewound", "discard": "discarded"}
            counts = (f"{self.verdicts[verdict]} {word}" for verdict, word in words.items() if verdict in self.verdicts)
            lines.append(f"after tests: {', '.join(counts)}, {1000 * self.settle_seconds / total:.1f} ms each")
        return list(dict.fromkeys([*lines, *self.failures])) if self.servers else []


def masked(value: Any) -> Any:  # noqa: ANN401 - plain data
    """The same data without secrets."""
    if isinstance(value, dict):
        return {key: masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return mask(value) if isinstance(value, str) else value
