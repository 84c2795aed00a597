"""ORM sessions of background threads and tasks: the end of a test neither fails because of them nor waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from pytest_seeddb.application.redirection import redirect

# The connections of interrupted threads and tasks may be collected before they are given back.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
DRIVERS = ["psycopg", "psycopg2", "pg8000"]
URL = "postgresql+{}://nobody@127.0.0.1:1/app"


@pytest.fixture(autouse=True)
def collected_here_and_not_in_a_later_test():
    yield
    gc.collect()


@contextlib.contextmanager
def in_background(function):
    """Call the function again and again in a thread, whatever it raises, as a poller does."""
    stop, errors = threading.Event(), []

    def run():
        while not stop.is_set():
            try:
                function()
            except Exception as error:  # noqa: BLE001 - a poller goes on, whatever happens
                errors.append(error)
                time.sleep(0.001)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield errors
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_thread_that_polls_with_a_session_makes_no_tear_down_fail(driver, empty_database):
    engine = create_engine(URL.format(driver))

    def poll():
        with Session(engine) as session:
            session.execute(text("SELECT 1")).all()
            session.execute(text("SELECT pg_sleep(0.001)"))

    with in_background(poll):
        for _ in range(30):
            with redirect(empty_database, [engine]), Session(engine) as session:
                assert session.scalar(text("SELECT current_database()")) == empty_database.database
                time.sleep(0.002)


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_end_of_a_test_does_not_wait_for_a_statement_of_another_thread(driver, empty_database):
    engine, runs = create_engine(URL.format(driver)), threading.Event()

    def wait():
        with Session(engine) as session:
            session.execute(text("SELECT 1"))
            runs.set()
            session.execute(text("SELECT pg_sleep(10)"))

    with contextlib.ExitStack() as stack:
        with redirect(empty_database, [engine]):
            errors = stack.enter_context(in_background(wait))
            assert runs.wait(10)
            time.sleep(0.05)
            started = time.monotonic()
        assert time.monotonic() - started < 2
        deadline = time.monotonic() + 5
        while not errors and time.monotonic() < deadline:
            time.sleep(0.01)
    assert errors


def test_a_session_that_another_thread_is_using_keeps_its_objects(empty_database):
    """It is not closed under that thread: what was added to it before does not get lost without a word."""
    engine = create_engine(URL.format("psycopg"))
    added, over, seen = threading.Event(), threading.Event(), []

    def work():
        with Session(engine) as session:
            session.begin()
            added.set()
            assert over.wait(10)
            seen.append(session.in_transaction())

    with redirect(empty_database, [engine]):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert added.wait(10)
    over.set()
    thread.join()
    assert seen == [True]


def test_an_idle_session_of_a_waiting_thread_is_closed(empty_database):
    """A thread pool's thread that has finished its work holds nothing: what it left unsaved must not be saved later."""
    engine = create_engine(URL.format("psycopg"))
    sessions = scoped_session(sessionmaker(engine))
    work, done, states = threading.Semaphore(0), threading.Semaphore(0), []

    def run():
        for _ in range(2):
            work.acquire()
            states.append(sessions().in_transaction())
            sessions().execute(text("SELECT 1"))
            done.release()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    for _ in range(2):
        with redirect(empty_database, [engine]):
            work.release()
            assert done.acquire(timeout=10)
    thread.join()
    assert states == [False, False]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_task_that_waits_inside_of_a_session_makes_no_tear_down_fail(driver, empty_database):
    engine = create_async_engine(URL.format(driver))
    sessions = async_sessionmaker(engine)

    over = False

    async def poll():
        while not over:
            with contextlib.suppress(Exception):
                async with sessions() as session:
                    await session.execute(text("SELECT 1"))
                    await session.execute(text("SELECT pg_sleep(0.003)"))
            await asyncio.sleep(0)

    async def test():
        async with sessions() as session:
            assert await session.scalar(text("SELECT current_database()")) == empty_database.database
            await asyncio.sleep(0.002)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    task = loop.create_task(poll())
    for _ in range(25):
        with redirect(empty_database, [engine.sync_engine]):
            loop.run_until_complete(test())
    over = True  # a cancellation can get lost where the connection breaks at the same time
    loop.run_until_complete(asyncio.wait_for(task, 10))
    loop.close()


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_task_in_the_loop_of_another_thread_makes_no_tear_down_fail(driver, empty_database):
    engine = create_async_engine(URL.format(driver))
    sessions, stop = async_sessionmaker(engine), threading.Event()

    async def poll():
        while not stop.is_set():
            with contextlib.suppress(Exception):
                async with sessions() as session:
                    await asyncio.wait_for(session.execute(text("SELECT pg_sleep(0.003)")), 1)
            await asyncio.sleep(0)

    thread = threading.Thread(target=lambda: asyncio.run(poll()), daemon=True)
    thread.start()
    for _ in range(25):
        with redirect(empty_database, [engine.sync_engine]):
            time.sleep(0.004)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_a_connection_that_arrives_after_the_test_is_not_used(empty_database):
    """A thread was connecting when the test ended: it gets no connection to what is another test's database by then."""
    engine, connecting, over, seen = create_engine(URL.format("psycopg")), threading.Event(), threading.Event(), []
    connect = engine.dialect.connect

    def slow(*args, **named):
        connection = connect(*args, **named)
        connecting.set()
        assert over.wait(10)
        return connection

    def work():
        try:
            with engine.connect() as connection:
                seen.append(connection.scalar(text("SELECT current_database()")))
        except Exception as error:  # noqa: BLE001 - which one it is, is what counts
            seen.append(type(error).__name__)

    engine.dialect.connect = slow
    with redirect(empty_database, [engine]):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert connecting.wait(10)
    over.set()
    thread.join()
    assert seen == ["OperationalError"]  # its own address, where nothing listens
