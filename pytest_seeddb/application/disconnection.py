"""End the connections of SQLAlchemy's engines now, wherever they are held and whatever loop they belong to."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_HELD_BY: Final = "pytest_seeddb.holder"
_PATIENCE: Final = 1.0
"""Seconds that another thread's loop has for closing a connection whose socket is shut already."""


class OpenConnections:
    """The connections that an engine has opened."""

    def __init__(self) -> None:
        self.entries: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()

    def drivers(self) -> list[Any]:
        """The driver's connections that are open."""
        return [entry.driver_connection for entry in tuple(self.entries) if entry.driver_connection is not None]

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
    """Remember who holds a connection, for `discard`."""
    entry.info[_HELD_BY] = weakref.ref(proxy)


def discard(entry: ConnectionPoolEntry) -> None:
    """Close the entry's connection; the pool opens a new one when it next needs it."""
    driver = entry.driver_connection
    if driver is None:
        return
    hang_up(driver)
    # Whoever still holds it finds it invalidated: closing or rolling back is then no error.
    holder = entry.info.get(_HELD_BY, lambda: None)() if entry.in_use else None
    invalidate = entry.invalidate if holder is None else holder.invalidate
    # SQLAlchemy closes psycopg's asynchronous connections by an await, which needs a greenlet around
    # it; asyncpg's it terminates without one. Synchronous ones must not ask for greenlet at all.
    if hasattr(driver, "pgconn") and hasattr(entry.dbapi_connection, "run_async"):
        _run_now(invalidate)
    else:
        invalidate()


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
    """Close every ORM session in the process with an engine that is covered; each can be used again.

    Otherwise whoever uses the session next flushes the objects that it was about to insert, a
    ``scoped_session`` of the application above all. The connections must have been ended before:
    closing then speaks to no server and needs no event loop.
    """
    module: Any = sys.modules.get("sqlalchemy.orm.session")
    # What SQLAlchemy's own close_all_sessions() goes through; each session's owner alone keeps it alive.
    for session in list(module._sessions.values()) if module else ():  # noqa: SLF001 - SQLAlchemy shows it nowhere
        binds = session.binds if hasattr(session, "binds") else session._Session__binds  # noqa: SLF001 - 2.0's name
        engines = [bind for bind in (session.bind, *binds.values()) if bind is not None and covers(bind.dialect)]
        if any(engine.dialect.is_async for engine in engines):
            _run_now(session.close)
        elif engines:
            session.close()


def _run_now(function: Callable[[], object]) -> None:
    """Run a function of an asynchronous engine that awaits only what is finished already."""
    from sqlalchemy.util import greenlet_spawn

    coroutine = greenlet_spawn(function)
    try:
        with contextlib.suppress(StopIteration):
            coroutine.send(None)
    finally:
        coroutine.close()


def hang_up(driver: Any) -> None:  # noqa: ANN401 - any driver's connection
    """Close an asynchronous driver's connection at once, without its event loop."""
    if hasattr(driver, "pgconn"):
        driver.pgconn.finish()
    elif hasattr(driver, "terminate") and hasattr(driver, "_transport"):
        _hang_up_asyncpg(driver)


def _hang_up_asyncpg(driver: Any) -> None:  # noqa: ANN401 - an asyncpg.Connection
    """Its ``terminate`` leaves the socket open until its loop runs again, which may be never."""
    import asyncio
    import threading

    transport, loop = driver._transport, getattr(driver, "_loop", None)  # noqa: SLF001 - asyncpg shows them nowhere
    with contextlib.suppress(OSError, AttributeError, TypeError, ValueError):
        number = os.dup(transport.get_extra_info("socket").fileno())  # uvloop's has no `shutdown`
        with socket.socket(fileno=number) as shared:
            shared.shutdown(socket.SHUT_RDWR)
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
