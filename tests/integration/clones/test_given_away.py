"""An address that may have left this process leads nowhere once its test is over."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from handmade import Statements
from processes import eventually
from sqlalchemy import text

from pytest_seeddb.clones.engines import open_engine
from pytest_seeddb.clones.shared import writing

STRANGER = """
import sys, time, psycopg
end = time.time() + 2
while time.time() < end:
    try:
        with psycopg.connect(sys.argv[1], autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("INSERT INTO t VALUES (666)")
    except psycopg.Error:
        pass
"""


@pytest.fixture
def template(worker, make_plan):
    return worker.template(make_plan(Statements("schema", ["CREATE TABLE t (v int)", "INSERT INTO t VALUES (1)"])))


@pytest.fixture
def ending():
    """An event that ends what a test left behind."""
    event, running = threading.Event(), _thread._count()
    yield event
    event.set()
    while _thread._count() > running:  # one that ends later would hide another that begins
        time.sleep(0.001)


def fork():
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


def spawn():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    child.start()
    child.join()


def start_thread(ending):
    threading.Thread(target=ending.wait, daemon=True).start()


def start_executor(ending):
    ThreadPoolExecutor(1).submit(ending.wait)


def start_unlisted_thread(ending):
    _thread.start_new_thread(ending.wait, ())


READ = {
    name: lambda database, _ending, name=name: getattr(database, name) for name in ("url", "conninfo", "env", "name")
}
LEFT = {
    "subprocess": lambda _database, _ending: subprocess.run([sys.executable, "-c", ""], check=True),
    "system": lambda _database, _ending: os.system("true"),
    "posix_spawn": lambda *_: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
    "fork": lambda *_: fork(),
    "multiprocessing": lambda *_: spawn(),
    "thread": lambda _database, ending: start_thread(ending),
    "executor": lambda _database, ending: start_executor(ending),
    "thread that is not listed": lambda _database, ending: start_unlisted_thread(ending),
}
WAYS = {**READ, **LEFT}


def names_of_next_tests(worker, template, isolation):
    names = []
    for _ in range(4):
        with worker.database(template, isolation) as database:
            names.append(database.own_address.database)
    return names


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["clone", "rollback", "readonly"])
@pytest.mark.parametrize("way", WAYS)
def test_no_later_test_has_the_database_of_one_that_may_have_given_its_address_away(
    worker, template, ending, way, isolation
):
    with worker.database(template, isolation) as database:
        name = database.own_address.database
        WAYS[way](database, ending)
    assert name not in names_of_next_tests(worker, template, isolation)


@pytest.mark.parametrize("isolation", ["clone", "rollback", "readonly"])
def test_what_was_opened_here_and_is_closed_gives_nothing_away(worker, template, isolation):
    with worker.database(template, isolation) as database:
        name = database.own_address.database
        database.connect().execute("SELECT * FROM t")
        thread = threading.Thread(target=lambda: database.connect().close())
        thread.start()
        thread.join()
        with open_engine(database) as engine:
            with engine.connect() as connection:
                connection.execute(text("SELECT * FROM t"))
            database.reset()
    assert set(names_of_next_tests(worker, template, isolation)) == {name}


def test_a_thread_that_runs_since_an_earlier_test_costs_later_ones_nothing(worker, template, ending):
    start_thread(ending)
    assert len(set(names_of_next_tests(worker, template, "clone"))) == 1


@contextmanager
def stranger(address):
    process = subprocess.Popen([sys.executable, "-c", STRANGER, address.conninfo])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["clone", "rollback", "readonly"])
def test_a_child_that_goes_on_writing_reaches_no_later_test(worker, template, isolation):
    def rows(database):
        with psycopg.connect(writing(database.own_address).conninfo) as connection:
            return connection.execute("SELECT count(*) FROM t").fetchone()[0]

    with ExitStack() as stack:
        with worker.database(template, isolation) as database:
            stack.enter_context(stranger(writing(database.address)))
            eventually(lambda: rows(database) > 1)
        for _ in range(20):
            with worker.database(template, isolation) as later:
                time.sleep(0.03)
                assert rows(later) == 1


def test_the_database_of_a_test_that_gave_its_address_away_is_used_again(worker, template):
    for _ in range(10):
        with worker.database(template) as database:
            assert database.url
    assert worker.clones.made <= 3
    assert worker.pool.verdicts == {"keep": 10}


@pytest.mark.parametrize("isolation", ["rollback", "readonly"])
def test_two_shared_clones_take_turns_where_tests_give_their_address_away(worker, template, isolation):
    for _ in range(10):
        with worker.database(template, isolation) as database, psycopg.connect(database.url) as connection:
            assert connection.execute("SELECT v FROM t").fetchall() == [(1,)]
    assert worker.clones.made <= 2


def test_an_address_that_was_given_away_stays_valid_over_a_reset(worker, template):
    with worker.database(template) as database:
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE other (v int)")
        database.reset()
        with psycopg.connect(database.url) as connection:
            assert connection.execute("SELECT to_regclass('other')").fetchone() == (None,)
