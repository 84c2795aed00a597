"""factory_boy's sequence counters: where they start, and where they were left.

A counter is a number in the process, and knows nothing of rows that other processes made. So what a
plan's seeders left is kept with the template, and whoever comes after them starts there.
"""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import on_import

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from pytest_seeddb.plan.numbering import Drawn

__all__ = ["Counters", "drawn_now", "going_on"]

_INITIALIZE: Final = "_initialize_counter"
_RESET: Final = "reset_sequence"

_changing: Final = threading.RLock()
_active: Final[list[Counters]] = []


class Counters:
    """The counters of all factories inside of one block.

    Attributes:
        left: For each factory that was used, by its path (``shop.factories:CustomerFactory``), the next
            number. Filled when the block ends.
    """

    def __init__(self, start: Mapping[str, int]) -> None:
        self._start = dict(start)
        self.left: dict[str, int] = dict(start)

    def least(self, options: Any) -> int:  # noqa: ANN401 - factory.base.FactoryOptions
        """The smallest number that the factory may begin with."""
        return self._start.get(_path(options), 0)

    def start_again(self) -> None:
        """Put every counter back to where the block began."""
        for options in _every_options():
            options._counter = None  # noqa: SLF001 - what factory_boy itself starts with

    def note(self) -> None:
        """Take down where the counters are now; never less than before."""
        for options in _every_options():
            self.note_one(options)

    def drawn(self) -> Drawn:
        """What was drawn in the block, of the factories that drew."""
        self.note()
        spans = {path: (self._start.get(path, 0), left) for path, left in self.left.items()}
        return {path: (first, following) for path, (first, following) in spans.items() if following > first}

    def note_one(self, options: Any) -> None:  # noqa: ANN401 - factory.base.FactoryOptions
        """Take down where one counter is; a parent's and its children's is the parent's."""
        counter = options._counter  # noqa: SLF001 - factory_boy shows it nowhere
        if counter is not None:
            path = _path(options.counter_reference)
            self.left[path] = max(self.left.get(path, 0), counter.seq)


def drawn_now() -> Drawn | None:
    """What was drawn so far in the innermost block; ``None`` outside of one."""
    return _active[-1].drawn() if _active else None


@contextmanager
def going_on(start: Mapping[str, int]) -> Iterator[Counters]:
    """Inside the block, each factory's counter begins where ``start`` says, else as factory_boy does.

    That holds for factories that are declared or imported in the block, and for
    ``Factory.reset_sequence()`` without a number. A factory that works its first number out
    (``_setup_next_sequence``) does so, and begins there if that is more. Parents and children that
    share a counter go on sharing it. Afterwards all counters are as before. Imports nothing.

    Args:
        start: Numbers by path, as `Numbering.start` gives them.
    """
    counters = Counters(start)
    with ExitStack() as stack:
        stack.enter_context(on_import("factory.base", lambda module: stack.enter_context(_counted(module, counters))))
        yield counters


@contextmanager
def _counted(module: ModuleType, counters: Counters) -> Iterator[None]:
    before = [(options, options._counter) for options in _every_options()]  # noqa: SLF001 - as above
    counters.start_again()
    with _changing:
        _active.append(counters)
        if len(_active) == 1:
            _hook(module.FactoryOptions)
    try:
        yield
    finally:
        counters.note()
        with _changing:
            _active.remove(counters)
            if not _active:
                _unhook(module.FactoryOptions)
        counters.start_again()  # also those that were declared meanwhile
        for options, counter in before:
            options._counter = counter  # noqa: SLF001 - as above


_factory_boys: Final[dict[str, Any]] = {}


def _hook(options_class: Any) -> None:  # noqa: ANN401 - factory.base.FactoryOptions
    _factory_boys.update({name: vars(options_class)[name] for name in (_INITIALIZE, _RESET)})
    initialize, reset = _factory_boys[_INITIALIZE], _factory_boys[_RESET]

    def initialized(self: Any) -> None:  # noqa: ANN401 - likewise
        if self._counter is None:
            initialize(self)
            _raise(self)

    def reset_sequence(self: Any, value: int | None = None, force: bool = False) -> None:  # noqa: ANN401
        if _active:
            _active[-1].note_one(self)
        reset(self, value, force)
        if value is None:
            _raise(self)

    setattr(options_class, _INITIALIZE, initialized)
    setattr(options_class, _RESET, reset_sequence)


def _raise(options: Any) -> None:  # noqa: ANN401 - likewise
    """Let a counter that just began begin where it may."""
    if _active:
        counter, least = options._counter, _active[-1].least(options.counter_reference)  # noqa: SLF001 - as above
        if least:
            counter.seq = max(counter.seq, least)


def _unhook(options_class: Any) -> None:  # noqa: ANN401 - likewise
    for name, original in _factory_boys.items():
        setattr(options_class, name, original)


def _every_options() -> list[Any]:
    """The options of every factory class that there is; none where nobody imported factory_boy."""
    module: Any = sys.modules.get("factory.base")
    found: dict[type, Any] = {}
    waiting: list[Any] = [] if module is None else [module.BaseFactory]
    while waiting:
        factory = waiting.pop()
        if factory not in found:
            found[factory] = getattr(factory, "_meta", None)
            waiting.extend(type.__subclasses__(factory))
    return [options for options in found.values() if options is not None]


def _path(options: Any) -> str:  # noqa: ANN401 - likewise
    return f"{options.factory.__module__}:{options.factory.__qualname__}" if options.factory else ""
