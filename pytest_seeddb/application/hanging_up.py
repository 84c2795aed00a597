"""End the connections of an engine's pool now, wherever they are held and whatever loop they belong to."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_HELD_BY: Final = "pytest_seeddb.holder"
_PATIENCE: Final = 1.0
"""Seconds that another thread's loop has for closing a connection whose socket is shut already."""


class Opened:
    """The connections that an engine has opened."""

    def __init__(self) -> None:
        self._entries: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()

    def add(self, entry: ConnectionPoolEntry) -> None:
        """Remember a connection's place in the pool."""
        self._entries.add(entry)

    def drivers(self) -> list[Any]:
        """The driver's connections that are open."""
        return [entry.driver_connection for entry in tuple(self._entries) if entry.driver_connection is not None]

    def close(self) -> None:
        """End them all; the pool opens new ones when it next needs them."""
        for entry in tuple(self._entries):
            discard(entry)


@contextmanager
def tracked(engine: Engine) -> Iterator[Opened]:
    """Follow an engine's connections for a block, and end them all at its end, held or not.

    Needs no event loop, so that a synchronous fixture can tidy up after an asynchronous test.
    """
    from sqlalchemy import event

    opened = Opened()

    def on_connect(_connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        opened.add(entry)

    def on_checkout(_connection: DBAPIConnection, entry: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        note_holder(entry, proxy)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "checkout", on_checkout)
    try:
        yield opened
    finally:
        opened.close()


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
        run_now(invalidate)
    else:
        invalidate()


def run_now(function: Callable[[], object]) -> None:
    """Run a function of an asynchronous engine's that awaits only what is finished already."""
    from sqlalchemy.util import greenlet_spawn

    running = greenlet_spawn(function)
    try:
        with contextlib.suppress(StopIteration):
            running.send(None)
    finally:
        running.close()


def hang_up(driver: Any) -> None:  # noqa: ANN401 - any driver's connection
    """Close an asynchronous driver's connection at once, without its event loop."""
    if hasattr(driver, "pgconn"):
        driver.pgconn.finish()
    elif hasattr(driver, "terminate") and hasattr(driver, "_transport"):
        _hang_up_asyncpg(driver)


def _hang_up_asyncpg(driver: Any) -> None:  # noqa: ANN401 - an asyncpg.Connection
    """Its ``terminate`` leaves the socket open until its loop runs again, which may be never."""
    transport, loop = driver._transport, getattr(driver, "_loop", None)  # noqa: SLF001 - asyncpg shows them nowhere
    _shut_down(transport)
    if loop is not None and _runs_elsewhere(loop):
        _done_by(loop, driver.terminate)
        return
    # A closed loop can no longer be told; what it would have done is done here.
    with contextlib.suppress(RuntimeError):
        driver.terminate()
    if loop is not None and loop.is_closed():
        _close_transport(transport)


def _runs_elsewhere(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether another thread runs it, as Starlette's test client has one."""
    import asyncio

    try:
        own: object = asyncio.get_running_loop()
    except RuntimeError:
        own = None
    return loop.is_running() and loop is not own


def _done_by(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Have a loop of another thread do it; one that is busy does it later."""
    import threading

    done = threading.Event()

    def run() -> None:
        try:
            function()
        finally:
            done.set()

    with contextlib.suppress(RuntimeError):  # closed since
        loop.call_soon_threadsafe(run)
        done.wait(_PATIENCE)


def _shut_down(transport: Any) -> None:  # noqa: ANN401 - asyncio's or uvloop's
    with contextlib.suppress(OSError, AttributeError, TypeError, ValueError):
        shown = transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(shown.fileno())) as shared:
            shared.shutdown(socket.SHUT_RDWR)


def _close_transport(transport: Any) -> None:  # noqa: ANN401 - likewise
    """Free the socket of a transport whose loop is closed, which would warn when it is collected."""
    held = getattr(transport, "_sock", None)
    if held is not None:
        held.close()
        transport._sock = None  # noqa: SLF001 - what the loop would have done
