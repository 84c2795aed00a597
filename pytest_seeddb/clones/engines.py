"""SQLAlchemy engines on a seeded database, whatever its isolation; nothing of them stays behind."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from pytest_seeddb.application.hanging_up import Opened, tracked
from pytest_seeddb.clones.changes import report_now, uncommitted
from pytest_seeddb.clones.rollback import JoinedConnection, async_engine_over, engine_over, joined
from pytest_seeddb.errors import SeedDbError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pytest_seeddb.clones.changes import TableChange
    from pytest_seeddb.clones.database import SeededDatabase


@contextmanager
def open_engine(database: SeededDatabase) -> Iterator[Engine]:
    """An engine for a block; with ``rollback`` all of its connections are one."""
    if database.isolation == "rollback":
        with joined(database.address) as connection:
            database.before_reset(connection.start_again)
            database.before_changes(lambda: uncommitted(connection))
            yield engine_over(connection)
        return
    engine = create_engine(make_url(database.address.url_for("postgresql+psycopg")))
    # Not only its pool is emptied: a connection that is still held would go back to a pool that nobody has.
    with tracked(engine) as connections:
        database.before_reset(connections.close)
        database.before_changes(lambda: _report_now(connections))
        yield engine


def _report_now(connections: Opened) -> tuple[TableChange, ...]:
    for driver in connections.drivers():
        report_now(driver)
    return ()


def _untold() -> tuple[TableChange, ...]:
    raise SeedDbError(
        "What the test wrote cannot be told",
        saw="its transaction is on the connection of seeded_async_engine, which belongs to the event loop",
        remedy='look with isolation="clone", the default',
    )


def joined_connection(engine: Engine) -> psycopg.Connection[Any]:
    """The driver's connection under an engine of a ``rollback`` test."""
    with engine.connect() as connection:
        found = connection.connection.driver_connection
    assert isinstance(found, JoinedConnection)  # noqa: S101 - the engine was made by open_engine
    return found


@contextmanager
def open_async_engine(database: SeededDatabase) -> Iterator[AsyncEngine]:
    """An async engine for a block.

    Its connections are ended without the event loop at the end, which may be closed by then: the
    fixture works with pytest-asyncio and with anyio, in whatever scope each keeps its loop.
    """
    from sqlalchemy.ext.asyncio import create_async_engine  # needs greenlet, which not everybody has

    if database.isolation == "rollback":
        engine = async_engine_over(database.address)
        database.before_changes(_untold)
    else:
        # No pool: a connection belongs to the loop in which it was opened.
        url = make_url(database.address.url_for("postgresql+psycopg"))
        engine = create_async_engine(url, poolclass=NullPool)
    with tracked(engine.sync_engine) as connections:
        database.before_reset(connections.close)
        yield engine
