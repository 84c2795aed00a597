"""Are the seeds sound? The same rows each time, and no more of them when they run again.

The plan is built twice, in two processes with other hash seeds, one after the other, and the tables
are compared after each step: what depends on the clock, on ``uuid4`` or on the order of a set comes
out otherwise, and the step after which it first does is the one to blame. Then each seeder runs
once more, on a copy of the finished database.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.cli.rehearsal import Performed, Rehearsal
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.templates.contents import Held, held, rows_made, shown_difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_seeddb.plan.plan import Plan, Step
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings
    from pytest_seeddb.templates.scratch import Scratch

_APART: Final = 1.1
"""Seconds between the two builds' beginnings at least, so that a clock of seconds reads otherwise."""

Again = Literal["same", "other rows", "error"]


@dataclass(frozen=True)
class Difference:
    """What a table holds in one build, or before, and not in the other, or afterwards.

    Attributes:
        table: Its name.
        lines: Rows, with ``-`` and ``+`` before them.
    """

    table: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class SeederFound:
    """What is known of one seeder, or of the migrations together.

    Attributes:
        step: The step's name.
        seconds: How long it took.
        rows: Rows that it made, by table.
        unlike: Tables that came out otherwise in the second build, and had not before it.
        again: What came of running it once more: the ``same`` rows, ``other rows``, or an ``error``.
        claims: Whether it says of itself that it is idempotent.
        changed: What running it once more changed.
        error: The error that running it once more ended in.
    """

    step: str
    seconds: float
    rows: Mapping[str, int]
    unlike: tuple[Difference, ...] = ()
    again: Again = "same"
    claims: bool = False
    changed: tuple[Difference, ...] = ()
    error: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it makes the same rows each time, and is idempotent if it says so."""
        return not self.unlike and (self.again == "same" or not self.claims)


@dataclass(frozen=True)
class Soundness:
    """What was found out about a plan's seeds."""

    plan: str
    profile: str
    seeders: tuple[SeederFound, ...] = field(default_factory=tuple)

    @property
    def is_sound(self) -> bool:
        """Whether all of them are."""
        return all(each.is_sound for each in self.seeders)


def prove(settings: Settings, overrides: Mapping[str, object], scratch: Scratch) -> Soundness:
    """Build twice, run each seeder twice, and compare.

    Takes about as long as three builds without a template, and at least a second. Nothing is left
    on the server.

    Raises:
        ConfigError: The settings are wrong.
        BuildError: A step failed the first time.
        ServerError: The server refused something.
    """
    plan = plan_of(settings, overrides=overrides)
    one, other = scratch.empty(), scratch.empty()
    with Rehearsal(settings, overrides, 1) as first, Rehearsal(settings, overrides, 2) as second:
        begun = monotonic()
        performed = first.run(one)
        sleep(max(0.0, begun + _APART - monotonic()))
        again = second.run(other)
        unlike = dict(_unlike(performed, again, one, other))
        finished = held(one)
        found = [
            _Repeat(first, scratch, one, finished).of(step, run, unlike.get(run.step, ()))
            for step, run in _seeds(plan, performed)
        ]
    migrations = _migrations(plan, performed, unlike)
    return Soundness(plan.name, plan.profile, (*migrations, *found))


def _unlike(
    performed: Sequence[Performed], again: Sequence[Performed], one: Address, other: Address
) -> Iterator[tuple[str, tuple[Difference, ...]]]:
    """By step, the tables that differ after it and did not before."""
    known: set[str] = set()
    for mine, others in zip(performed, again, strict=False):
        tables = {name for name in {*mine.after, *others.after} if mine.after.get(name) != others.after.get(name)}
        fresh = sorted(tables - known)
        known |= tables
        if fresh:
            yield mine.step, tuple(Difference(name, shown_difference(name, one, other)) for name in fresh)


def _seeds(plan: Plan, performed: Sequence[Performed]) -> Iterator[tuple[Step, Performed]]:
    steps = {step.name: step for stage in plan.stages if stage.tier for step in stage.steps}
    return ((steps[run.step], run) for run in performed if run.step in steps)


def _migrations(
    plan: Plan, performed: Sequence[Performed], unlike: Mapping[str, tuple[Difference, ...]]
) -> tuple[SeederFound, ...]:
    """The migrations that make other rows each time; those that do not are nobody's concern here."""
    seeds = {step.name for step, _ in _seeds(plan, performed)}
    return tuple(
        SeederFound(run.step, run.seconds, rows_made(run.before, run.after), unlike[run.step])
        for run in performed
        if run.step not in seeds and run.step in unlike
    )


@dataclass(frozen=True)
class _Repeat:
    """Runs one step more on a copy of the finished database."""

    rehearsal: Rehearsal
    scratch: Scratch
    finished: Address
    before: Mapping[str, Held]

    def of(self, step: Step, run: Performed, unlike: tuple[Difference, ...]) -> SeederFound:
        copy = self.scratch.copy(self.finished)
        known = SeederFound(
            step.name, round(run.seconds, 3), rows_made(run.before, run.after), unlike, claims=step.rerun == "safe"
        )
        try:
            self.rehearsal.run(copy, step.name)
        except SeedDbError as error:
            return _with(known, "error", error=str(error))
        else:
            changed = tuple(self._changed(copy))
            return _with(known, "other rows" if changed else "same", changed=changed)
        finally:
            self.scratch.drop(copy)

    def _changed(self, copy: Address) -> Iterator[Difference]:
        after = held(copy)
        for name in sorted({*self.before, *after}):
            mine, others = self.before.get(name), after.get(name)
            if mine is None or others is None or mine.which != others.which:
                yield Difference(name, shown_difference(name, self.finished, copy))


def _with(known: SeederFound, again: Again, **more: object) -> SeederFound:
    return replace(known, again=again, **more)  # type: ignore[arg-type]  # fields of its own
