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
from typing import Any, Final

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

    def note(self) -> None:
        """The address was read."""
        self._was_read = True

    def __bool__(self) -> bool:
        return (
            self._was_read
            or self._children != _children()
            or any(thread not in self._threads for thread in threading.enumerate())
        )


@cache
def _listen() -> None:
    sys.addaudithook(_on_event)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_count)
    if sys.version_info < (3, 12):  # it announces no thread; `threading` keeps a reference to the function itself
        start = _thread.start_new_thread

        def start_and_count(*arguments: Any) -> int:
            _count()
            return start(*arguments)

        _thread.start_new_thread = start_and_count


def _on_event(event: str, arguments: tuple[object, ...]) -> None:
    # `threading` lists its own threads; of one that is started without it nobody can say when it ends.
    is_unlisted = event == "_thread.start_new_thread" and not isinstance(
        getattr(arguments[0], "__self__", None), threading.Thread
    )
    if event in _CHILDREN or is_unlisted:
        _count()


def _count() -> None:
    global _started  # noqa: PLW0603 - of the whole process
    _started += 1


def _children() -> tuple[int, str]:
    """Changes with each child process: multiprocessing's own way to spawn one has neither event nor hook."""
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    return _started, repr(getattr(multiprocessing, "_process_counter", ""))
