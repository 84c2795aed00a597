"""A user's function gets the database as it asks for it, and leaves no connection behind."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from dataclasses import replace

import psycopg
import pytest
from processes import eventually
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from pytest_seeddb.application.calling import call
from pytest_seeddb.errors import ConfigError
from pytest_seeddb.plan.plan import Mark, Marks, Step, Target

INSERT = "INSERT INTO t VALUES (1)"


@pytest.fixture
def target(tmp_path, empty_database, monkeypatch):
    monkeypatch.delitem(sys.modules, "sqlmodel", raising=False)  # these functions are written for SQLAlchemy's sessions
    with psycopg.connect(empty_database.conninfo) as own:
        own.execute("CREATE TABLE t (n int)")
    yield Target(empty_database, tmp_path)
    with psycopg.connect(empty_database.with_database("postgres").conninfo, autocommit=True) as own:
        query = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND state <> 'disabled'"
        eventually(lambda: own.execute(query, [empty_database.database]).fetchone() is None)  # no connection is left


@pytest.fixture
def rows(target):
    def rows():
        with psycopg.connect(target.address.conninfo) as own:
            return own.execute("SELECT count(*) FROM t").fetchone()[0]

    return rows


class OwnSession(Session):
    def insert(self):
        self.execute(text(INSERT))


def by_session(session):
    assert isinstance(session, Session)
    session.execute(text(INSERT))


def by_own_session(db: OwnSession):
    db.insert()


def by_connection(connection: Connection):
    connection.execute(text(INSERT))


def by_engine(engine: Engine):
    with engine.begin() as connection:
        connection.execute(text(INSERT))


def by_url(url: str):
    with psycopg.connect(url) as connection:
        connection.execute(INSERT)


def by_sqlalchemy_url(where: URL):
    engine = create_engine(where)
    with engine.begin() as connection:
        connection.execute(text(INSERT))
    engine.dispose()


def by_psycopg(connection: psycopg.Connection):
    connection.execute(INSERT)


def by_async_engine(engine: AsyncEngine):
    async def main():
        async with engine.begin() as connection:
            await connection.execute(text(INSERT))

    asyncio.run(main())


async def by_async_session(session):
    assert isinstance(session, AsyncSession)
    await session.execute(text(INSERT))


async def by_async_connection(conn: AsyncConnection):
    await conn.execute(text(INSERT))


async def by_async_engine_in_a_coroutine(engine):
    async with engine.begin() as connection:
        await connection.execute(text(INSERT))


async def by_async_psycopg(connection: psycopg.AsyncConnection):
    await connection.execute(INSERT)


async def by_plain_session_in_a_coroutine(session: Session):
    session.execute(text(INSERT))


def returning_a_coroutine(url):
    async def main():
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await connection.execute(INSERT)

    return main()


ALL = [each for name, each in list(globals().items()) if name.startswith(("by_", "returning_"))]


@pytest.mark.parametrize("function", ALL)
def test_what_it_does_is_committed(function, target, rows):
    call(function, target)
    assert rows() == 1


@pytest.mark.parametrize("function", ALL)
def test_it_can_be_called_while_a_loop_runs(function, target, rows):
    async def main():
        call(function, target)

    asyncio.run(main())
    assert rows() == 1


@pytest.mark.parametrize("function", [by_session, by_async_session, by_async_psycopg, by_plain_session_in_a_coroutine])
def test_the_step_is_noted_in_the_functions_own_transaction(function, target):
    class Noting(Marks):
        def mark(self, _step):
            return Mark("INSERT INTO t VALUES (%s)", (2,), lambda: (3,))

    call(function, replace(target, marks=Noting()), step=Step("seed"))
    with psycopg.connect(target.address.conninfo) as own:
        written = own.execute("SELECT n, xmin::text FROM t").fetchall()
    assert [n for n, _ in written] == [2, 1, 3]
    assert len({transaction for _, transaction in written}) == 1


@pytest.mark.parametrize("function", [by_session, by_connection, by_psycopg])
def test_what_a_failing_function_did_is_rolled_back(function, target, rows):
    def failing(**given):
        function(**given)
        raise ZeroDivisionError

    failing.__signature__ = __import__("inspect").signature(function)
    failing.__annotations__ = function.__annotations__
    with pytest.raises(ZeroDivisionError):
        call(failing, target)
    assert rows() == 0


def test_what_a_failing_coroutine_did_is_rolled_back(target, rows):
    async def session_only(session):
        await session.execute(text(INSERT))
        raise ZeroDivisionError

    async def connection_only(connection):
        await connection.execute(text(INSERT))
        raise ZeroDivisionError

    for function in (session_only, connection_only):
        with pytest.raises(ZeroDivisionError):
            call(function, target)
    assert rows() == 0


def test_a_session_and_a_connection_see_each_others_work(target, rows):
    def seed(session, connection):
        connection.execute(text(INSERT))
        session.execute(text(INSERT))
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 2

    async def aseed(session, connection):
        await connection.execute(text(INSERT))
        await session.execute(text(INSERT))

    call(seed, target)
    call(aseed, target)
    assert rows() == 4


def test_a_function_may_commit_by_itself(target, rows):
    def seed(session):
        session.execute(text(INSERT))
        session.commit()
        session.execute(text(INSERT))
        session.rollback()

    call(seed, target)
    assert rows() == 1


def test_arguments_are_passed_by_name_and_the_result_is_returned(target):
    def seed(engine, stores, /, customers=7, *, name="x", **more):
        return stores, customers, name, more

    assert call(seed, target, arguments={"stores": 3, "name": "y", "z": 1}) == (3, 7, "y", {"z": 1})


def test_a_function_that_asks_for_nothing_is_called(target):
    assert call(lambda: 7, target) == 7
    assert call(dict, target) == {}


def test_context_variables_reach_a_coroutine_in_its_own_thread(target):
    variable = contextvars.ContextVar("variable", default="unset")

    async def seed():
        return variable.get(), threading.current_thread() is threading.main_thread()

    async def main():
        variable.set("set")
        return call(seed, target)

    assert asyncio.run(main()) == ("set", False)


def test_what_nothing_can_fill_is_told_with_all_that_may_be_asked(target):
    def seed(session, stores): ...

    with pytest.raises(ConfigError) as caught:
        call(seed, target)
    message = str(caught.value)
    assert "seed asks for 'stores', which has no value here" in message
    assert "test_calling.py" in message
    assert "url, engine, connection or session" in message


def test_a_plain_function_cannot_have_an_async_session(target):
    def seed(session: AsyncSession): ...

    with pytest.raises(ConfigError, match="the function is not async"):
        call(seed, target)


def test_an_unknown_argument_is_told(target):
    def seed(session, stores=1): ...

    with pytest.raises(ConfigError, match="Did you mean 'stores'"):
        call(seed, target, arguments={"store": 3})
