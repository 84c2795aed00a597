"""The engines and the session factories that the settings name, as the application made them."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from pytest_seeddb.application.imports import load, module_of
from pytest_seeddb.application.redirection import engines_of
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.fingerprint import tracing
from pytest_seeddb.fingerprint.digests import Part, digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from pytest_seeddb.settings.settings import Settings

    Recipe = tuple[type[Any], dict[str, Any]]

ALL: Final = ("all",)
_OF_SEVERAL_ENGINES: Final = ("bind", "binds", "twophase")


def load_engines(settings: Settings) -> tuple[Engine, ...]:
    """The engines that the setting `engines` names; raises `ConfigError` where one cannot be had."""
    engines: dict[int, Engine] = {}
    for path, value in _values(settings, "engines"):
        try:
            engines.update({id(engine): engine for engine in engines_of(value)})
        except ConfigError as error:
            raise error.with_source(error.source or f"{path!r} of {settings.source('engines')}") from None
    return tuple(engines.values())


def parts_of_factories(settings: Settings) -> tuple[Part, ...]:
    """What a step depends on that may use a session: which factories the settings name."""
    paths = (settings.session, settings.engines if settings.engines != ALL else ())
    return (Part("session factories", digest(str(paths))),) if any(paths) else ()


def new_session(settings: Settings | None, bind: Engine | Connection, wanted: type[Session] | None = None) -> Session:
    """A session of the application's own class and with its options, on another engine.

    It has the class that is ``wanted`` if the application's is not one of these, and its options if they fit that.
    """
    from sqlalchemy.orm import Session

    cls, options = _recipe(settings, Session, wanted)
    session: Session = _with_one_engine(cls, Session)(bind=bind, **options)
    return session


def new_async_session(
    settings: Settings | None, bind: AsyncEngine | AsyncConnection, wanted: type[AsyncSession] | None = None
) -> AsyncSession:
    """The same for an asynchronous engine; ``expire_on_commit`` is false unless the application says otherwise.

    So objects stay readable after a commit: reloading them would need an await.
    """
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    cls, options = _recipe(settings, AsyncSession, wanted)
    inner = _with_one_engine(options.get("sync_session_class", cls.sync_session_class), Session)
    options = {"expire_on_commit": False, **options, "sync_session_class": inner}
    session: AsyncSession = cls(bind=bind, **options)
    return session


def _recipe(settings: Settings | None, base: type[Any], wanted: type[Any] | None) -> Recipe:
    """The class and the options of sessions of a kind."""
    if named := _named_recipe(settings, base):
        cls, options = named
        if wanted is None or issubclass(cls, wanted):
            return named
        return wanted, options if issubclass(wanted, cls.__bases__) else {}  # a factory makes a class below its own
    if wanted is None and "sqlmodel" in sys.modules:  # whose own sessions all of its documentation uses
        sqlmodel = import_module("sqlmodel" if base.__name__ == "Session" else "sqlmodel.ext.asyncio.session")
        wanted = getattr(sqlmodel, base.__name__)
    return wanted or base, {}


def _named_recipe(settings: Settings | None, base: type[Any]) -> Recipe | None:
    """That of the first factory of the kind in `session`, else in `engines`."""
    for path, value in _values(settings, "session"):
        recipe = _recipe_of(value)
        if recipe is None:
            raise ConfigError(
                "This is not a session factory",
                saw=f"a value of the type {type(value).__qualname__}",
                source=f"{path!r} of {settings.source('session') if settings else 'session'}",
                remedy="name a sessionmaker, async_sessionmaker, scoped_session, a class of sessions, or a "
                "configuration that makes one of them",
            )
        if issubclass(recipe[0], base):
            return recipe
    for _, value in _values(settings, "engines"):
        recipe = _recipe_of(value)
        if recipe is not None and issubclass(recipe[0], base):
            return recipe
    return None


def _values(settings: Settings | None, key: str) -> Iterator[tuple[str, object]]:
    if settings is None or (paths := getattr(settings, key)) == ALL:
        return
    for path in paths:
        value = load(path, source=settings.source(key), root=settings.root)
        tracing.note_module(module_of(path))
        yield path, value


def _recipe_of(value: Any) -> Recipe | None:  # noqa: ANN401 - whatever the application keeps in a module
    """The class of a session factory, and the options that it gives; ``None`` for anything else."""
    from sqlalchemy.orm import Session, scoped_session, sessionmaker

    asynchronous: Any = sys.modules.get("sqlalchemy.ext.asyncio")  # its import needs greenlet
    if isinstance(value, type):
        kinds = (Session, asynchronous.AsyncSession) if asynchronous else (Session,)
        return (value, {}) if issubclass(value, kinds) else None
    scoped: Any = (scoped_session, getattr(asynchronous, "async_scoped_session", ()))
    factory: Any = (sessionmaker, getattr(asynchronous, "async_sessionmaker", ()))
    if isinstance(value, scoped):
        return _recipe_of(value.session_factory)
    if isinstance(value, factory):
        return value.class_, {name: option for name, option in value.kw.items() if name not in _OF_SEVERAL_ENGINES}
    if hasattr(value, "create_session_maker"):  # a configuration of Advanced Alchemy
        return _recipe_of(value.create_session_maker())
    if isinstance(getattr(value, "session", None), scoped_session):  # Flask-SQLAlchemy's object
        return _recipe_of(value.session)
    return None


def _with_one_engine(cls: Any, base: type[Any]) -> Any:  # noqa: ANN401 - a class, or what makes sessions
    """The class; one that chooses between engines of the application with the one that it is given in their place."""
    own = getattr(cls, "get_bind", None)
    if own in {None, base.get_bind}:  # none: Advanced Alchemy has a sessionmaker there
        return cls
    return type(cls.__name__, (cls,), {"get_bind": lambda self, *_, **__: self.bind, "__module__": cls.__module__})
