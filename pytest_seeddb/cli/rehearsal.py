"""Run a plan in a process of its own, and look at the tables after each step.

Another process has another hash seed, other object addresses and another clock reading: what
depends on them comes out otherwise there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final, Self

from pytest_seeddb.plan.numbering import Numbering
from pytest_seeddb.plan.plan import Marks, Target
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.templates.contents import Held, held

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from pytest_seeddb.plan.plan import Step
    from pytest_seeddb.servers.address import Address
    from pytest_seeddb.settings.settings import Settings

_HASH_SEED = "PYTHONHASHSEED"


@dataclass(frozen=True)
class Performed:
    """A step that ran.

    Attributes:
        step: Its name.
        seconds: How long it took.
        before: What the tables held when it began.
        after: What they held when it had ended.
    """

    step: str
    seconds: float
    before: Mapping[str, Held]
    after: Mapping[str, Held]


class Rehearsal:
    """A process that runs steps of one plan.

    Lifetime: until the block ends. What it prints goes to the standard error.

    Args:
        settings: Those of the plan.
        overrides: Seed parameters on top of the profile's.
        hash_seed: Python's, which decides the order of sets of strings.
    """

    def __init__(self, settings: Settings, overrides: Mapping[str, object], hash_seed: int) -> None:
        self._settings = settings
        self._overrides = dict(overrides)
        self._hash_seed = str(hash_seed)
        self._process = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_speak_on_standard_error
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.shutdown(cancel_futures=True)

    def run(self, address: Address, only: str = "") -> tuple[Performed, ...]:
        """Run the plan, or one step of it, on a database.

        Factories' sequences begin for one step where they did when the plan ran.

        Raises:
            ConfigError: A declaration or a parameter is wrong.
            BuildError: A step failed.
        """
        future: Future[tuple[Performed, ...]]
        before = os.environ.get(_HASH_SEED)
        os.environ[_HASH_SEED] = self._hash_seed  # read when the process starts, and never again
        try:
            future = self._process.submit(_run, self._settings, self._overrides, address, only)
        finally:
            os.environ.pop(_HASH_SEED)
            if before is not None:
                os.environ[_HASH_SEED] = before
        return future.result()


def _speak_on_standard_error() -> None:
    os.dup2(2, 1)  # the standard output belongs to the result


_of_the_plan: Final = Numbering()
"""In the process that runs it."""


def _run(settings: Settings, overrides: Mapping[str, object], address: Address, only: str) -> tuple[Performed, ...]:
    plan = plan_of(settings, overrides=overrides)
    watch = _Watch(address)
    numbering = _of_the_plan.copy() if only else _of_the_plan
    target = Target(address, plan.root, plan.env, watch.begin, _Only(only) if only else Marks(), numbering)
    with contextlib.chdir(plan.root):
        for stage in plan.stages:
            if not only or any(step.name == only for step in stage.steps):
                stage.run(target, 0)
                watch.end()
    return tuple(watch.performed)


class _Only(Marks):
    """Wants one step."""

    def __init__(self, name: str) -> None:
        self._name = name

    def wants(self, step: Step) -> bool:
        """Whether it is that one."""
        return step.name == self._name


@dataclass
class _Watch:
    """Looks at the tables between steps; what that takes is not counted."""

    address: Address
    performed: list[Performed] = field(default_factory=list)
    _current: str = ""
    _started: float = 0.0
    _before: Mapping[str, Held] = field(default_factory=dict)

    def begin(self, step: Step) -> None:
        self.end()
        self._current = step.name
        self._before = self.performed[-1].after if self.performed else held(self.address)
        self._started = perf_counter()

    def end(self) -> None:
        if self._current:
            seconds = perf_counter() - self._started
            self.performed.append(Performed(self._current, seconds, self._before, held(self.address)))
            self._current = ""
