"""What a function asks for is told from its parameters' names and annotations."""

# ruff: noqa: TC002, UP037, UP045, PLR0917 - how annotations are written is what these tests are about

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any, Optional

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import Connection, Engine, orm
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from pytest_seeddb.application.calling import is_async, name_of, resources_of
from pytest_seeddb.application.resources import is_resource

if TYPE_CHECKING:
    from elsewhere import AsyncSession as UnseenSession
    from elsewhere import Widget


class OwnSession(Session):
    pass


def kinds(function):
    return {name: each.kind for name, each in resources_of(function).items()}


def test_by_name():
    def seed(url, engine, connection, session, stores=3): ...

    async def aseed(url, engine, connection, session): ...

    assert kinds(seed) == {"url": "url", "engine": "engine", "connection": "connection", "session": "session"}
    assert kinds(aseed) == {
        "url": "url",
        "engine": "async engine",
        "connection": "async connection",
        "session": "async session",
    }


def test_by_annotation_whatever_the_name():
    def seed(
        a: Session,
        b: "Engine",
        c: Optional[Connection],
        d: Annotated[sqlalchemy.URL, "x"],
        e: orm.Session | None,
        f: psycopg.Connection[Any],
        g: OwnSession,
        h: AsyncEngine,
        url: sqlalchemy.URL,
        i: int,
        j: str,
        *args: Session,
        **kwargs: Session,
    ): ...

    assert kinds(seed) == {
        "a": "session",
        "b": "engine",
        "c": "connection",
        "d": "sqlalchemy url",
        "e": "session",
        "f": "psycopg connection",
        "g": "session",
        "h": "async engine",
        "url": "sqlalchemy url",
    }
    assert resources_of(seed)["g"].factory is OwnSession


def test_an_annotation_goes_before_the_name_and_before_async():
    async def seed(session: Session, connection: psycopg.AsyncConnection, engine: Engine, db: AsyncSession): ...

    def plain(session: AsyncSession, connection: AsyncConnection): ...

    assert kinds(seed) == {
        "session": "session",
        "connection": "psycopg async connection",
        "engine": "engine",
        "db": "async session",
    }
    assert kinds(plain) == {"session": "async session", "connection": "async connection"}


def test_annotations_that_only_type_checkers_see():
    def seed(a: UnseenSession, b: "Widget | None", c: "elsewhere.AsyncSession | None"): ...  # noqa: F821

    assert kinds(seed) == {"c": "async session"}


def test_what_other_drivers_call_a_connection_is_not_ours():
    async def seed(connection: asyncpg.Connection): ...

    def unseen(connection: "psycopg2.extensions.connection"): ...  # noqa: F821

    assert kinds(seed) == {}
    assert kinds(unseen) == {}


def test_from_the_source_alone():
    assert is_resource("session")
    assert is_resource("db", "sqlalchemy.orm.Session")
    assert is_resource("db", "sqlalchemy.ext.asyncio.AsyncSession")
    assert is_resource("db", "psycopg.Connection")
    assert not is_resource("stores")
    assert not is_resource("stores", "sqlalchemy.Integer")


class Callable:
    async def __call__(self, session): ...


async def coroutine(session): ...


@functools.wraps(coroutine)
def wrapped(*args, **kwargs):
    return coroutine(*args, **kwargs)


@pytest.mark.parametrize(
    "function", [coroutine, wrapped, Callable(), functools.partial(coroutine), functools.partial(Callable())]
)
def test_coroutine_functions_are_known_in_every_wrapping(function):
    assert is_async(function)
    assert kinds(function) == {"session": "async session"}


@pytest.mark.parametrize("function", [print, len, Session, lambda: None, int])
def test_others_are_not_async(function):
    assert not is_async(function)


def test_a_function_is_called_by_its_module_and_name():
    assert name_of(coroutine) == f"{__name__}:coroutine"
    assert name_of(functools.partial(coroutine)) == f"{__name__}:coroutine"
    assert name_of(Callable()) == f"{__name__}:Callable"
