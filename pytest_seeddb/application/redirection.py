"""Every connection that SQLAlchemy opens goes to our database, whatever its engine was made for.

Applications make their engine when they are imported, and ``env.py`` often makes one of its own;
handing over a URL is not enough for them. SQLAlchemy asks ``do_connect`` listeners before each new
connection of each engine, and the first one that returns a connection decides. Ours is registered
once per process, on the class, in front of all others, and decides only while a redirection that
covers the engine is on. It is never taken away: another thread may be connecting at that moment.
"""

from __future__ import annotations

import contextlib
import getpass
import sys
import threading
import weakref
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlencode

from pytest_seeddb.application.disconnection import (
    close_if_cut,
    close_sessions,
    discard,
    empty_pool,
    finish_left,
    hang_up,
    note_holder,
)
from pytest_seeddb.application.flushing import ask_entries
from pytest_seeddb.application.imports import on_import
from pytest_seeddb.application.offspring import has_outlived
from pytest_seeddb.application.roles import Roles
from pytest_seeddb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
    from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

    from pytest_seeddb.application.flushing import Told
    from pytest_seeddb.servers.address import Address

_OPENED_BY: Final = "pytest_seeddb.application.redirection"

_active: Final[list[Redirection]] = []
_watching: Final[list[Watch]] = []
_changing: Final = threading.RLock()


@contextlib.contextmanager
def redirect(
    address: Address, engines: Iterable[Engine] | None = None, roles: Roles | None = None
) -> Iterator[Redirection]:
    """Send every new PostgreSQL connection of SQLAlchemy to ``address`` inside the block.

    That holds for all threads of the process, for synchronous and asynchronous engines, and for
    each driver. What the application told its driver beside where to connect and as whom (its
    application name, JSON serialisers, cache sizes, cursor classes, ...) is kept. Connections that
    were pooled before are not used inside the block; those opened inside it are closed at its end,
    also those that are still held. Blocks may be nested: the innermost that covers an engine wins.

    ``engines`` are those to redirect (of an asynchronous one its ``sync_engine``), by default all, also
    those that are made inside the block. SQLAlchemy is not imported for them: that takes 0.2 seconds,
    and not all applications need it.

    ``roles`` give each connection the role that its own URL names; without them all have the address's.

    Raises:
        ConfigError: A named engine is not for PostgreSQL, or was made with ``creator=`` or
            ``async_creator=``: such a function opens the connection itself.
    """
    engines = None if engines is None else tuple(engines)
    for engine in engines or ():
        check_redirectable(engine)
    dialects = None if engines is None else tuple(engine.dialect for engine in engines)
    redirection = Redirection(address, dialects, roles or Roles())
    with on_import("sqlalchemy", lambda _module: _listen()):
        with _changing:
            _active.append(redirection)
        try:
            for engine in engines or ():
                empty_pool(engine)
            yield redirection
        finally:
            with _changing:
                _active.remove(redirection)
            redirection.close_connections()
            for engine in engines or ():
                empty_pool(engine)


class Watch(Protocol):
    """Hears of what no redirection covers; raises to refuse it."""

    def check_connect(self, dialect: Dialect, positional: list[Any], named: Mapping[str, Any]) -> None:
        """An engine is about to open a connection."""

    def check_checkout(self, dialect: Dialect) -> None:
        """An engine is about to use a connection that it opened before."""

    def check_thread(self, dialect: Dialect) -> None:
        """An engine is about to use a test's database in a thread that an earlier test left running."""


@contextlib.contextmanager
def watch_engines(watch: Watch) -> Iterator[None]:
    """Inside the block ``watch`` hears of every connection that no redirection covers, and may refuse it."""
    with on_import("sqlalchemy", lambda _module: _listen()):
        _watching.append(watch)
        try:
            yield
        finally:
            _watching.remove(watch)


class Redirection:
    """One ``with redirect(...)``: what it covers and what was opened through it."""

    def __init__(self, address: Address, dialects: tuple[Dialect, ...] | None, roles: Roles) -> None:
        self.address = address
        self._roles = roles
        self._dialects = dialects
        self._entries: weakref.WeakSet[ConnectionPoolEntry] = weakref.WeakSet()
        self._closings = 0

    def covers(self, dialect: Dialect) -> bool:
        """Whether the engine with this dialect is redirected; each engine has a dialect of its own."""
        if self._dialects is None:
            return dialect.name == "postgresql"
        return any(dialect is covered for covered in self._dialects)

    def connect(
        self, dialect: Dialect, entry: ConnectionPoolEntry, cparams: Mapping[str, Any]
    ) -> DBAPIConnection | None:
        """Open a connection for a pool's entry and remember the entry; ``None`` where it came too late."""
        address = self._roles.address(self.address, cparams.get("user") or "", cparams.get("password") or "")
        positional, named = _connect_arguments(address, dialect, cparams)
        with _changing:
            self._entries.add(entry)
            closings = self._closings
        connection: DBAPIConnection = dialect.connect(*positional, **named)
        with _changing:
            if closings == self._closings:
                entry.info[_OPENED_BY] = self
                return connection
        # A thread that was connecting while the test ended: this leads to a database that is not its test's any more.
        hang_up(getattr(connection, "driver_connection", connection))
        if not dialect.is_async:
            connection.close()
        return None

    def ask(self) -> Told:
        """Ask the open connections what they have written."""
        with _changing:
            entries = [entry for entry in self._entries if entry.info.get(_OPENED_BY) is self]
        return ask_entries(entries)

    def close_connections(self) -> None:
        """Close what was opened so far, pooled or held, and the ORM sessions of the engines that are covered."""
        finish_left()
        with _changing:
            self._closings += 1
            entries = [entry for entry in self._entries if entry.info.pop(_OPENED_BY, None) is self]
            self._entries.clear()
        for entry in entries:
            discard(entry)
        close_sessions(self.covers)


@cache
def _listen() -> None:
    from sqlalchemy import Engine, event
    from sqlalchemy.pool import Pool

    event.listen(Engine, "do_connect", _on_connect, insert=True)
    event.listen(Pool, "checkout", _on_checkout, insert=True)
    event.listen(Pool, "checkin", close_if_cut)
    event.listen(Engine, "before_cursor_execute", _on_execute)


def _covering(dialect: Dialect) -> Redirection | None:
    return next((redirection for redirection in reversed(tuple(_active)) if redirection.covers(dialect)), None)


def _check_thread(dialect: Dialect) -> None:
    if _watching and has_outlived() and _covering(dialect) is not None:
        _watching[-1].check_thread(dialect)


def _on_connect(
    dialect: Dialect, entry: ConnectionPoolEntry, cargs: list[Any], cparams: dict[str, Any]
) -> DBAPIConnection | None:
    connection = None
    _check_thread(dialect)
    while connection is None and (redirection := _covering(dialect)) is not None:
        connection = redirection.connect(dialect, entry, cparams)
    if connection is None and _watching:
        _watching[-1].check_connect(dialect, cargs, cparams)
    return connection


def _on_checkout(_connection: DBAPIConnection, entry: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
    """Have the pool replace a connection that was opened under another redirection, or under none."""
    import asyncio

    pool: Any = proxy._pool  # noqa: SLF001 - SQLAlchemy tells it nowhere else
    dialect: Dialect = pool._dialect  # noqa: SLF001 - as above
    _check_thread(dialect)
    redirection = _covering(dialect)
    fits = entry.info.get(_OPENED_BY) is redirection
    if redirection is None and fits and _watching:
        _watching[-1].check_checkout(dialect)
    if fits and redirection is not None:
        # asyncpg's belongs to an event loop, and inside a redirection each asynchronous seeder runs in one of its own.
        loop = getattr(entry.driver_connection, "_loop", None)
        fits = not isinstance(loop, asyncio.AbstractEventLoop) or loop is asyncio.get_running_loop()
    if fits or foreign_creator(pool) is not None:
        note_holder(entry, proxy)
        return
    from sqlalchemy.exc import DisconnectionError

    if dialect.is_async:
        hang_up(entry.driver_connection)
    raise DisconnectionError("opened for another database")


def _on_execute(connection: Connection, *_more: object) -> None:
    """Have a connection that is held since before the redirection heard of: it leads to the application's database."""
    if _watching and _covering(connection.dialect) is not None:
        entry = getattr(connection.connection, "_connection_record", None)
        if entry is not None and _OPENED_BY not in entry.info:
            _watching[-1].check_checkout(connection.dialect)


def bound_session(session: Callable[[], Any], model: object) -> tuple[Any, Engine] | None:
    """The ORM session, scoped or not, and the engine through which it writes ``model``; ``None`` if asynchronous.

    A session may have an engine for each model, a mapped class.
    """
    try:
        orm_session = session()
        engine: Engine = orm_session.get_bind(model).engine
    except Exception:  # noqa: BLE001 - the user's code may need what is not there: an application, a request
        return None
    return None if engine.dialect.is_async else (orm_session, engine)


def is_redirected(engine: Engine, address: Address) -> bool:
    """Whether a redirection lets it write to the address."""
    redirection = _covering(engine.dialect)
    return redirection is not None and redirection.address == address and foreign_creator(engine.pool) is None


def engines_of(value: object) -> tuple[Engine, ...]:
    """The engines behind what an application keeps in a module: an engine, a session factory, or what returns one.

    Raises:
        ConfigError: It is none of these, or is bound to no engine.
    """
    engines = _engines(value)
    if engines is None and hasattr(value, "get_engine") and not isinstance(value, type):
        engines = _engines(value.get_engine())  # a configuration of Advanced Alchemy
    if engines is None and callable(value) and not isinstance(value, type):
        value = value()
        engines = _engines(value)
    if engines is None:
        raise ConfigError(
            "This is not a SQLAlchemy engine",
            saw=f"a value of the type {type(value).__qualname__}",
            remedy="name an Engine, AsyncEngine, sessionmaker, async_sessionmaker or scoped_session, a Flask "
            "application, or a function without parameters that returns one",
        )
    if not engines:
        raise ConfigError(
            "This session factory is bound to no engine",
            saw=repr(value),
            remedy="name the engine itself, or bind the factory to it where it is made: sessionmaker(engine)",
        )
    return tuple({id(engine): engine for engine in engines}.values())


def is_flask(value: object) -> bool:
    """Whether it is a Flask application."""
    flask: Any = sys.modules.get("flask")
    return flask is not None and isinstance(value, flask.Flask)


def _engines(value: Any) -> list[Engine] | None:  # noqa: ANN401 - any object
    from sqlalchemy import Engine
    from sqlalchemy.orm import scoped_session, sessionmaker

    asynchronous = sys.modules.get("sqlalchemy.ext.asyncio")  # its import needs greenlet
    async_engine: Any = getattr(asynchronous, "AsyncEngine", ())
    scoped: Any = (scoped_session, getattr(asynchronous, "async_scoped_session", ()))
    factory: Any = (sessionmaker, getattr(asynchronous, "async_sessionmaker", ()))
    if isinstance(value, Engine):
        return [value]
    if isinstance(value, async_engine):
        return [value.sync_engine]
    if is_flask(value) and "sqlalchemy" in value.extensions:
        with value.app_context():
            return [*value.extensions["sqlalchemy"].engines.values()]
    if isinstance(value, scoped):
        return _engines(value.session_factory)
    if isinstance(value, factory):
        binds = [value.kw.get("bind"), *(value.kw.get("binds") or {}).values()]
        return [engine for bind in binds for engine in _engines(bind) or ()]
    return None


def check_redirectable(engine: Engine, *, remedy: str = "take it out of the setting `engines`") -> None:
    """Raise `ConfigError` if nothing can send the engine's connections elsewhere; ``remedy`` is for other vendors'."""
    if engine.dialect.name != "postgresql":
        raise ConfigError(
            "This engine is not for PostgreSQL",
            saw=engine.url.render_as_string(),
            remedy=remedy,
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


# Every argument of psycopg, psycopg2, asyncpg and pg8000 that says where to connect or as whom.
# libpq's are those of its "Parameter Key Words"; the others are in each driver's ``connect``.
_WHERE: Final = frozenset({
    "async_creator_fn", "channel_binding", "conninfo", "database", "db", "dbname", "direct_tls", "dsn", "host",
    "hostaddr", "krbspn", "krbsrvname", "load_balance_hosts", "passfile", "password", "port", "replication",
    "require_auth", "requirepeer", "requiressl", "service", "servicefile", "sock", "source_address",
    "target_session_attrs", "unix_sock", "user",
})  # fmt: skip
_WHERE_PREFIXES: Final = ("ssl", "gss", "scram_", "oauth_", "min_protocol", "max_protocol")
# Those of libpq's parameters that asyncpg reads from a DSN only.
_ASYNCPG_DSN: Final = {
    "sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "target_session_attrs",
}  # fmt: skip


def says_where(key: str) -> bool:
    """Whether an argument of a driver says where to connect or as whom."""
    return key in _WHERE or key.startswith(_WHERE_PREFIXES)


def _connect_arguments(
    address: Address, dialect: Dialect, cparams: Mapping[str, Any]
) -> tuple[Iterable[Any], dict[str, Any]]:
    """What the dialect's ``connect`` takes to reach the address, with the application's own arguments.

    Of those, the ones that say where or as whom are left out. Positional ones do not come here: only a
    DSN is ever among them.
    """
    from sqlalchemy import make_url

    kept = {key: value for key, value in cparams.items() if not says_where(key)}
    match dialect.driver:
        case "asyncpg":
            return (), _asyncpg_arguments(address.params, kept)
        case "pg8000":
            return (), _pg8000_arguments(address.params, kept)
        case "psycopg" | "psycopg_async" | "psycopg2" | "psycopg2cffi":
            # An empty ``hostaddr`` keeps ``PGHOSTADDR`` from leading elsewhere.
            options = " ".join(filter(None, (address.params.get("options", ""), kept.get("options", ""))))
            return (), {"hostaddr": "", **address.params, **kept, **({"options": options} if options else {})}
    positional, named = dialect.create_connect_args(make_url(address.url_for(f"postgresql+{dialect.driver}")))
    return positional, {**named, **kept}


def _asyncpg_arguments(params: Mapping[str, str], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The place by name, TLS in a DSN, settings of the session apart."""
    place: dict[str, Any] = {key: params[key] for key in ("user", "password") if key in params}
    place["database"] = params.get("dbname")
    if hosts := params.get("host"):
        place["host"] = hosts.split(",") if "," in hosts else hosts
    if ports := params.get("port"):
        place["port"] = [int(port) for port in ports.split(",")] if "," in ports else int(ports)
    if secure := {key: value for key, value in params.items() if key in _ASYNCPG_DSN}:
        place["dsn"] = f"postgresql://?{urlencode(secure)}"
    session = {key: params[key] for key in ("application_name", "options") if key in params}
    return {**kept, **place, "server_settings": {**session, **(kept.get("server_settings") or {})}}


def _pg8000_arguments(params: Mapping[str, str], kept: Mapping[str, Any]) -> dict[str, Any]:
    """A socket is named by its file, and the user must be named."""
    import ssl

    host, port = params.get("host", "localhost"), int(params.get("port") or 5432)
    place: dict[str, Any] = {
        "user": params.get("user") or getpass.getuser(),
        "database": params.get("dbname"),
        "password": params.get("password"),
    }
    mode = params.get("sslmode")
    if host.startswith("/"):
        place["unix_sock"] = f"{host}/.s.PGSQL.{port}"
    else:
        place |= {"host": host, "port": port}
        # ``None`` tries TLS and does without, ``False`` does without, ``True`` wants it unverified.
        unverified = {"disable": False, "allow": None, "prefer": None, "require": True}
        if mode in unverified:
            place["ssl_context"] = unverified[mode]
        elif mode:
            place["ssl_context"] = ssl.create_default_context(cafile=params.get("sslrootcert"))
            place["ssl_context"].check_hostname = mode == "verify-full"
    if "application_name" in params:
        place["application_name"] = params["application_name"]
    if "options" in params:
        place["startup_params"] = {"options": params["options"]}
    return {**place, **kept}
