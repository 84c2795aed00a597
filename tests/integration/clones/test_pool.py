"""Spare clones: made only where they are used up, and never beyond their bounds."""

from __future__ import annotations

import contextlib
import time

import psycopg
import pytest
from handmade import Statements
from separate import separate_server

from pytest_seeddb.clones import shape
from pytest_seeddb.clones.pool import MAX_SPARES, Clones
from pytest_seeddb.clones.shared import writing
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import CloneError
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Settings

TABLE = Statements("schema", ["CREATE TABLE t (v int)"])


@pytest.fixture
def small_server(tmp_path):
    """One that allows twelve connections."""
    with separate_server() as start:

        def few(data):
            (data / "postgresql.auto.conf").write_text("max_connections = 12\nsuperuser_reserved_connections = 1\n")

        with open_server(Settings(root=tmp_path, server=start(few).url)) as server:
            yield server


def spoil(worker, template):
    with worker.database(template) as database, database.connect(autocommit=True) as connection:
        connection.execute("DROP TABLE t")


def disposed(worker):
    """Wait until the jobs are done that were asked for so far."""
    done = []
    worker._disposal.do(done.append)
    deadline = time.monotonic() + 10
    while not done:
        assert time.monotonic() < deadline
        time.sleep(0.002)


@contextlib.contextmanager
def visitors(statement):
    """Somebody who is in each new clone before its observer, as monitoring may be."""
    make, connections = Clones.make, []

    def make_and_visit(clones, *arguments):
        clone = make(clones, *arguments)
        connections.append(psycopg.connect(writing(clone.address).conninfo, autocommit=True))
        connections[-1].execute(statement)
        return clone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clones, "make", make_and_visit)
        yield
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("isolation", ["clone", "rollback", "readonly"])
def test_a_visitor_of_each_new_clone_who_only_reads_costs_no_test_its_clone(worker, make_plan, isolation):
    template = worker.template(make_plan(TABLE))
    with visitors("SELECT count(*) FROM pg_class"), worker.database(template, isolation) as database:
        database.connect().execute("SELECT * FROM t")
    assert worker.clones.made == 1


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["clone", "rollback", "readonly"])
@pytest.mark.parametrize("statement", ["INSERT INTO t VALUES (666)", "SELECT nextval('s')"])
def test_a_visitor_of_each_new_clone_who_writes_is_an_error_that_says_so(worker, make_plan, isolation, statement):
    template = worker.template(make_plan(TABLE, Statements("sequence", ["CREATE SEQUENCE s"])))
    with visitors(statement), pytest.raises(CloneError, match="connects to each new clone") as caught:
        worker.database(template, isolation).__enter__()
    assert "10 clones" in caught.value.saw
    with worker.database(template, isolation) as database:
        assert database.connect().execute("SELECT *, (SELECT count(*) FROM t) FROM s").fetchone() == (1, 0, False, 0)


def test_no_spare_is_made_for_tests_that_use_none_up(worker, make_plan):
    template = worker.template(make_plan(TABLE))
    for _ in range(5):
        with worker.database(template):
            pass
    disposed(worker)
    assert worker.clones.made == 1


def test_one_spare_of_a_template_is_made_for_each_clone_that_is_discarded(worker, make_plan):
    template = worker.template(make_plan(TABLE))
    for number in range(1, 4):
        spoil(worker, template)
        disposed(worker)
        assert worker.clones.made == number + 1


@pytest.mark.slow
def test_spares_of_all_templates_together_stay_within_their_bound(worker, make_plan):
    others = [Statements(f"other {number}", [f"SELECT {number}"]) for number in range(MAX_SPARES + 2)]
    templates = [worker.template(make_plan(TABLE, other, name=other.name)) for other in others]
    for template in templates:
        spoil(worker, template)
    disposed(worker)
    assert worker.clones.made == len(templates) + MAX_SPARES


@pytest.mark.slow
def test_no_spare_is_made_while_half_of_the_servers_connections_are_taken_and_tests_go_on(small_server, make_plan):
    with Worker(small_server) as worker, contextlib.ExitStack() as stack:
        template = worker.template(make_plan(TABLE))
        for _ in range(4):
            stack.enter_context(psycopg.connect(small_server.address.conninfo))
        for number in range(1, 4):
            spoil(worker, template)
            disposed(worker)
            assert worker.clones.made == number
        stack.close()
        spoil(worker, template)
        disposed(worker)
        assert worker.clones.made == 4 + 1


@pytest.mark.slow
def test_where_no_observer_can_be_had_the_clone_serves_its_test_and_is_discarded(small_server, make_plan):
    with Worker(small_server) as worker, contextlib.ExitStack() as stack:
        template = worker.template(make_plan(TABLE))
        while True:  # until only the reserved connection is left: the tests' own
            try:
                stack.enter_context(psycopg.connect(small_server.address.conninfo))
            except psycopg.OperationalError:
                break
        leased = worker.pool.take(template)
        assert leased.observer is None
        stack.close()
        with psycopg.connect(leased.clone.address.conninfo) as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
        found = worker.pool.give_back(leased)
        assert (found.verdict, found.reason) == ("discard", "nobody looked at it before the test")


def test_a_spare_that_a_test_waits_for_is_settled_like_any_other(worker, make_plan):
    template = worker.template(make_plan(TABLE))
    for _ in range(6):
        spoil(worker, template)
    with worker.database(template) as database:
        assert not database.changes()
    assert database.settlement.verdict == "keep"


@pytest.mark.parametrize("rows", [0, 300])
def test_the_first_update_of_each_table_loses_no_clone(embedded_server, make_plan, rows):
    tables = [f"CREATE TABLE t{n} AS SELECT v, 'a' AS name FROM generate_series(1, {rows}) v" for n in range(8)]
    with Worker(embedded_server) as worker:
        template = worker.template(make_plan(Statements("schema", tables)))
        for n in range(8):
            with worker.database(template) as database, database.connect(autocommit=True) as connection:
                connection.execute(f"INSERT INTO t{n} VALUES (0, 'b')")
                connection.execute(f"UPDATE t{n} SET name = 'c'")
            assert database.settlement.verdict == "rewind", database.settlement
        assert worker.pool.verdicts == {"rewind": 8}
        assert worker.clones.made == (2 if rows else 1), "the test's, and one to read rows from"


def test_rows_that_a_stranger_writes_while_they_are_read_are_never_put_back(embedded_server, make_plan, monkeypatch):
    read = shape._read

    def written_and_read(clone, table):
        with psycopg.connect(clone.info.dsn, dbname=clone.info.dbname, autocommit=True) as stranger:
            stranger.execute("UPDATE t SET v = 666")
        return read(clone, table)

    with Worker(embedded_server) as worker:
        template = worker.template(make_plan(Statements("schema", ["CREATE TABLE t AS SELECT 1 AS v"])))
        for reads, verdict in ((written_and_read, "discard"), (read, "rewind")):
            monkeypatch.setattr(shape, "_read", reads)
            with worker.database(template) as database, database.connect(autocommit=True) as connection:
                assert connection.execute("SELECT v FROM t").fetchall() == [(1,)]
                connection.execute("UPDATE t SET v = 2")
            assert database.settlement.verdict == verdict, database.settlement
        with worker.database(template) as database, database.connect() as connection:
            assert connection.execute("SELECT v FROM t").fetchall() == [(1,)]
