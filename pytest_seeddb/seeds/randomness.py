"""Random numbers that depend on the seeder, or on the test, alone, and leave no trace in the process.

What a seeder draws must not depend on which seeders, tests or imports came before it; and a test
must not draw other numbers because a template happened to be built in its process.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import on_import
from pytest_seeddb.fingerprint.digests import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import ModuleType

    Seeding = Callable[[ModuleType, int], AbstractContextManager[None]]

__all__ = ["own_iterators", "own_randomness", "seed_for"]


def seed_for(random_seed: int, identity: str) -> int:
    """A seed of somebody's own: 64 bits over the plan's seed and a seeder's or a test's identity."""
    return int(digest(f"{random_seed}\0{identity}"), 16)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed `random`, Faker, factory_boy and NumPy; put all back afterwards.

    What nobody has imported yet is seeded when somebody does in the block; nothing is imported here.
    Generators that code makes for itself (``random.Random()``, ``Faker().seed_instance()``,
    ``numpy.random.default_rng()``) are its own affair, and so is what depends on ``PYTHONHASHSEED``.
    """
    with _python(seed), ExitStack() as stack:
        for name, seeding in _GENERATORS.items():
            stack.enter_context(on_import(name, partial(_seeded, stack, seeding, seed)))
        yield


def _seeded(stack: ExitStack, seeding: Seeding, seed: int, module: ModuleType) -> None:
    stack.enter_context(seeding(module, seed))


@contextmanager
def own_iterators() -> Iterator[None]:
    """Let each ``factory.Iterator`` start at its first value in the block, and go on afterwards where it was.

    Wherever it is: in a factory, its parameters and traits, or in a call.
    """
    with ExitStack() as stack:
        name = "factory.declarations"
        stack.enter_context(on_import(name, lambda module: stack.enter_context(_iterators(module))))
        yield


@contextmanager
def _python(seed: int) -> Iterator[None]:
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


@contextmanager
def _numpy(module: Any, seed: int) -> Iterator[None]:  # noqa: ANN401  # NumPy's, which has no stubs here
    state = module.get_state()
    module.seed(seed % 2**32)  # all that the legacy generator takes
    try:
        yield
    finally:
        module.set_state(state)


@contextmanager
def _faker(module: Any, seed: int) -> Iterator[None]:  # noqa: ANN401  # faker.generator
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
def _factory_random(module: Any, seed: int) -> Iterator[None]:  # noqa: ANN401  # factory.random
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
    met: dict[int, tuple[Any, int]] = {}

    @wraps(evaluate)
    def evaluated(self: Any, instance: object, step: object, extra: object) -> object:  # noqa: ANN401  # likewise
        if id(self) not in met:
            met[id(self)] = (self, _position(self.iterator))
            self.reset()
        # Not the outer block's: to that nothing has happened, since all is put back at this one's end.
        return evaluate(self, instance, step, extra)

    kind.evaluate = evaluated
    try:
        yield
    finally:
        kind.evaluate = outer
        for each, position in met.values():
            each.reset()
            _forward(each.iterator, position)


def _position(iterator: Any) -> int:  # noqa: ANN401  # factory.utils.ResetableIterator, which has no types
    return 0 if iterator is None else len(iterator.past_elements) - len(iterator.next_elements)


def _forward(iterator: Any, position: int) -> None:  # noqa: ANN401  # likewise
    for _ in range(position):
        iterator.next_elements.popleft()
