"""Clones: what they hold, whose they are, what is left of them."""

from __future__ import annotations

import threading

import psycopg
import pytest
from handmade import Statements

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import ServerError
from pytest_seeddb.servers.admin import Admin

SCHEMA = ["CREATE TABLE shop (id serial PRIMARY KEY, name text)"]
ROWS = ["INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 3) n"]


@pytest.fixture
def template(worker, make_plan):
    return worker.template(make_plan(Statements("schema", SCHEMA, layered=False), Statements("rows", ROWS)))


def names(address):
    with psycopg.connect(address.conninfo) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM shop ORDER BY id")]


def test_clones_of_one_template_are_separate(worker, template):
    one, two = worker.clones.make(template), worker.clones.make(template)
    with psycopg.connect(one.address.conninfo) as connection:
        connection.execute("DROP TABLE shop")
    assert names(two.address) == ["shop 1", "shop 2", "shop 3"]


@pytest.mark.slow
def test_clones_are_made_and_discarded_from_several_threads_at_once(worker, template, databases):
    errors = []

    def work():
        try:
            for _ in range(3):
                clone = worker.clones.make(template)
                assert len(names(clone.address)) == 3
                worker.clones.discard(clone)
        except BaseException as error:  # noqa: BLE001 - the test's own thread is to see it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    worker.close()
    assert errors == []
    assert worker.clones.made == 12
    assert databases(f"seeddb_c_{worker._lease}%") == set()


def test_a_discarded_clone_goes_whoever_is_connected(worker, template, databases):
    clone = worker.clones.make(template)
    with psycopg.connect(clone.address.conninfo) as left:
        left.execute("LOCK TABLE shop")
        worker.clones.discard(clone)
        worker.close()
        assert clone.name not in databases()
        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")


def test_renewing_gives_the_seeded_state_under_the_same_name_and_ends_every_connection(worker, template, databases):
    clone = worker.clones.make(template)
    for _ in range(3):
        left = psycopg.connect(clone.address.conninfo, autocommit=True)
        left.execute("DROP TABLE shop")
        worker.clones.renew(clone)
        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")
        left.close()
        assert names(clone.address) == ["shop 1", "shop 2", "shop 3"]
    worker.clones.discard(clone)
    worker.close()
    assert databases(f"seeddb_c_{worker._lease}%") == set()


def test_renewing_carries_the_databases_settings_over_again(worker, make_plan):
    setting = """DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''5MB''', current_database()); END $$"""
    clone = worker.clones.make(worker.template(make_plan(Statements("schema", [*SCHEMA, setting]))))
    worker.clones.renew(clone)
    with psycopg.connect(clone.address.conninfo) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)


@pytest.mark.slow
def test_renewing_works_while_clients_keep_connecting(worker, template):
    clone = worker.clones.make(template)
    over = threading.Event()

    def storm():
        while not over.is_set():
            try:
                psycopg.connect(clone.address.conninfo).close()
            except psycopg.OperationalError:
                continue

    storms = [threading.Thread(target=storm) for _ in range(3)]
    for each in storms:
        each.start()
    try:
        for _ in range(10):
            worker.clones.renew(clone)
    finally:
        over.set()
        for each in storms:
            each.join()
    assert names(clone.address) == ["shop 1", "shop 2", "shop 3"]


def test_what_a_build_leaves_open_is_ended_and_undone_before_the_template_is_finished(worker, make_plan):
    class Careless(Statements):
        def run(self, target, first):
            super().run(target, first)
            self.left = psycopg.connect(target.address.conninfo)
            self.left.execute("INSERT INTO shop (name) VALUES ('not committed')")

    careless = Careless("rows", ROWS)
    clone = worker.clones.make(worker.template(make_plan(Statements("schema", SCHEMA), careless)))
    careless.left.close()
    assert names(clone.address) == ["shop 1", "shop 2", "shop 3"]
    with psycopg.connect(clone.address.conninfo) as connection:  # a transaction left open keeps VACUUM from it
        assert connection.execute("SELECT relallvisible FROM pg_class WHERE relname = 'shop'").fetchone() == (1,)


def test_a_clone_that_the_server_refuses_is_an_error_that_says_so_and_leaves_nothing(worker, template, databases):
    with Admin(worker.server.address) as admin:
        admin.run(f"ALTER DATABASE {template.name} IS_TEMPLATE false")
        admin.drop(template.name)
    before = databases()
    with pytest.raises(ServerError) as caught:
        worker.clones.make(template)
    assert "The clone for a test could not be made" in str(caught.value)
    assert "3D000" in str(caught.value)
    assert databases() == before


@pytest.mark.slow
def test_closing_the_worker_drops_all_that_was_given_up_and_gives_its_locks_back(server, make_plan, databases):
    with Worker(server) as worker, Admin(server.address) as admin:
        template = worker.template(make_plan(Statements("schema", SCHEMA), Statements("rows", ROWS)))
        for isolation in ("clone", "rollback", "readonly"):
            with worker.database(template, isolation) as database, database.connect() as connection:
                connection.execute("SELECT * FROM shop")
        worker.close()
        assert databases(f"seeddb\\_c\\_{worker._lease}%") == set()
        assert admin.run("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]
        assert worker.failures == []


def test_a_seeded_database_is_dropped_also_when_its_test_fails(worker, template, databases):
    with pytest.raises(ZeroDivisionError), worker.database(template) as database:
        raise ZeroDivisionError
    worker.close()
    assert database.name not in databases()


def test_a_worker_that_closes_drops_also_the_clones_that_nobody_gave_up(server, make_plan, databases):
    with Worker(server) as worker:
        clone = worker.clones.make(worker.template(make_plan()))
        assert clone.name in databases()
    assert clone.name not in databases()
