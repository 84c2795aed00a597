"""Ask this process's own connections what they have written and the server's counters do not show yet.

A backend adds to the counters when it goes idle, but at most once a second, and never inside a transaction. So an idle
connection is made to tell all, and one inside a transaction is asked what it holds back. Its transaction and its
mode of committing stay as they are. The driver's own locks, or the pool's, keep other threads away meanwhile. An
asynchronous connection is only used in the thread of its event loop, where no task can run at the same time.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import sys
import threading
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.disconnection import USED_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.pool import ConnectionPoolEntry

    Rows = list[tuple[Any, ...]] | None

Unflushed = dict[int, tuple[int, int, int]]
"""Rows inserted, updated and deleted, by table."""
Told = dict[int, Unflushed]
"""By backend, what it has committed or rolled back that the counters do not show. It has nothing else to tell."""

# In a transaction that is rolled back: nothing counts as committed.
_FLUSH: Final = "BEGIN; SELECT pg_catalog.pg_stat_force_next_flush(); ROLLBACK"
_UNFLUSHED: Final = """
SELECT o, i, u, d, (pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL)::int FROM (
    SELECT oid::int8 o, pg_catalog.pg_stat_get_xact_tuples_inserted(oid) i,
        pg_catalog.pg_stat_get_xact_tuples_updated(oid) u, pg_catalog.pg_stat_get_xact_tuples_deleted(oid) d
    FROM pg_catalog.pg_class WHERE relkind IN ('r', 't', 'm') OFFSET 0) counted
WHERE i + u + d <> 0
"""
_HEAD: Final = 5
"""Bytes before a message's body."""
_PATIENCE: Final = 0.02
"""Seconds for event loops of other threads, of all connections together."""


def ask_entries(entries: Iterable[ConnectionPoolEntry]) -> Told:
    """Ask the connections of SQLAlchemy's pools, idle or held."""
    told: Told = {}
    users = {entry: entry.info[USED_IN] for entry in entries if entry.driver_connection and USED_IN in entry.info}
    pools = {id(pool): pool for _, _, reference in users.values() if (pool := reference()) is not None}
    deadline = monotonic() + _PATIENCE
    with ExitStack() as stack:
        borrowed = [entry for pool in pools.values() for entry in stack.enter_context(_borrowed(pool))]
        for entry, (thread, loop, _) in users.items():
            driver: Any = entry.driver_connection
            if not hasattr(entry.dbapi_connection, "run_async"):
                told |= ask(driver, is_ours=thread == threading.get_ident() or entry in borrowed)
            elif not getattr(getattr(entry.dbapi_connection, "_execute_mutex", None), "locked", bool)():
                told |= _in_loop(getattr(driver, "_loop", loop), partial(ask, driver), deadline)
    return told


@contextmanager
def _borrowed(pool: Any) -> Iterator[list[ConnectionPoolEntry]]:  # noqa: ANN401 - a Pool and its private parts
    """The idle connections of a synchronous pool with a queue, taken out of it for the block."""
    entries: list[ConnectionPoolEntry] = []
    queue = None if pool._dialect.is_async else getattr(pool, "_pool", None)  # noqa: SLF001 - as above
    with contextlib.suppress(Exception):  # the queue is empty, or the pool is of another kind
        while queue is not None and len(entries) < queue.maxsize:
            entries.append(queue.get(block=False))
    try:
        yield entries
    finally:
        for entry in reversed(entries) if getattr(queue, "use_lifo", False) else entries:
            pool._do_return_conn(entry)  # noqa: SLF001 - without the events of a checkout


def _in_loop(loop: Any, function: Callable[[], Told], deadline: float) -> Told:  # noqa: ANN401 - an event loop
    """Call it in the thread that runs the loop; nothing where that is busy."""
    asyncio = sys.modules["asyncio"]
    if loop is None or not loop.is_running() or loop is asyncio._get_running_loop():  # noqa: SLF001 - the public one raises
        return function()
    answer: Future[Told] = Future()

    def call() -> None:
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(function())
            except BaseException:
                answer.set_result({})
                raise

    with contextlib.suppress(RuntimeError, TimeoutError, CancelledError):  # the loop has been closed since, or is busy
        loop.call_soon_threadsafe(call)
        return answer.result(max(0.0, deadline - monotonic()))
    return {} if answer.cancel() else answer.result()


def ask(driver: Any, *, is_ours: bool = True) -> Told:  # noqa: ANN401 - any driver's connection
    """Ask one connection; nothing where it cannot be asked now.

    ``is_ours`` says that no other thread can use it meanwhile. psycopg 3 has a lock for that.
    """
    with contextlib.suppress(Exception):  # it is broken, or of another version: then it has told nothing
        if hasattr(driver, "pgconn"):
            return _ask_psycopg(driver)
        if not is_ours:
            return {}
        if hasattr(driver, "get_transaction_status"):
            return _answer(driver.get_backend_pid(), driver.get_transaction_status() == 0, _psycopg2(driver))
        if hasattr(driver, "execute_simple"):
            backend = int.from_bytes(driver._backend_key_data[:4], "big")  # noqa: SLF001 - pg8000 shows it nowhere
            run = lambda statement: driver.execute_simple(statement).rows or []  # noqa: E731
            return _answer(backend, driver._transaction_status == b"I", run)  # noqa: SLF001 - as above
        if hasattr(driver, "get_server_pid"):
            return _answer(driver.get_server_pid(), not driver.is_in_transaction(), _asyncpg(driver))
    return {}


def _answer(backend: int, is_idle: bool, run: Callable[[str], Rows]) -> Told:
    if is_idle:
        return {} if run(_FLUSH) is None else {backend: {}}
    rows = run(_UNFLUSHED)
    # A transaction that writes is not over: what it wrote cannot be told from what earlier ones wrote.
    if rows is None or any(int(row[4]) for row in rows):
        return {}
    return {backend: {int(row[0]): (int(row[1]), int(row[2]), int(row[3])) for row in rows}}


def _ask_psycopg(driver: Any) -> Told:  # noqa: ANN401 - a psycopg 3 connection, sync or async
    """Below the connection's own Python object, and not while a thread or a task is in the middle of something."""
    pgconn = driver.pgconn

    def run(statement: str) -> Rows:
        result = pgconn.exec_(statement.encode())
        if result.error_message:
            return None
        return [tuple(result.get_value(row, column) for column in range(5)) for row in range(result.ntuples)]

    is_threaded = isinstance(driver.lock, type(threading.Lock()))  # the other kind is an asyncio.Lock
    if not driver.lock.acquire(blocking=False) if is_threaded else driver.lock.locked():
        return {}
    try:
        if pgconn.status or pgconn.pipeline_status or pgconn.transaction_status not in {0, 2}:
            return {}
        return _answer(pgconn.backend_pid, pgconn.transaction_status == 0, run)
    finally:
        if is_threaded:
            driver.lock.release()


def _psycopg2(driver: Any) -> Callable[[str], Rows]:  # noqa: ANN401 - a psycopg2 connection
    def run(statement: str) -> Rows:
        autocommit = driver.autocommit
        is_idle = statement == _FLUSH
        with driver.cursor(cursor_factory=sys.modules["psycopg2.extensions"].cursor) as cursor:
            try:
                if is_idle:
                    driver.autocommit = True
                cursor.execute(statement)
                return [] if is_idle else cursor.fetchall()
            finally:
                if is_idle:
                    driver.autocommit = autocommit

    return run


def _asyncpg(driver: Any) -> Callable[[str], Rows]:  # noqa: ANN401 - an asyncpg.Connection
    """What speaks the server's protocol on its idle socket: asyncpg itself runs nothing without its event loop."""
    transport = driver._transport  # noqa: SLF001 - asyncpg shows it nowhere

    def run(statement: str) -> Rows:
        if os.name != "posix" or transport.is_closing() or transport.get_extra_info("ssl_object"):
            return None
        number = transport.get_extra_info("socket").fileno()
        poll = select.poll()
        poll.register(number, select.POLLIN)
        if transport.get_write_buffer_size() or poll.poll(0):  # in the middle of something
            return None
        os.write(number, b"Q" + struct.pack("!i", len(statement) + 5) + statement.encode() + b"\0")
        rows: list[tuple[Any, ...]] = []
        data, is_over, has_failed = b"", False, False
        while not is_over:
            poll.poll()
            data += (read := os.read(number, 65536))
            if not read:
                return None
            while len(data) >= _HEAD and len(data) > (length := struct.unpack_from("!i", data, 1)[0]):
                kind, body, data = data[:1], data[5 : length + 1], data[length + 1 :]
                if kind == b"D":
                    rows.append(_values(body))
                has_failed, is_over = has_failed or kind == b"E", is_over or kind == b"Z"
        return None if has_failed else rows

    return run


def _values(body: bytes) -> tuple[bytes, ...]:
    """The columns of a DataRow message, none of them null."""
    values, at = [], 2
    while at < len(body):
        end = at + 4 + struct.unpack_from("!i", body, at)[0]
        values.append(body[at + 4 : end])
        at = end
    return tuple(values)
