"""Connections for ``isolation="rollback"``: commits work, and nothing is ever committed.

The whole test happens in one transaction. ``commit()`` marks a savepoint, ``rollback()`` goes back
to the latest mark, and taking the connection from a pool marks one too, so that giving it back
undoes only what its borrower left uncommitted. All marks have the same name: PostgreSQL keeps the
older ones behind the newest, so whatever an inner block releases, there is one to go back to.

This is done at the driver's connection, below SQLAlchemy, so that it holds for every way to write:
``Session``, ``engine.begin()``, a plain psycopg cursor, sync and async.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

from pytest_seeddb.clones.shared import writing
from pytest_seeddb.servers.database_errors import server_errors

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_seeddb.servers.address import Address

_MARK: Final = "SAVEPOINT seeddb"
_BACK: Final = "ROLLBACK TO SAVEPOINT seeddb"


class JoinedConnection(psycopg.Connection[Any]):
    """A psycopg connection inside a transaction that ends with it."""

    def commit(self) -> None:
        """Make what was done safe from a later `rollback`; after an error, undo it as COMMIT would."""
        self.execute(_BACK if self._failed else _MARK)

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

    @property
    def _failed(self) -> bool:
        return self.info.transaction_status == pq.TransactionStatus.INERROR


class AsyncJoinedConnection(psycopg.AsyncConnection[Any]):
    """An async psycopg connection inside a transaction that ends with it."""

    async def commit(self) -> None:
        """As `JoinedConnection.commit`."""
        await self.execute(_BACK if self._failed else _MARK)

    async def rollback(self) -> None:
        """As `JoinedConnection.rollback`."""
        if not self.closed:
            await self.execute(_BACK)

    @property
    def _failed(self) -> bool:
        return self.info.transaction_status == pq.TransactionStatus.INERROR


def joined(address: Address) -> JoinedConnection:
    """Connect to the shared clone and begin the transaction."""
    with server_errors("The connection for a test could not be made", address):
        connection = JoinedConnection.connect(writing(address).conninfo)
        connection.execute(_MARK)
    return connection


async def _async_joined(address: Address) -> AsyncJoinedConnection:
    """Connect to the shared clone and begin the transaction."""
    connection = await AsyncJoinedConnection.connect(writing(address).conninfo)
    await connection.execute(_MARK)
    return connection


def engine_over(connection: JoinedConnection) -> Engine:
    """An engine whose every connection is this one."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=StaticPool)
    _mark_at_checkout(engine)
    return engine


def async_engine_over(address: Address) -> AsyncEngine:
    """An async engine with one connection, made when it is first needed."""
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import StaticPool

    engine = create_async_engine(
        "postgresql+psycopg://", async_creator=lambda: _async_joined(address), poolclass=StaticPool
    )
    _mark_at_checkout(engine.sync_engine)
    return engine


def _mark_at_checkout(engine: Engine) -> None:
    from sqlalchemy import event

    @event.listens_for(engine, "checkout")
    def mark(connection: Any, _entry: object, _proxy: object) -> None:  # noqa: ANN401 - any driver's
        connection.commit()
