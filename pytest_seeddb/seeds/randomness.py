"""Random numbers that depend on the seeder alone, and leave no trace in the process.

What a seeder draws must not depend on which seeders, tests or imports came before it; and a test
must not draw other numbers because a template happened to be built in its process.
"""

from __future__ import annotations

import random
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pytest_seeddb.fingerprint import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["own_randomness", "seed_for"]


def seed_for(random_seed: int, identity: str) -> int:
    """A seeder's own seed: 64 bits over the plan's seed and the seeder's identity."""
    return int(digest(f"{random_seed}\0{identity}"), 16)


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed `random`, Faker, factory_boy and, where it is imported, NumPy; put all back afterwards.

    factory_boy's sequences and iterators start anew inside the block. Generators that code makes
    for itself (``random.Random()``, ``Faker().seed_instance()``, ``numpy.random.default_rng()``)
    are its own affair, and so is what depends on ``PYTHONHASHSEED``.
    """
    with ExitStack() as stack:
        for each in (_python, _numpy, _faker, _factory_random, _sequences, _iterators):
            stack.enter_context(each(seed))
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
def _numpy(seed: int) -> Iterator[None]:
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is None:
        yield
        return
    state = numpy.get_state()
    numpy.seed(seed % 2**32)  # all that the legacy generator takes
    try:
        yield
    finally:
        numpy.set_state(state)


@contextmanager
def _faker(seed: int) -> Iterator[None]:
    # Imported here even if nobody has: a seeder may import it in its body, and would then draw from
    # a generator that nobody seeded. It comes with factory_boy, which we depend on.
    from faker import generator

    shared: random.Random = generator.random
    state = shared.getstate()
    before = (generator.Generator._global_seed, generator.Generator._is_seeded)  # noqa: SLF001  # no getter
    generator.Generator.seed(seed)
    try:
        yield
    finally:
        shared.setstate(state)
        generator.Generator._global_seed, generator.Generator._is_seeded = before  # noqa: SLF001  # no setter


@contextmanager
def _factory_random(seed: int) -> Iterator[None]:
    # Not factory.random.get_random_state(): it sets Faker's generator while it looks.
    from factory import random as factory_random

    own: Any = factory_random.randgen
    before = (own.getstate(), own.state_set)
    own.seed(seed)
    own.state_set = True
    try:
        yield
    finally:
        own.setstate(before[0])
        own.state_set = before[1]


@contextmanager
def _sequences(_seed: int) -> Iterator[None]:
    """Forget all counters, so that each starts again at its first use.

    `Factory.reset_sequence` would ask ``_setup_next_sequence`` at once; a seeder's session, which
    that may look into, is only there when the seeder runs.
    """
    counters = [(options, options._counter) for options in _factories()]  # noqa: SLF001  # see above
    for options, _ in counters:
        options._counter = None  # noqa: SLF001  # what factory_boy itself starts with
    try:
        yield
    finally:
        for options in _factories():
            options._counter = None  # noqa: SLF001  # of those declared meanwhile
        for options, counter in counters:
            options._counter = counter  # noqa: SLF001  # as it was


@contextmanager
def _iterators(_seed: int) -> Iterator[None]:
    before = _declared_iterators()
    positions = {key: _position(each.iterator) for key, each in before.items()}
    for each in before.values():
        each.reset()
    try:
        yield
    finally:
        for key, each in _declared_iterators().items():
            each.reset()
            _forward(each.iterator, positions.get(key, 0))


def _position(iterator: Any) -> int:  # noqa: ANN401  # factory.utils.ResetableIterator, which has no types
    return 0 if iterator is None else len(iterator.past_elements) - len(iterator.next_elements)


def _forward(iterator: Any, position: int) -> None:  # noqa: ANN401  # likewise
    for _ in range(position):
        iterator.next_elements.popleft()


def _declared_iterators() -> dict[int, Any]:
    """The ``factory.Iterator`` of every factory, by identity: subclasses share those of their parents."""
    from factory.declarations import Iterator as FactoryIterator

    return {
        id(each): each
        for options in _factories()
        for each in options.base_declarations.values()
        if isinstance(each, FactoryIterator)
    }


def _factories() -> list[Any]:
    """The options of every factory class that there is."""
    from factory.base import BaseFactory

    found: dict[type, Any] = {}
    waiting: list[Any] = [BaseFactory]
    while waiting:
        factory = waiting.pop()
        if factory not in found:
            found[factory] = getattr(factory, "_meta", None)
            waiting.extend(type.__subclasses__(factory))
    return [options for options in found.values() if options is not None]
