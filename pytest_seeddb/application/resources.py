"""What a user's function may ask for: the database as a URL, an engine, a connection or a session."""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from pytest_seeddb.plan.plan import Mark, Target

Kind = Literal[
    "url", "sqlalchemy url", "engine", "async engine", "connection", "async connection", "session", "async session",
    "psycopg connection", "psycopg async connection",
]  # fmt: skip

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

_FOREIGN: Final = frozenset({"asyncpg", "psycopg2", "pg8000"})  # drivers whose connections are not made here


@dataclass(frozen=True)
class Resource:
    """One thing that a parameter asks for; ``factory`` is the class of a session that the annotation names."""

    kind: Kind
    factory: type[Any] | None = field(default=None, compare=False)

    @property
    def is_session(self) -> bool:
        """Whether it is an ORM session."""
        return self.kind in {"session", "async session"}

    @property
    def has_transaction(self) -> bool:
        """Whether what is written through it is committed when the function returns."""
        return self.kind.endswith(("session", "connection"))

    @property
    def needs_loop(self) -> bool:
        """Whether it can be used in a coroutine function only."""
        return self.has_transaction and "async" in self.kind


def is_resource(name: str, path: str = "") -> bool:
    """Whether a parameter asks for the database, by its name and its annotation's dotted path in the source."""
    package, _, cls = path.partition(".")
    return name in _BY_NAME or (package, cls.rpartition(".")[2]) in _BY_CLASS


def resource(name: str, hint: object, *, is_async: bool) -> Resource | None:
    """What a parameter asks for, by its class if that is known, else by its name; ``None`` if not for the database."""
    package, classes = "", []
    if isinstance(hint, type):
        package = hint.__module__.partition(".")[0]
        classes = [(cls.__module__.partition(".")[0], cls.__name__) for cls in inspect.getmro(hint)]
    elif isinstance(hint, str):  # only type checkers see it: ``AsyncSession``, ``orm.Session``, ``psycopg.Connection``
        path = hint.partition("[")[0].strip("'\" ")
        package, cls = path.partition(".")[0], path.rpartition(".")[2]
        if package == "psycopg" or cls in _DISTINCT:
            classes = [("psycopg" if package == "psycopg" else "sqlalchemy", cls)]
    for key in classes:
        if key in _BY_CLASS:
            wanted = Resource(_BY_CLASS[key])
            return Resource(wanted.kind, hint) if wanted.is_session and isinstance(hint, type) else wanted
    if name in _BY_NAME and package not in _FOREIGN:
        return Resource(_BY_NAME[name][is_async])
    return None


class SyncResources:
    """Resources of one call of a plain function: closed at its end, and committed with the mark unless it failed."""

    _is_async = False

    def __init__(self, target: Target, mark: Mark | None = None) -> None:
        self._address = target.address
        self._settings = target.settings
        self._needs_psycopg = target.needs_psycopg
        self._mark = mark
        self._marked: Any = None
        self._made: dict[Resource, Any] = {}
        self._more: list[Any] = []
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closing:
            if error is not None:
                return
            if self._mark and self._marked:
                _execute(self._marked, self._mark.statement, self._mark.finished())
            for transaction in self._in_commit_order():
                transaction.commit()

    def _in_commit_order(self) -> list[Any]:
        """What has a transaction, sessions first: one that is bound to a connection flushes into it."""
        wanted = [wanted for wanted in self._made if wanted.has_transaction]
        return [*self._more, *(self._made[key] for key in sorted(wanted, key=lambda key: not key.is_session))]

    @property
    def has_transaction(self) -> bool:
        """Whether anything was asked for that is committed at the end."""
        return any(wanted.has_transaction for wanted in self._made)

    def session(self) -> Any:  # noqa: ANN401 - of the class that was asked for
        """The session that was asked for; else one on the connection that was; else on one of its own."""
        return self.get(Resource("session"))

    def further_session(self) -> Session:
        """A new session on a connection of its own, for another thread; committed and closed with the rest."""
        session: Session = self._new_session(Resource("session"), self.get(Resource("engine")))
        self._more.append(session)
        return session

    def has_engine(self, engine: Engine) -> bool:
        """Whether this is the engine, or a variant of it, on which the resources are."""
        own = self._made.get(Resource("engine"))
        return own is not None and own.dialect is engine.dialect

    def adopt(self, session: Any) -> None:  # noqa: ANN401 - a session, scoped or not
        """Commit a session of the application with the rest; the application closes it."""
        if all(session is not adopted for adopted in self._more):
            self._more.append(session)

    def get(self, wanted: Resource) -> Any:  # noqa: ANN401 - one of many types
        """The resource; the same object each time."""
        if wanted not in self._made:
            self._made[wanted] = self._make(wanted)
            if self._mark and self._marked is None and wanted.has_transaction:
                self._marked = self._made[wanted]
                _execute(self._marked, self._mark.statement, self._mark.begun)
        return self._made[wanted]

    def _engines_of_application(self, *, is_async: bool) -> list[Engine]:
        """Those of a kind that lead to the target: with the application's driver and options."""
        from pytest_seeddb.application.redirection import is_redirected
        from pytest_seeddb.application.sessions import load_engines

        engines = load_engines(self._settings) if self._settings and not self._needs_psycopg else ()
        return [
            engine for engine in engines if engine.dialect.is_async is is_async and is_redirected(engine, self._address)
        ]

    def _engine_of_application(self, *, is_async: bool) -> Engine | None:
        # asyncpg takes neither the statement nor the values that note a step inside of its transaction.
        engines = self._engines_of_application(is_async=is_async)
        return next((engine for engine in engines if not (self._mark and engine.driver == "asyncpg")), None)

    def _new_session(self, wanted: Resource, bind: Any) -> Any:  # noqa: ANN401 - of the class that is asked for
        """A session of the application's own class, or of the one that the annotation names."""
        from pytest_seeddb.application.sessions import new_session

        session = self._closing.enter_context(new_session(self._settings, bind, wanted.factory))
        session.autobegin = True  # it is committed at the end, also where the function did not begin anything
        return session

    def _make(self, wanted: Resource) -> Any:  # noqa: ANN401 - one of many types
        made: Any = self._address.url
        if wanted.kind == "psycopg connection":
            made = self._closing.enter_context(closing(self._address.connect()))
        elif wanted.kind == "connection":
            made = self._closing.enter_context(self.get(Resource("engine")).connect())
        elif wanted.is_session:
            made = self._new_session(wanted, self._made.get(Resource("connection")) or self.get(Resource("engine")))
        elif wanted.kind == "engine":
            from sqlalchemy import create_engine

            made = self._engine_of_application(is_async=False)
            if made is None:
                made = create_engine(self._address.url_for(DRIVER))
                self._closing.callback(made.dispose)
        elif wanted.kind == "async engine":
            from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
            from sqlalchemy.pool import NullPool

            own = self._engine_of_application(is_async=True)
            # For a plain function that starts event loops itself: each of its connections is its own.
            made = AsyncEngine(own) if own else create_async_engine(self._address.url_for(DRIVER), poolclass=NullPool)
        elif wanted.kind == "sqlalchemy url":
            from sqlalchemy import make_url

            engines = self._engines_of_application(is_async=self._is_async)
            engines += self._engines_of_application(is_async=not self._is_async)
            made = make_url(self._address.url_for(engines[0].url.drivername if engines else DRIVER))
        return made


class AsyncResources(SyncResources):
    """Resources of one call of a coroutine function, which may also use what does not wait for a loop."""

    _is_async = True

    def __init__(self, target: Target, mark: Mark | None = None) -> None:
        super().__init__(target, mark)
        self._closing_async = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._closing_async:
            with self._closing:
                if error is not None:
                    return
                if self._mark and self._marked:
                    await _execute_async(self._marked, self._mark.statement, self._mark.finished())
                for transaction in self._in_commit_order():
                    await finish(transaction.commit())

    def session(self) -> Any:  # noqa: ANN401 - of the class that was asked for
        """As `SyncResources.session`; of an asynchronous session the synchronous one inside of it."""
        wanted = Resource("async session")
        if wanted not in self._made and Resource("async connection") in self._made:
            self._made[wanted] = self._new_async_session(wanted)
            self._closing_async.push_async_callback(self._made[wanted].close)
        return self._made[wanted].sync_session if wanted in self._made else super().session()

    async def get_async(self, wanted: Resource) -> Any:  # noqa: ANN401 - one of many types
        """The resource; the same object each time."""
        if "async" not in wanted.kind:
            return self.get(wanted)
        if wanted not in self._made:
            self._made[wanted] = await self._make_async(wanted)
            if self._mark and self._marked is None and wanted.has_transaction:
                self._marked = self._made[wanted]
                await _execute_async(self._marked, self._mark.statement, self._mark.begun)
        return self._made[wanted]

    async def _make_async(self, wanted: Resource) -> Any:  # noqa: ANN401 - one of many types
        if wanted.kind == "psycopg async connection":
            import psycopg

            connection = await psycopg.AsyncConnection.connect(self._address.conninfo)
            self._closing_async.push_async_callback(connection.close)
            return connection
        if wanted.kind == "async connection":
            engine = await self.get_async(Resource("async engine"))
            return await self._closing_async.enter_async_context(engine.connect())
        if wanted.is_session:
            if Resource("async connection") not in self._made:
                await self.get_async(Resource("async engine"))
            return await self._closing_async.enter_async_context(self._new_async_session(wanted))
        from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

        if own := self._engine_of_application(is_async=True):
            return AsyncEngine(own)
        engine = create_async_engine(self._address.url_for(DRIVER))
        self._closing_async.push_async_callback(engine.dispose)
        return engine

    def _new_async_session(self, wanted: Resource) -> Any:  # noqa: ANN401 - of the class that is asked for
        from pytest_seeddb.application.sessions import new_async_session

        bind = self._made.get(Resource("async connection")) or self._made[Resource("async engine")]
        session = new_async_session(self._settings, bind, wanted.factory)
        session.sync_session.autobegin = True
        return session


def _execute(on: Any, statement: str, parameters: tuple[object, ...]) -> None:  # noqa: ANN401 - one of three types
    """Run a statement in the transaction of a session, a connection or a driver's connection."""
    connection = on.connection() if callable(getattr(on, "connection", None)) else on
    getattr(connection, "exec_driver_sql", connection.execute)(statement, parameters)


async def _execute_async(on: Any, statement: str, parameters: tuple[object, ...]) -> None:  # noqa: ANN401 - as above
    connection = await finish(on.connection()) if callable(getattr(on, "connection", None)) else on
    await finish(getattr(connection, "exec_driver_sql", connection.execute)(statement, parameters))


async def finish(result: Any) -> Any:  # noqa: ANN401 - of a plain or an asynchronous function
    """The result, awaited if it must be."""
    return await result if inspect.isawaitable(result) else result
