"""End the connections of SQLAlchemy's engines now, wherever they are held and whatever loop they belong to."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_HELD_BY: Final = "pytest_seeddb.holder"
USED_IN: Final = "pytest_seeddb.used_in"
_CUT: Final = "pytest_seeddb.cut"
_left: Final[list[Any]] = []
_PATIENCE: Final = 1.0
"""Seconds that another thread's loop has for closing a connection whose socket is shut already."""


class OpenConnections:
    """The connections that an engine has opened."""

    def __init__(self) -> None:
        self.entries: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()

    def close(self) -> None:
        """End them all; the pool opens new ones when it next needs them."""
        for entry in tuple(self.entries):
            discard(entry)


@contextlib.contextmanager
def track(engine: Engine) -> Iterator[OpenConnections]:
    """Follow an engine's connections for a block, and end them all at its end, held or not, without an event loop."""
    from sqlalchemy import event

    connections = OpenConnections()
    event.listen(engine, "connect", lambda _connection, entry: connections.entries.add(entry))
    event.listen(engine, "checkout", lambda _connection, entry, proxy: note_holder(entry, proxy))
    try:
        yield connections
    finally:
        connections.close()


def note_holder(entry: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
    """Remember who holds a connection, for `discard`, and in which thread, event loop and pool, for `ask_entries`."""
    asyncio: Any = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio else None  # noqa: SLF001 - the public one raises where none runs
    pool: Any = proxy._pool  # noqa: SLF001 - SQLAlchemy tells it nowhere else
    entry.info[_HELD_BY] = weakref.ref(proxy)
    entry.info[USED_IN] = (threading.get_ident(), loop, weakref.ref(pool))


def discard(entry: ConnectionPoolEntry) -> None:
    """Close the entry's connection; the pool opens a new one when it next needs it.

    Where another thread, or a task, is in the middle of a statement, only the socket is shut: freed under a running
    statement, psycopg's connection crashes the process, and psycopg2's would wait for the statement's end. Whoever
    runs it gets an error, and the connection is closed when it is given back.
    """
    driver = entry.driver_connection
    if driver is None:
        return
    thread = entry.info[USED_IN][0] if entry.in_use and USED_IN in entry.info else None
    if not (hang_up(driver) if _is_own(thread, driver) else cut(driver)):
        entry.info[_CUT] = True
        _left.append(driver)
        return
    # Whoever still holds it finds it invalidated: closing or rolling back is then no error.
    holder = entry.info.get(_HELD_BY, lambda: None)() if entry.in_use else None
    invalidate = entry.invalidate if holder is None else holder.invalidate
    with contextlib.suppress(Exception):  # another thread may be making it, or giving it back
        # SQLAlchemy closes psycopg's asynchronous connections by an await, which needs a greenlet around
        # it; asyncpg's it terminates without one. Synchronous ones must not ask for greenlet at all.
        if hasattr(driver, "pgconn") and hasattr(entry.dbapi_connection, "run_async"):
            _run_now(invalidate)
        else:
            invalidate()


def _is_own(thread: int | None, driver: object) -> bool:
    """Whether no other thread is inside of SQLAlchemy or the driver, as far as its connection does not tell itself."""
    if thread is None or thread == threading.get_ident() or hasattr(driver, "pgconn"):
        return True
    packages = {"sqlalchemy", type(driver).__module__.partition(".")[0]} - {"asyncpg"}  # which ends in its own loop
    names = (frame.f_globals.get("__name__", "") for frame in _stack(sys._current_frames().get(thread)))  # noqa: SLF001 - its documented name
    return not any(name.partition(".")[0] in packages for name in names)


def finish_left() -> None:
    """Close what `discard` left to others who have finished with it since, or were never heard of again."""
    left, _left[:] = [*_left], []
    _left.extend(driver for driver in left if hasattr(driver, "pgconn") and not driver.closed and not hang_up(driver))


def close_if_cut(_connection: object, entry: ConnectionPoolEntry) -> None:
    """Close what `discard` left to another thread when that gives it back: its pool may be gone by then."""
    if entry.info.get(_CUT):
        entry.invalidate()


def cut(driver: Any) -> bool:  # noqa: ANN401 - any driver's connection
    """Shut down a connection's socket, so that whoever waits for the server gets an error at once. Always false."""
    with contextlib.suppress(Exception):  # it may be closing by itself
        transport = getattr(driver, "_transport", None)  # asyncpg's; that of uvloop has no `shutdown`
        end = transport.get_extra_info("socket") if transport else getattr(driver, "_usock", driver)  # pg8000's, or own
        with socket.socket(fileno=os.dup(end.fileno())) as shared:
            shared.shutdown(socket.SHUT_RDWR)
    return False


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def empty_pool(engine: Engine) -> None:
    """Close the engine's idle connections now, also an asynchronous one's, whether its event loop runs or not."""
    from sqlalchemy import event

    if not engine.dialect.is_async:
        engine.dispose()
        return

    def on_close(_connection: object, entry: ConnectionPoolEntry) -> None:
        hang_up(entry.driver_connection)

    pool = engine.pool
    event.listen(pool, "close", on_close)
    try:
        _run_now(engine.dispose)
    finally:
        event.remove(pool, "close", on_close)  # also from the new pool, which took over its listeners


def close_sessions(covers: Callable[[Dialect], bool]) -> None:
    """Close the ORM sessions in the process with an engine that is covered; each can be used again.

    Otherwise whoever uses the session next flushes the objects that it was about to insert, a
    ``scoped_session`` of the application above all. The connections must have been ended before:
    closing then speaks to no server and needs no event loop.

    A session that the running code of another thread holds is that code's: it meets the end of its connection, and
    could not be closed without changing what is being used. The same holds for a task that waits inside of one.
    """
    module: Any = sys.modules.get("sqlalchemy.orm.session")
    covered = []
    # What SQLAlchemy's own close_all_sessions() goes through; each session's owner alone keeps it alive.
    for session in list(module._sessions.values()) if module else ():  # noqa: SLF001 - SQLAlchemy shows it nowhere
        binds = session.binds if hasattr(session, "binds") else session._Session__binds  # noqa: SLF001 - 2.0's name
        dialects = [bind.dialect for bind in (session.bind, *tuple(binds.values())) if bind is not None]
        if dialects := [dialect for dialect in dialects if covers(dialect)]:
            covered.append((session, any(dialect.is_async for dialect in dialects)))
    used = _held_by_other_threads() if covered else set()
    for session, is_async in covered:
        with contextlib.suppress(Exception):  # another thread, or a task, is in the middle of something with it
            if id(session) not in used and not _has_cut_connection(session):
                _run_now(session.close) if is_async else session.close()


def _has_cut_connection(session: Any) -> bool:  # noqa: ANN401 - a Session, whose parts SQLAlchemy shows nowhere
    connections = [row[0] for row in session._transaction._connections.values()] if session._transaction else []  # noqa: SLF001
    return any(_CUT in (getattr(connection._dbapi_connection, "record_info", None) or {}) for connection in connections)  # noqa: SLF001


def _held_by_other_threads() -> set[int]:
    """The ids of all that the local variables of other threads' running functions hold."""
    own = threading.get_ident()
    stacks = [_stack(frame) for thread, frame in sys._current_frames().items() if thread != own]  # noqa: SLF001 - as above
    return {id(value) for stack in stacks for frame in stack for value in tuple(frame.f_locals.values())}


def _run_now(function: Callable[[], object]) -> None:
    """Run a function of an asynchronous engine that awaits only what is finished already."""
    from sqlalchemy.util import greenlet_spawn

    coroutine = greenlet_spawn(function)
    try:
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
    finally:
        coroutine.close()


def hang_up(driver: Any) -> bool:  # noqa: ANN401 - any driver's connection
    """Close a connection at once, an asynchronous one without its event loop.

    False where a statement is running on it: then only its socket is shut.
    """
    if hasattr(driver, "pgconn"):
        # psycopg's own lock; that of an asynchronous connection is held across its awaits.
        lock = driver.lock
        acquired = hasattr(lock, "acquire_lock") and lock.acquire(blocking=False)
        if not acquired and lock.locked():
            return cut(driver)
        try:
            driver.pgconn.finish()
        finally:
            if acquired:
                lock.release()
    elif hasattr(driver, "terminate") and hasattr(driver, "_transport"):
        _hang_up_asyncpg(driver)
    return True


def _hang_up_asyncpg(driver: Any) -> None:  # noqa: ANN401 - an asyncpg.Connection
    """Its ``terminate`` leaves the socket open until its loop runs again, which may be never."""
    import asyncio

    transport, loop = driver._transport, getattr(driver, "_loop", None)  # noqa: SLF001 - asyncpg shows them nowhere
    cut(driver)
    try:
        running: object = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if loop is not None and loop.is_running() and loop is not running:
        # Another thread runs it, as Starlette's test client does; one that is busy closes it later.
        closed = threading.Event()
        with contextlib.suppress(RuntimeError):  # the loop has been closed since
            loop.call_soon_threadsafe(driver.terminate)
            loop.call_soon_threadsafe(closed.set)
            closed.wait(_PATIENCE)
        return
    with contextlib.suppress(RuntimeError):
        driver.terminate()
    # A closed loop can no longer free the socket, which would warn when it is collected.
    if loop is not None and loop.is_closed() and (own := getattr(transport, "_sock", None)) is not None:
        own.close()
        transport._sock = None  # noqa: SLF001 - what the loop would have done
