"""What a user's function may ask for: the database as a URL, an engine, a connection or a session."""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.orm import Session

    from pytest_seeddb.plan.plan import Mark
    from pytest_seeddb.servers.address import Address

Kind = Literal[
    "url",
    "sqlalchemy url",
    "engine",
    "async engine",
    "connection",
    "async connection",
    "session",
    "async session",
    "psycopg connection",
    "psycopg async connection",
]

DRIVER: Final = "postgresql+psycopg"  # psycopg 3 serves both synchronous and asynchronous engines

_BY_NAME: Final[Mapping[str, tuple[Kind, Kind]]] = {
    "url": ("url", "url"),
    "engine": ("engine", "async engine"),
    "connection": ("connection", "async connection"),
    "session": ("session", "async session"),
}
# By the package that has the class, and the class's name.
_BY_CLASS: Final[Mapping[tuple[str, str], Kind]] = {
    ("sqlalchemy", "URL"): "sqlalchemy url",
    ("sqlalchemy", "Engine"): "engine",
    ("sqlalchemy", "AsyncEngine"): "async engine",
    ("sqlalchemy", "Connection"): "connection",
    ("sqlalchemy", "AsyncConnection"): "async connection",
    ("sqlalchemy", "Session"): "session",
    ("sqlalchemy", "AsyncSession"): "async session",
    ("sqlmodel", "Session"): "session",
    ("sqlmodel", "AsyncSession"): "async session",
    ("psycopg", "Connection"): "psycopg connection",
    ("psycopg", "AsyncConnection"): "psycopg async connection",
}
# Names that say enough by themselves where an annotation cannot be evaluated.
_DISTINCT: Final = frozenset({"Engine", "AsyncEngine", "AsyncConnection", "Session", "AsyncSession"})

_COMMITTED: Final[Mapping[Kind, int]] = {
    "session": 0,
    "async session": 0,
    "connection": 1,
    "async connection": 1,
    "psycopg connection": 1,
    "psycopg async connection": 1,
}
"""What is committed at the end, and in which order: a session that is bound to a connection flushes into it."""

_FOREIGN: Final = frozenset({"asyncpg", "psycopg2", "pg8000"})


@dataclass(frozen=True)
class Resource:
    """One thing that a parameter asks for.

    Attributes:
        kind: What it is.
        factory: The class that the annotation names, where it is one of the project's own sessions.
    """

    kind: Kind
    factory: Callable[..., Any] | None = field(default=None, compare=False)

    @property
    def needs_loop(self) -> bool:
        """Whether it can be used in a coroutine function only."""
        return self.kind in {"async connection", "async session", "psycopg async connection"}

    @property
    def has_transaction(self) -> bool:
        """Whether what is written through it is committed when the function returns."""
        return self.kind in _COMMITTED


def is_resource(name: str, path: str = "") -> bool:
    """Whether a parameter asks for the database, told from its source alone.

    Args:
        name: The parameter's.
        path: The dotted path of its annotation: ``sqlalchemy.orm.Session``.
    """
    package, _, cls = path.partition(".")
    return name in _BY_NAME or (package, cls.rpartition(".")[2]) in _BY_CLASS


def resource(name: str, hint: object, *, is_async: bool) -> Resource | None:
    """What a parameter asks for; ``None`` where it is no business of the database's.

    A known class decides, then the name.
    """
    found = _by_class(hint) or _by_text(hint)
    if found is not None:
        return found
    if name not in _BY_NAME or _is_foreign(hint):
        return None
    return Resource(_BY_NAME[name][is_async])


def _is_foreign(hint: object) -> bool:
    """Whether it is a class of a driver that no resource is made for, such as ``asyncpg.Connection``."""
    path = hint.__module__ if isinstance(hint, type) else hint if isinstance(hint, str) else ""
    return path.partition(".")[0] in _FOREIGN


def _by_class(hint: object) -> Resource | None:
    if not isinstance(hint, type):
        return None
    factory: Callable[..., Any] = hint
    for cls in inspect.getmro(hint):
        kind = _BY_CLASS.get((cls.__module__.partition(".")[0], cls.__name__))
        if kind is not None:
            return Resource(kind, factory if kind in {"session", "async session"} else None)
    return None


def _by_text(hint: object) -> Resource | None:
    """An annotation that is seen by type checkers only: ``AsyncSession``, ``orm.Session``, ``psycopg.Connection``."""
    if not isinstance(hint, str):
        return None
    path = hint.partition("[")[0].strip("'\" ")
    package, _, name = path.rpartition(".")
    if package.partition(".")[0] == "psycopg":
        return Resource(_BY_CLASS[("psycopg", name)]) if ("psycopg", name) in _BY_CLASS else None
    return Resource(_BY_CLASS[("sqlalchemy", name)]) if name in _DISTINCT else None


class SyncResources:
    """Resources of one call of a plain function, made when they are first asked for.

    Left without an error, it commits and closes them; left with one, it rolls back and closes. The
    first that has a transaction notes the step in it, where a mark is given.
    """

    def __init__(self, address: Address, mark: Mark | None = None) -> None:
        self._address = address
        self._mark = mark
        self._marked: Any = None
        self._made: dict[Resource, object] = {}
        self._more: list[Any] = []
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closing:
            if error is None and self._mark and self._marked:
                _execute(self._marked, self._mark.statement, self._mark.finished())
            for each in (*self._more, *_commit_order(self._made)) if error is None else ():
                each.commit()

    @property
    def has_transaction(self) -> bool:
        """Whether anything was asked for that is committed at the end."""
        return any(each.has_transaction for each in self._made)

    def session(self) -> Any:  # noqa: ANN401 - of whichever class was asked for
        """The session that was asked for; else one on the connection that was; else on one of its own."""
        return self.get(Resource("session"))

    def further_session(self) -> Session:
        """A new session on a connection of its own, for another thread; committed and closed with the rest."""
        from sqlalchemy.orm import Session

        session = self._closing.enter_context(Session(self.get(Resource("engine"))))
        self._more.append(session)
        return session

    def adopt(self, session: Any) -> None:  # noqa: ANN401 - a session, scoped or not
        """Commit a session of somebody else's with the rest; closing it is their own affair."""
        if all(session is not each for each in self._more):
            self._more.append(session)

    def get(self, wanted: Resource) -> Any:  # noqa: ANN401 - one of many types
        """The resource; the same object each time."""
        if wanted not in self._made:
            self._made[wanted] = getattr(self, f"_{wanted.kind.replace(' ', '_')}")(wanted)
            if self._mark and self._marked is None and wanted.has_transaction:
                self._marked = self._made[wanted]
                _execute(self._marked, self._mark.statement, self._mark.begun)
        return self._made[wanted]

    def _url(self, _wanted: Resource) -> str:
        return self._address.url

    def _sqlalchemy_url(self, _wanted: Resource) -> object:
        return _sqlalchemy_url(self._address)

    def _engine(self, _wanted: Resource) -> Engine:
        from sqlalchemy import create_engine

        engine = create_engine(_sqlalchemy_url(self._address))
        self._closing.callback(engine.dispose)
        return engine

    def _async_engine(self, _wanted: Resource) -> AsyncEngine:
        """For a plain function that starts event loops itself: each of its connections is its own."""
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        return create_async_engine(_sqlalchemy_url(self._address), poolclass=NullPool)

    def _connection(self, _wanted: Resource) -> Connection:
        engine: Engine = self.get(Resource("engine"))
        return self._closing.enter_context(engine.connect())

    def _session(self, wanted: Resource) -> object:
        from sqlalchemy.orm import Session

        bind: Any = self._made.get(Resource("connection")) or self.get(Resource("engine"))
        return self._closing.enter_context((wanted.factory or Session)(bind=bind))

    def _psycopg_connection(self, _wanted: Resource) -> object:
        import psycopg

        connection = psycopg.connect(self._address.conninfo)
        self._closing.callback(connection.close)
        return connection


class AsyncResources:
    """Resources of one call of a coroutine function; otherwise as `SyncResources`."""

    def __init__(self, address: Address, mark: Mark | None = None) -> None:
        self._address = address
        self._mark = mark
        self._marked: Any = None
        self._made: dict[Resource, object] = {}
        self._plain = SyncResources(address)
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._closing.enter_context(self._plain)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            if error is None and self._mark and self._marked:
                await _execute_async(self._marked, self._mark.statement, self._mark.finished())
            for each in _commit_order(self._made) if error is None else ():
                await each.commit()
        except BaseException as failed:
            await self._closing.__aexit__(type(failed), failed, failed.__traceback__)
            raise
        return await self._closing.__aexit__(kind, error, trace)

    @property
    def has_transaction(self) -> bool:
        """Whether anything was asked for that is committed at the end."""
        return self._plain.has_transaction or any(each.has_transaction for each in self._made)

    def session(self) -> Any:  # noqa: ANN401 - of whichever class was asked for
        """As `SyncResources.session`; of an asynchronous session the synchronous one inside of it."""
        if Resource("async connection") in self._made and Resource("async session") not in self._made:
            session = self._made[Resource("async session")] = self._new_session(Resource("async session"))
            self._closing.push_async_callback(session.close)
        made: Any = self._made.get(Resource("async session"))
        return self._plain.session() if made is None else made.sync_session

    def further_session(self) -> Session:
        """As `SyncResources.further_session`."""
        return self._plain.further_session()

    def adopt(self, session: Any) -> None:  # noqa: ANN401 - a session, scoped or not
        """As `SyncResources.adopt`."""
        self._plain.adopt(session)

    async def get(self, wanted: Resource) -> Any:  # noqa: ANN401 - one of many types
        """The resource; the same object each time."""
        make = getattr(self, f"_{wanted.kind.replace(' ', '_')}", None)
        if make is None:  # a coroutine function may use what does not wait for a loop, too
            return self._plain.get(wanted)
        if wanted not in self._made:
            self._made[wanted] = await make(wanted)
            if self._mark and self._marked is None and wanted.has_transaction:
                self._marked = self._made[wanted]
                await _execute_async(self._marked, self._mark.statement, self._mark.begun)
        return self._made[wanted]

    async def _async_engine(self, _wanted: Resource) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(_sqlalchemy_url(self._address))
        self._closing.push_async_callback(engine.dispose)
        return engine

    async def _async_connection(self, _wanted: Resource) -> AsyncConnection:
        engine: AsyncEngine = await self.get(Resource("async engine"))
        return await self._closing.enter_async_context(engine.connect())

    async def _async_session(self, wanted: Resource) -> object:
        if Resource("async connection") not in self._made:
            await self.get(Resource("async engine"))
        return await self._closing.enter_async_context(self._new_session(wanted))

    def _new_session(self, wanted: Resource) -> Any:  # noqa: ANN401 - of whichever class is asked for
        from sqlalchemy.ext.asyncio import AsyncSession

        bind: Any = self._made.get(Resource("async connection")) or self._made[Resource("async engine")]
        # Objects stay readable after a commit inside the function: reloading them would need an await.
        return (wanted.factory or AsyncSession)(bind=bind, expire_on_commit=False)

    async def _psycopg_async_connection(self, _wanted: Resource) -> object:
        import psycopg

        connection = await psycopg.AsyncConnection.connect(self._address.conninfo)
        self._closing.push_async_callback(connection.close)
        return connection


def _sqlalchemy_url(address: Address) -> Any:  # noqa: ANN401 - a sqlalchemy.URL, imported late
    from sqlalchemy import make_url

    return make_url(address.url_for(DRIVER))


def _commit_order(made: Mapping[Resource, Any]) -> Iterator[Any]:
    found = [(_COMMITTED[wanted.kind], each) for wanted, each in made.items() if wanted.has_transaction]
    yield from (each for _, each in sorted(found, key=lambda pair: pair[0]))


def _execute(on: Any, statement: str, parameters: tuple[object, ...]) -> None:  # noqa: ANN401 - one of three types
    """Run a statement in the transaction of a session, a connection or a driver's connection."""
    connection = on.connection() if callable(getattr(on, "connection", None)) else on
    getattr(connection, "exec_driver_sql", connection.execute)(statement, parameters)


async def _execute_async(on: Any, statement: str, parameters: tuple[object, ...]) -> None:  # noqa: ANN401 - likewise
    connection = await on.connection() if callable(getattr(on, "connection", None)) else on
    await getattr(connection, "exec_driver_sql", connection.execute)(statement, parameters)
