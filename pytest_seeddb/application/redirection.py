"""Every connection that SQLAlchemy opens goes to our database, whatever its engine was made for.

Applications make their engine when they are imported, and ``env.py`` often makes one of its own;
handing over a URL is not enough for them. SQLAlchemy asks ``do_connect`` listeners before each new
connection of each engine, and the first one that returns a connection decides. Ours is registered
once per process, on the class, in front of all others, and decides only while a redirection that
covers the engine is on. It is never taken away: another thread may be connecting at that moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.driver_arguments import connect_arguments
from pytest_seeddb.application.hanging_up import discard, hang_up, note_holder, run_now
from pytest_seeddb.application.open_sessions import close_sessions
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

    from pytest_seeddb.servers.address import Address

_OPENED_BY: Final = "pytest_seeddb.application.redirection"

_active: list[Redirection] = []
_changing: Final = threading.RLock()
_listening: list[bool] = []


class Redirection:
    """One ``with redirected(...)``: what it covers and what was opened through it.

    Attributes:
        address: Where the connections go.
    """

    def __init__(self, address: Address, dialects: tuple[Dialect, ...] | None) -> None:
        self.address = address
        self._dialects = dialects
        self._entries: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()

    def covers(self, dialect: Dialect) -> bool:
        """Whether the engine with this dialect is redirected; each engine has a dialect of its own."""
        if self._dialects is None:
            return dialect.name == "postgresql"
        return any(dialect is each for each in self._dialects)

    def connect(self, dialect: Dialect, entry: ConnectionPoolEntry, cparams: dict[str, Any]) -> DBAPIConnection:
        """Open a connection for a pool's entry and remember the entry."""
        positional, named = connect_arguments(self.address, dialect, cparams)
        entry.info[_OPENED_BY] = self
        with _changing:
            self._entries.add(entry)
        connection: DBAPIConnection = dialect.connect(*positional, **named)
        return connection

    def close_connections(self) -> None:
        """Close what was opened so far, pooled or held, and the ORM sessions of the engines that are covered.

        Whoever needs a connection afterwards gets a new one.
        """
        with _changing:
            entries = [each for each in self._entries if each.info.get(_OPENED_BY) is self]
            self._entries.clear()
        for entry in entries:
            discard(entry)
        close_sessions(self.covers)


@contextlib.contextmanager
def redirected(address: Address, engines: Iterable[Engine] | None = None) -> Iterator[Redirection]:
    """Send every new PostgreSQL connection of SQLAlchemy's to ``address`` inside the block.

    That holds for all threads of the process, for synchronous and asynchronous engines, and for
    each driver. What the application told its driver beside where to connect and as whom (its
    application name, JSON serialisers, cache sizes, cursor classes, ...) is kept. Connections that
    were pooled before are not used inside the block; those opened inside it are closed at its end,
    also those that somebody still holds. Blocks may be nested: the innermost that covers an engine
    wins.

    Args:
        address: Where the connections go.
        engines: The engines to redirect; for an asynchronous one its ``sync_engine``. ``None`` for
            all PostgreSQL engines, also those that are made inside the block.

    Raises:
        ConfigError: A named engine is not for PostgreSQL, or was made with ``creator=`` or
            ``async_creator=``: such a function opens the connection itself.
    """
    named = None if engines is None else tuple(engines)
    for engine in named or ():
        _check_redirectable(engine)
    _listen()
    redirection = Redirection(address, None if named is None else tuple(each.dialect for each in named))
    with _changing:
        _active.append(redirection)
    try:
        for engine in named or ():
            empty_pool(engine)
        yield redirection
    finally:
        with _changing:
            _active.remove(redirection)
        redirection.close_connections()
        for engine in named or ():
            empty_pool(engine)


def empty_pool(engine: Engine) -> None:
    """Close the engine's idle connections now, also an asynchronous one's, from wherever it is called.

    No event loop needs to run, and the one in which the connections were opened may be closed.
    """
    from sqlalchemy import event

    if not engine.dialect.is_async:
        engine.dispose()
        return

    def on_close(_connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        hang_up(entry.driver_connection)

    pool = engine.pool
    event.listen(pool, "close", on_close)
    try:
        run_now(engine.dispose)
    finally:
        event.remove(pool, "close", on_close)  # also from the new pool, which took over its listeners


def engines_of(value: object) -> tuple[Engine, ...]:
    """The engines behind what an application keeps in a module.

    Args:
        value: An ``Engine`` or ``AsyncEngine``; a ``sessionmaker``, ``scoped_session`` or their
            asynchronous counterparts, which must be bound; or a function without parameters that
            returns one of them.

    Raises:
        ConfigError: It is none of these, or is bound to no engine.
    """
    found = _engines(value)
    if found is None and callable(value) and not isinstance(value, type):
        value = value()
        found = _engines(value)
    if found is None:
        raise ConfigError(
            "This is no SQLAlchemy engine",
            saw=f"a value of the type {type(value).__qualname__}",
            remedy="name an Engine, AsyncEngine, sessionmaker, async_sessionmaker or scoped_session, or a "
            "function without parameters that returns one",
        )
    if not found:
        raise ConfigError(
            "This session factory is bound to no engine",
            saw=repr(value),
            remedy="name the engine itself, or bind the factory to it where it is made: sessionmaker(engine)",
        )
    return tuple({id(engine): engine for engine in found}.values())


def _engines(value: Any) -> list[Engine] | None:  # noqa: ANN401 - whatever stands at the import path
    from sqlalchemy import Engine
    from sqlalchemy.orm import scoped_session, sessionmaker

    scoped: tuple[Any, ...] = (scoped_session, *_asynchronous("async_scoped_session"))
    factories: tuple[Any, ...] = (sessionmaker, *_asynchronous("async_sessionmaker"))
    if isinstance(value, Engine):
        return [value]
    if isinstance(value, _asynchronous("AsyncEngine")):
        return [value.sync_engine]
    if isinstance(value, scoped):
        return _engines(value.session_factory)
    if isinstance(value, factories):
        binds = [value.kw.get("bind"), *(value.kw.get("binds") or {}).values()]
        return [engine for bind in binds for engine in _engines(bind) or ()]
    return None


def _asynchronous(name: str) -> tuple[Any, ...]:
    """The class of SQLAlchemy's asyncio module; none where nobody imported that, which needs greenlet."""
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    return () if module is None else (getattr(module, name),)


def _check_redirectable(engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        raise ConfigError(
            "This engine is not for PostgreSQL",
            saw=engine.url.render_as_string(),
            remedy="take it out of the setting `engines`",
        )
    creator = foreign_creator(engine.pool)
    if creator is not None:
        raise ConfigError(
            "This engine cannot be redirected: it was made with creator= or async_creator=",
            saw=f"{engine.url.render_as_string()}, connected by "
            f"{getattr(creator, '__module__', '?')}.{getattr(creator, '__qualname__', creator)}",
            remedy="make the engine from a URL, or let its creator read the address from the environment "
            "and name that variable in the setting `env`",
        )


def foreign_creator(pool: Pool) -> Any:  # noqa: ANN401 - any callable
    """The function given as ``creator=`` or ``async_creator=``; ``None`` where SQLAlchemy connects itself."""
    creator = getattr(pool, "_creator", None)  # SQLAlchemy tells it nowhere else
    return None if getattr(creator, "__module__", None) == "sqlalchemy.engine.create" else creator


def _listen() -> None:
    from sqlalchemy import Engine, event
    from sqlalchemy.pool import Pool

    with _changing:
        if not _listening:
            event.listen(Engine, "do_connect", _on_connect, insert=True)
            event.listen(Pool, "checkout", _on_checkout, insert=True)
            _listening.append(True)


def _covering(dialect: Dialect) -> Redirection | None:
    return next((each for each in reversed(tuple(_active)) if each.covers(dialect)), None)


def _on_connect(
    dialect: Dialect, entry: ConnectionPoolEntry, _cargs: list[Any], cparams: dict[str, Any]
) -> DBAPIConnection | None:
    redirection = _covering(dialect)
    return None if redirection is None else redirection.connect(dialect, entry, cparams)


def _on_checkout(_connection: DBAPIConnection, entry: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
    """Have the pool replace a connection that was opened under another redirection, or under none."""
    pool: Any = proxy._pool  # noqa: SLF001 - SQLAlchemy tells it nowhere else
    dialect: Dialect = pool._dialect  # noqa: SLF001 - likewise
    redirection = _covering(dialect)
    is_ours = entry.info.get(_OPENED_BY) is redirection
    if foreign_creator(pool) is not None or (is_ours and not _is_stranded(redirection, entry)):
        note_holder(entry, proxy)
        return
    from sqlalchemy.exc import DisconnectionError

    if dialect.is_async:
        hang_up(entry.driver_connection)
    raise DisconnectionError("opened for another database")


def leading_to(address: Address, session: Callable[[], Any], model: object) -> Any:  # noqa: ANN401 - scoped or not
    """A synchronous ORM session, if a redirection that is on now lets it write a model to ``address``; else ``None``.

    Args:
        address: Where it should lead.
        session: Finds it; where that fails there is none.
        model: A mapped class; sessions may have an engine for each.
    """
    try:
        found = session()
        engine: Engine = found.get_bind(model).engine
    except Exception:  # noqa: BLE001 - code of the user's that may need what is not there: an application, a request
        return None
    redirection = _covering(engine.dialect)
    if redirection is None or redirection.address != address or foreign_creator(engine.pool) is not None:
        return None
    return None if engine.dialect.is_async else found


def _is_stranded(redirection: Redirection | None, entry: ConnectionPoolEntry) -> bool:
    """Whether it is asyncpg's and belongs to another event loop than the one that wants it now.

    Inside a redirection that is our doing: each asynchronous seeder runs in a loop of its own.
    """
    if redirection is None:
        return False
    loop = getattr(entry.driver_connection, "_loop", None)
    return isinstance(loop, asyncio.AbstractEventLoop) and loop is not asyncio.get_running_loop()
