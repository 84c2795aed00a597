"""Act on a module of somebody else's as soon as it is there, without being the one who imports it."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Action = Callable[[ModuleType], object]

_changing: Final = threading.RLock()
_awaited: Final[list[tuple[str, Action]]] = []


@contextmanager
def once_imported(name: str, action: Action) -> Iterator[None]:
    """Call ``action`` with the module ``name``: at once if it is imported, else when that happens in the block.

    Args:
        name: The dotted name.
        action: Runs in the thread that imports, after the module's own code. What it raises fails the import.
    """
    module = sys.modules.get(name)
    if module is not None:
        action(module)
        yield
        return
    entry = (name, action)
    _await(entry)
    try:
        yield
    finally:
        _forget(entry)


def _await(entry: tuple[str, Action]) -> None:
    with _changing:
        _awaited.append(entry)
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)


def _forget(entry: tuple[str, Action]) -> None:
    with _changing:
        _awaited.remove(entry)
        if not _awaited and _FINDER in sys.meta_path:
            sys.meta_path.remove(_FINDER)


class _Finder:
    """Stands before the other finders, finds nothing itself, and has the loader that they find tell us."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if all(name != awaited for awaited, _ in _awaited):
            return None
        for finder in sys.meta_path:
            find: Any = getattr(finder, "find_spec", None)
            if finder is not self and find and (spec := find(name, path, target)) is not None:
                _announce(name, spec.loader)
                found: ModuleSpec = spec
                return found
        return None


def _announce(name: str, loader: Any) -> None:  # noqa: ANN401 - many kinds
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        if module.__name__ != name:  # a loader may serve many modules: that of a zip file does
            execute(module)
            return
        del loader.exec_module
        execute(module)
        for action in [action for awaited, action in _awaited if awaited == name]:
            action(module)

    # On the instance: whoever asks the module for its loader later finds the one that belongs there.
    loader.exec_module = exec_module


_FINDER: Final[Any] = _Finder()
