"""Ways to write to a test's database: by each driver, pooled, held, left in a transaction, closed, and by strangers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextlib import ExitStack, contextmanager

import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from pytest_seeddb.application.redirection import redirect
from pytest_seeddb.clones.engines import open_async_engine, open_engine

NOWHERE = "postgresql+{}://nobody@nowhere.invalid/nothing"
SYNC = ("psycopg", "psycopg2", "pg8000")
ASYNC = ("asyncpg", "psycopg_async")
WAYS = (*SYNC, *ASYNC, "seeded_engine", "seeded_async_engine", "connect", "stranger")
ENDS = ("pooled", "closed", "held", "reading", "failed", "writing")
"""What becomes of a connection after its work: given back, ended, held without a transaction, left in one."""

LEFT_BY = {
    "reading": "SELECT 1",
    "writing": "INSERT INTO log (what) VALUES ('not committed')",
    "failed": "SELECT 1 / 0",
}
"""The statement that leaves it in a transaction."""


class Loop:
    """An event loop: in a thread of its own, as a test client's, or between two steps of the test."""

    def __init__(self, *, threaded):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever) if threaded else None
        if self.thread:
            self.thread.start()

    def run(self, coroutine):
        if self.thread:
            return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)
        return self.loop.run_until_complete(coroutine)

    def close(self):
        if self.thread:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


class Writers:
    """All ways to write to one database, the application's engines redirected to it."""

    def __init__(self, database, stack, *, threaded=False):
        self.database = database
        self.loop = Loop(threaded=threaded)
        stack.callback(self.loop.close)
        self.engines = {name: create_engine(NOWHERE.format(name)) for name in SYNC}
        self.async_engines = {name: create_async_engine(NOWHERE.format(name)) for name in ASYNC}
        every = [*self.engines.values(), *(engine.sync_engine for engine in self.async_engines.values())]
        redirection = stack.enter_context(redirect(database.address, every))
        database.before_changes(redirection.ask)
        self.engines["seeded_engine"] = stack.enter_context(open_engine(database))
        self.async_engines["seeded_async_engine"] = stack.enter_context(open_async_engine(database))
        self.held = []
        stack.callback(self.close)

    def work(self, way, statements, end, *, commit=True):
        """Run statements in a transaction of their own, and leave the connection as ``end`` says.

        Returns the number of rows that the last one read or wrote.
        """
        if way in self.async_engines:
            return self.loop.run(self._work_async(self.async_engines[way], statements, end, commit=commit))
        if way in self.engines:
            connection = self.engines[way].connect()
        elif way == "connect":
            connection = self.database.connect()
        else:
            connection = psycopg.connect(self.database.conninfo)
        run = lambda statement: connection.execute(text(statement) if way in self.engines else statement)  # noqa: E731
        try:
            results = [run(statement) for statement in statements]
        except Exception:
            connection.close()
            raise
        (connection.commit if commit else connection.rollback)()
        if end in LEFT_BY:
            with contextlib.suppress(Exception):  # each driver has its own
                run(LEFT_BY[end])
        elif end == "closed" and way in self.engines:
            connection.invalidate()
        if end in {"pooled", "closed"}:
            connection.close()
        else:
            self.held.append(connection)
        return results[-1].rowcount

    async def _work_async(self, engine, statements, end, *, commit):
        connection = await engine.connect()
        try:
            results = [await connection.execute(text(statement)) for statement in statements]
        except Exception:
            await connection.close()
            raise
        await (connection.commit() if commit else connection.rollback())
        if end in LEFT_BY:
            with contextlib.suppress(Exception):  # as above
                await connection.execute(text(LEFT_BY[end]))
        elif end == "closed":
            await connection.invalidate()
        if end in {"pooled", "closed"}:
            await connection.close()
        else:
            self.held.append(connection)
        return results[-1].rowcount

    def close(self):
        for connection in self.held:
            closing = connection.close()
            if asyncio.iscoroutine(closing):
                self.loop.run(closing)


@contextmanager
def writers(database, *, threaded=False):
    with ExitStack() as stack:
        yield Writers(database, stack, threaded=threaded)
