"""factory_boy's sequence counters: they start where those of the template's seeders, in another process, were left."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import enter_on_import

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from pytest_seeddb.plan.numbering import Drawn

_INITIALIZE: Final = "_initialize_counter"
_RESET: Final = "reset_sequence"

_changing: Final = threading.RLock()
_active: Final[list[Counters]] = []
_originals: Final[dict[str, Any]] = {}


class Counters:
    """The counters of all factories inside of one block; ``left`` has the next number of each, by its path."""

    def __init__(self, start: Mapping[str, int]) -> None:
        self._start = dict(start)
        self.left: dict[str, int] = dict(start)

    def start_again(self) -> None:
        """Put every counter back to where the block began."""
        for options in _every_options():
            options._counter = None  # noqa: SLF001 - what factory_boy itself starts with

    def draws(self) -> Drawn:
        """What was drawn in the block, of the factories that drew."""
        self.note(*_every_options())
        spans = {path: (self._start.get(path, 0), left) for path, left in self.left.items()}
        return {path: (first, following) for path, (first, following) in spans.items() if following > first}

    def note(self, *every: Any) -> None:
        """Take down where the factories' counters are; a parent's and its children's is the parent's."""
        for options in every:
            counter = options._counter  # noqa: SLF001 - factory_boy shows it nowhere
            if counter is not None:
                path = _path(options.counter_reference)
                self.left[path] = max(self.left.get(path, 0), counter.seq)

    def advance(self, options: Any) -> None:  # noqa: ANN401 - as above
        """Let a counter that just began begin where the block says."""
        least = self._start.get(_path(options.counter_reference), 0)
        if least:
            options._counter.seq = max(options._counter.seq, least)  # noqa: SLF001 - as above


def draws_so_far() -> Drawn | None:
    """What was drawn in the innermost block; ``None`` outside of one."""
    return _active[-1].draws() if _active else None


@contextmanager
def sequences_from(start: Mapping[str, int]) -> Iterator[Counters]:
    """Inside the block, each factory's counter begins where ``start`` says, by its path, else as factory_boy does.

    That holds for factories that are declared in the block, and for ``reset_sequence()`` without a number. A factory's
    own ``_setup_next_sequence`` counts where it gives more. Afterwards all counters are as before. Imports nothing.
    """
    counters = Counters(start)
    with enter_on_import("factory.base", lambda module: _count(module, counters)):
        yield counters


@contextmanager
def _count(module: ModuleType, counters: Counters) -> Iterator[None]:
    kind: Any = module.FactoryOptions
    before = [(options, options._counter) for options in _every_options()]  # noqa: SLF001 - as above
    counters.start_again()
    with _changing:
        _active.append(counters)
        if len(_active) == 1:
            _hook(kind)
    try:
        yield
    finally:
        counters.note(*_every_options())
        with _changing:
            _active.remove(counters)
            if not _active:
                for name, original in _originals.items():
                    setattr(kind, name, original)
        counters.start_again()  # also those that were declared meanwhile
        for options, counter in before:
            options._counter = counter  # noqa: SLF001 - as above


def _hook(kind: Any) -> None:  # noqa: ANN401 - the class factory.base.FactoryOptions
    _originals.update({name: vars(kind)[name] for name in (_INITIALIZE, _RESET)})
    original_initialize, original_reset = _originals.values()

    def initialize(self: Any) -> None:  # noqa: ANN401 - as above
        if self._counter is None:
            original_initialize(self)
            if _active:
                _active[-1].advance(self)

    def reset(self: Any, value: int | None = None, force: bool = False) -> None:  # noqa: ANN401
        if _active:
            _active[-1].note(self)
        original_reset(self, value, force)
        if value is None and _active:
            _active[-1].advance(self)

    setattr(kind, _INITIALIZE, initialize)
    setattr(kind, _RESET, reset)


def _every_options() -> list[Any]:
    """The options of every factory class that there is; none where factory_boy is not imported."""
    module: Any = sys.modules.get("factory.base")
    options: dict[type, Any] = {}
    waiting: list[Any] = [] if module is None else [module.BaseFactory]
    while waiting:
        factory = waiting.pop()
        if factory not in options:
            options[factory] = getattr(factory, "_meta", None)
            waiting.extend(type.__subclasses__(factory))
    return [one for one in options.values() if one is not None]


def _path(options: Any) -> str:  # noqa: ANN401 - as above
    return f"{options.factory.__module__}:{options.factory.__qualname__}" if options.factory else ""
