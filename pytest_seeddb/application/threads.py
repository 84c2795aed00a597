"""Threads of the project that a test left running: they must not reach a later test's database.

A thread asks an engine for a connection, and the engine leads to the database of the test that runs now. Threads of
servers, pools and event loops do work for many tests, whichever started them. So only those count whose own code is the
project's.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.fingerprint.places import Places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_outlived: Final[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()


@contextmanager
def own_threads(root: Path) -> Iterator[None]:
    """The project's threads that are started in the block belong to it: after it `has_outlived` is true in them."""
    earlier = weakref.WeakSet(threading.enumerate())
    try:
        yield
    finally:
        started = [thread for thread in threading.enumerate() if thread not in earlier]
        if started:
            places = Places(root)
            _outlived.update(thread for thread in started if _runs_code_of(places, thread))


def has_outlived() -> bool:
    """Whether the thread that is running was started in a block of `own_threads` that has ended."""
    return bool(_outlived) and threading.current_thread() in _outlived


def _runs_code_of(places: Places, thread: threading.Thread) -> bool:
    # A timer's function, the target, or the class's own method; the first two names are gone when the thread has ended.
    function: Any = getattr(thread, "function", None) or getattr(thread, "_target", None) or type(thread).run
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return code is not None and bool(places.source_of(code.co_filename, str(getattr(function, "__module__", ""))))
