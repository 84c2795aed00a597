"""SQLAlchemy engines on a seeded database, under each isolation; they leave no connection behind.

Under ``isolation="rollback"`` commits work, and nothing is ever committed: the whole test happens in one
transaction. ``commit()`` marks a savepoint, ``rollback()`` goes back to the latest mark, and taking the
connection from a pool marks one too, so that giving it back undoes only what its borrower left uncommitted.
All marks have the same name: PostgreSQL keeps the older ones behind the newest, so if an inner block releases one,
there is still one to go back to. All this is done at the driver's connection, below SQLAlchemy, so that it holds for
every way to write: ``Session``, ``engine.begin()``, a plain psycopg cursor, sync and async.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool, StaticPool

from pytest_seeddb.application.disconnection import track
from pytest_seeddb.application.flushing import ask_entries
from pytest_seeddb.clones.changes import changes_in_transaction
from pytest_seeddb.clones.shared import writing
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.servers.database_errors import server_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_seeddb.clones.changes import Changes
    from pytest_seeddb.clones.database import SeededDatabase

_MARK: Final = "SAVEPOINT seeddb"
_BACK: Final = "ROLLBACK TO SAVEPOINT seeddb"
_DRIVER: Final = "postgresql+psycopg"


class JoinedConnection(psycopg.Connection[Any]):
    """A psycopg connection inside a transaction that ends with it."""

    def commit(self) -> None:
        """Make what was done safe from a later `rollback`; after an error, undo it as COMMIT would."""
        self.execute(_BACK if self.info.transaction_status == TransactionStatus.INERROR else _MARK)

    def rollback(self) -> None:
        """Undo what was done since the last `commit`."""
        if not self.closed:
            self.execute(_BACK)

    def start_again(self) -> None:
        """Undo everything since the transaction began, and begin anew."""
        super().rollback()
        self.execute("SELECT pg_stat_force_next_flush()")  # or what is undone would count as uncommitted still
        super().rollback()
        self.execute(_MARK)


class AsyncJoinedConnection(psycopg.AsyncConnection[Any]):
    """An async psycopg connection inside a transaction that ends with it."""

    async def commit(self) -> None:
        """As `JoinedConnection.commit`."""
        await self.execute(_BACK if self.info.transaction_status == TransactionStatus.INERROR else _MARK)

    async def rollback(self) -> None:
        """As `JoinedConnection.rollback`."""
        if not self.closed:
            await self.execute(_BACK)


@contextmanager
def open_engine(database: SeededDatabase) -> Iterator[Engine]:
    """An engine for a block; with ``rollback`` all of its connections are one."""
    if database.isolation == "rollback":
        with server_errors("The connection for a test could not be made", database.own_address):
            connection = JoinedConnection.connect(writing(database.own_address).conninfo)
            connection.execute(_MARK)
        with closing(connection):  # psycopg's own block would commit first
            database.before_reset(connection.start_again)
            database.count_uncommitted(lambda: changes_in_transaction(connection), connection)
            database.before_changes(lambda: {connection.info.backend_pid: {}})
            engine = create_engine(f"{_DRIVER}://", creator=lambda: connection, poolclass=StaticPool)
            event.listen(engine, "checkout", _mark)
            database.dialects.append(engine.dialect)
            yield engine
        return
    engine = create_engine(make_url(database.own_address.url_for(_DRIVER)))
    database.dialects.append(engine.dialect)
    # Not only its pool is emptied: a connection that is still held would go back to a pool that nobody has.
    with track(engine) as connections:
        database.before_reset(connections.close)
        database.before_changes(lambda: ask_entries(tuple(connections.entries)))
        yield engine


@contextmanager
def open_async_engine(database: SeededDatabase) -> Iterator[AsyncEngine]:
    """An async engine for a block.

    Its connections are ended without the event loop, which may be closed by then: the fixture works with
    pytest-asyncio and with anyio, in any scope of their loops.
    """
    from sqlalchemy.ext.asyncio import create_async_engine  # needs greenlet, which not everybody has

    if database.isolation == "rollback":
        # One connection, made when it is first needed.
        engine = create_async_engine(f"{_DRIVER}://", async_creator=lambda: _join(database), poolclass=StaticPool)
        event.listen(engine.sync_engine, "checkout", _mark)
        database.count_uncommitted(_refuse)
    else:
        # No pool: a connection belongs to the loop in which it was opened.
        engine = create_async_engine(make_url(database.own_address.url_for(_DRIVER)), poolclass=NullPool)
    with track(engine.sync_engine) as connections:
        database.before_reset(connections.close)
        if database.isolation != "rollback":
            database.before_changes(lambda: ask_entries(tuple(connections.entries)))
        yield engine


def driver_connection(engine: Engine) -> psycopg.Connection[Any]:
    """The driver's connection under an engine of a ``rollback`` test."""
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
    assert isinstance(driver, JoinedConnection)  # noqa: S101 - the engine was made by open_engine
    return driver


async def _join(database: SeededDatabase) -> AsyncJoinedConnection:
    connection = await AsyncJoinedConnection.connect(writing(database.own_address).conninfo)
    try:
        await connection.execute(_MARK)
    except BaseException:  # a task that is cancelled, too
        await connection.close()
        raise
    return connection


def _mark(connection: Any, _entry: object, _proxy: object) -> None:  # noqa: ANN401 - any driver's
    connection.commit()


def _refuse() -> Changes:
    raise SeedDbError(
        "The changes of the test cannot be read",
        saw="its transaction is on the connection of seeded_async_engine, which belongs to the event loop",
        remedy='look with isolation="clone", the default',
    )
