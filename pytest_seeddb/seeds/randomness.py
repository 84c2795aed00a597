"""Random numbers that depend on the seeder or the test alone, and leave no trace in the process."""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import enter_on_import
from pytest_seeddb.fingerprint.digests import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Seeding = Callable[[int, Any], AbstractContextManager[None]]


def seed_for(random_seed: int, identity: str) -> int:
    """The seed of one seeder or test: 64 bits over the plan's seed and its identity."""
    return int(digest(f"{random_seed}\0{identity}"), 16)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed `random`, Faker, factory_boy and NumPy, whenever they are imported; put all back. Other generators stay."""
    with ExitStack() as stack:
        stack.callback(random.setstate, random.getstate())
        random.seed(seed)
        for name, seeding in _GENERATORS.items():
            stack.enter_context(enter_on_import(name, partial(seeding, seed)))
        yield


def own_iterators() -> AbstractContextManager[None]:
    """Let each ``factory.Iterator`` start at its first value in the block, and go on afterwards where it was."""
    return enter_on_import("factory.declarations", _iterators)


@contextmanager
def _numpy(seed: int, module: Any) -> Iterator[None]:  # noqa: ANN401  # NumPy's, which has no stubs here
    state = module.get_state()
    module.seed(seed % 2**32)  # all that the legacy generator takes
    try:
        yield
    finally:
        module.set_state(state)


@contextmanager
def _faker(seed: int, module: Any) -> Iterator[None]:  # noqa: ANN401  # faker.generator
    shared, generator = module.random, module.Generator
    state = shared.getstate()
    before = (generator._global_seed, generator._is_seeded)  # noqa: SLF001  # no getter
    generator.seed(seed)
    try:
        yield
    finally:
        shared.setstate(state)
        generator._global_seed, generator._is_seeded = before  # noqa: SLF001  # no setter


@contextmanager
def _factory_random(seed: int, module: Any) -> Iterator[None]:  # noqa: ANN401  # factory.random
    # Not its get_random_state(): that sets Faker's generator while it looks.
    own = module.randgen
    before = (own.getstate(), own.state_set)
    own.seed(seed)
    own.state_set = True
    try:
        yield
    finally:
        own.setstate(before[0])
        own.state_set = before[1]


_GENERATORS: Final[dict[str, Seeding]] = {
    "numpy.random": _numpy,
    "faker.generator": _faker,
    "factory.random": _factory_random,
}
"""The modules that keep a generator for the whole process."""


@contextmanager
def _iterators(module: Any) -> Iterator[None]:  # noqa: ANN401  # factory.declarations
    kind, outer = module.Iterator, module.Iterator.evaluate
    evaluate = getattr(outer, "__wrapped__", outer)
    positions: dict[int, tuple[Any, int]] = {}

    @wraps(evaluate)
    def evaluate_from_first(self: Any, instance: object, step: object, extra: object) -> object:  # noqa: ANN401
        if id(self) not in positions:
            iterator = self.iterator  # factory.utils.ResetableIterator
            position = len(iterator.past_elements) - len(iterator.next_elements) if iterator else 0
            positions[id(self)] = (self, position)
            self.reset()
        # Not the outer block's: to that nothing has happened, since all is put back at this one's end.
        return evaluate(self, instance, step, extra)

    kind.evaluate = evaluate_from_first
    try:
        yield
    finally:
        kind.evaluate = outer
        for declaration, position in positions.values():
            declaration.reset()
            for _ in range(position):
                declaration.iterator.next_elements.popleft()
