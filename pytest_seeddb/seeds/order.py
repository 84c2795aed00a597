"""The order in which seeds run: by dependency, then by declaration."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_seeddb.seeds.kinds import Seed

__all__ = ["ordered"]


def ordered(seeds: Iterable[Seed], before: Callable[[Seed], Sequence[Seed]]) -> tuple[Seed, ...]:
    """Sort the seeds: essential ones first, each after those that it names, else as declared.

    A seed that nothing names keeps its place, so that the order of a list without ``after`` is that
    of the list. One that is only named by others runs directly before the first of them.

    Args:
        seeds: In order of declaration.
        before: The seeds that a seed names in ``after``.

    Raises:
        ConfigError: The seeds form a cycle, or an essential one waits for a demo one.
    """
    seeds = list(seeds)
    walk = _Walk(before)
    for tier in ("essential", "demo"):
        for seed in seeds:
            if seed.tier == tier:
                walk.visit(seed)
    return tuple(walk.done.values())


class _Walk:
    """Depth first: a seed is done when all that it names are done."""

    def __init__(self, before: Callable[[Seed], Sequence[Seed]]) -> None:
        self._before = before
        self._open: dict[str, Seed] = {}
        self.done: dict[str, Seed] = {}

    def visit(self, seed: Seed) -> None:
        if seed.identity in self.done:
            return
        if seed.identity in self._open:
            raise _cycle([*self._open.values()], seed)
        self._open[seed.identity] = seed
        for earlier in self._before(seed):
            if seed.tier == "essential" and earlier.tier == "demo":
                raise _wrong_tier(seed, earlier)
            self.visit(earlier)
        del self._open[seed.identity]
        self.done[seed.identity] = seed


def _cycle(path: list[Seed], again: Seed) -> ConfigError:
    names = [each.identity for each in path]
    round_ = [*path[names.index(again.identity) :], again]
    lines = [
        f"{one.identity} ({one.place}) runs after {other.identity} ({other.place})"
        for one, other in itertools.pairwise(round_)
    ]
    return ConfigError(
        f"The seeders {round_[0].identity} and {round_[-2].identity} wait for each other"
        if len(lines) > 1
        else f"The seeder {again.identity} waits for itself",
        saw="\n".join(lines),
        source=f"after= at {round_[-2].place}",
        remedy="take one of these out of its seeder's `after`",
    )


def _wrong_tier(seed: Seed, earlier: Seed) -> ConfigError:
    return ConfigError(
        f"The essential seeder {seed.identity} is to run after the demo seeder {earlier.identity}",
        saw=f"{seed.identity} ({seed.place}) is essential\n{earlier.identity} ({earlier.place}) is demo",
        source=f"after= at {seed.place}",
        remedy="give both the same tier, or take it out of `after`: essential seeds run where demo seeds may not",
    )
