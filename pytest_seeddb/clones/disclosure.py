"""Whether the address of a test's database may have left this process, so that somebody may come back with it.

An address leaves by being read, or with a child process or a thread that outlives the test: they may know it from a
variable, from an engine, or from this process's memory. Which of them do is not asked. A connection that was opened
here gives nothing away, as it ends with the test.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import weakref
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_CHILDREN: Final = frozenset(
    {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system"}
)
"""The audit events (PEP 578) of another program. C code that makes one calls the hooks of `os.register_at_fork`."""

_started = 0


class Disclosure:
    """What may have given an address away since this was made."""

    def __init__(self) -> None:
        _listen()
        self._was_read = False
        self._children = _children()
        self._threads = weakref.WeakSet(threading.enumerate())
        self._unlisted = _unlisted_threads()

    def note(self) -> None:
        """The address was read."""
        self._was_read = True

    def __bool__(self) -> bool:
        return (
            self._was_read
            or self._children != _children()
            or self._unlisted < _unlisted_threads()
            or any(thread not in self._threads for thread in threading.enumerate())
        )


@cache
def _listen() -> None:
    sys.addaudithook(_on_event)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_count)


def _on_event(event: str, _arguments: tuple[object, ...]) -> None:
    if event in _CHILDREN:
        _count()


def _count() -> None:
    global _started  # noqa: PLW0603 - of the whole process
    _started += 1


def _children() -> tuple[int, str]:
    """Changes with each child process: multiprocessing's own way to spawn one has neither event nor hook."""
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    return _started, repr(getattr(multiprocessing, "_process_counter", ""))


def _unlisted_threads() -> int:
    """How many threads run that `threading` does not list."""
    counted: Callable[[], int] = getattr(_thread, "_count", lambda: 0)
    return counted() - threading.active_count()
