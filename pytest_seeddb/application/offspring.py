"""The threads and child processes that a test, or a block, starts: what of it may come back after its end.

Of a child process nobody can tell whether it still runs, nor what it knows: the address of a test's database may have
left with it, in a variable or in memory. A thread asks an engine for a connection, and the engine leads to the
database of the test that runs then. Threads of servers, pools and event loops do work for many tests, whichever
started them, so those only are kept from a later test's database whose own code is the project's.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import weakref
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.fingerprint.places import Places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_CHILDREN: Final = frozenset(
    {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system"}
)
"""The audit events (PEP 578) of another program. C code that makes one calls the hooks of `os.register_at_fork`."""

listeners: Final[list[Callable[[Sequence[str], str], None]]] = []
"""What hears of the command and the directory of each `subprocess`."""

_started = 0
_outlived: Final[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()


class Offspring:
    """What was started in this process since this was made. True where any of it may still be there."""

    def __init__(self) -> None:
        _listen()
        self._children = _children()
        self._earlier = weakref.WeakSet(threading.enumerate())

    def __contains__(self, thread: threading.Thread) -> bool:
        return thread not in self._earlier

    def __bool__(self) -> bool:
        return self._children != _children() or bool(self.threads())

    def threads(self) -> list[threading.Thread]:
        """The threads that run now."""
        return [thread for thread in threading.enumerate() if thread in self]

    def end(self, root: Path) -> None:
        """From now on `has_outlived` is true in the threads that run the project's own code."""
        if threads := self.threads():
            places = Places(root)
            _outlived.update(thread for thread in threads if _runs_code_of(places, thread))


def has_outlived() -> bool:
    """Whether the thread that is running was started before the `end` of what started it."""
    return bool(_outlived) and threading.current_thread() in _outlived


def _runs_code_of(places: Places, thread: threading.Thread) -> bool:
    # A timer's function, the target, or the class's own method; the first two names are gone when the thread has ended.
    function: Any = getattr(thread, "function", None) or getattr(thread, "_target", None) or type(thread).run
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return code is not None and bool(places.source_of(code.co_filename, str(getattr(function, "__module__", ""))))


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


def _on_event(event: str, arguments: tuple[Any, ...], *, children: frozenset[str] = _CHILDREN) -> None:
    # When the interpreter ends, events still come, and find no names of this module any more.
    if (event not in children and event != "_thread.start_new_thread") or not callable(_count):
        return
    # `threading` lists its own threads; of one that is started without it nobody can say when it ends.
    is_unlisted = event == "_thread.start_new_thread" and not isinstance(
        getattr(arguments[0], "__self__", None), threading.Thread
    )
    if event in children or is_unlisted:
        _count()
    if event == "subprocess.Popen" and listeners:
        with suppress(Exception):  # an error here would be raised by the user's own call
            words, directory = arguments[1:3]
            command = [words] if isinstance(words, str | bytes | os.PathLike) else words
            for hear in listeners:
                hear([os.fsdecode(word) for word in command], os.fsdecode(directory or ""))


def _count() -> None:
    global _started  # noqa: PLW0603 - of the whole process
    _started += 1


def _children() -> tuple[int, str]:
    """Changes with each child process: multiprocessing's own way to spawn one has neither event nor hook."""
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    return _started, repr(getattr(multiprocessing, "_process_counter", ""))
