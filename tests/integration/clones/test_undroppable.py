"""What keeps a database from being dropped is removed with it, or named with the statement that removes it."""

from __future__ import annotations

import psycopg
import pytest
from handmade import Statements
from separate import separate_server

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import CloneError
from pytest_seeddb.plan.plan import Plan
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Settings
from pytest_seeddb.templates.inventory import drop, inventory

PREPARE = ["BEGIN", "INSERT INTO t VALUES (2)", "PREPARE TRANSACTION 'left; it''s \"mine\"'"]
SUBSCRIBE = (
    'CREATE SUBSCRIPTION "My ""sub""" CONNECTION \'host=/nowhere dbname=x\' PUBLICATION p WITH (connect = false{})'
)
LEFT = {
    "prepared transaction": PREPARE,
    "prepared transaction of another role": ["SET SESSION AUTHORIZATION other", *PREPARE],
    "logical slot": ["SELECT pg_create_logical_replication_slot('kept', 'test_decoding')"],
    "slot in use": [
        "SELECT pg_create_logical_replication_slot('used', 'test_decoding')",
        "SELECT pg_logical_slot_get_changes('used', NULL, NULL)",
    ],
    "subscription without a slot": [SUBSCRIBE.format(", slot_name = NONE")],
    "subscription that is on": [SUBSCRIBE.format(""), 'ALTER SUBSCRIPTION "My ""sub""" ENABLE'],
    # Decoding waits for the transactions that are open, prepared ones among them.
    "several": ["SELECT pg_create_logical_replication_slot('more', 'test_decoding')", SUBSCRIBE.format(""), *PREPARE],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One that lets transactions be prepared, and changes be decoded."""

    def prepare(data):
        settings = "max_prepared_transactions = 9\nwal_level = logical\nmax_replication_slots = 9\n"
        (data / "postgresql.auto.conf").write_text(settings)

    root = tmp_path_factory.mktemp("root")
    with separate_server() as start, open_server(Settings(root=root, server=start(prepare).url)) as server:
        with Admin(server.address) as admin:
            admin.run("CREATE ROLE other LOGIN")
        yield server


@pytest.fixture
def plan(tmp_path):
    stage = Statements(
        "schema", ["CREATE TABLE t (v int)", "GRANT ALL ON t TO other", "INSERT INTO t VALUES (1)"]
    ).stage()
    return Plan("undroppable", "default", tmp_path, (stage,))


def left_of(server):
    with Admin(server.address) as admin:
        names = [database.name for database in admin.databases("seeddb\\_c\\_%")]
        kept = [database.name for database in admin.databases("seeddb\\_k\\_%")]
        counts = admin.run(
            "SELECT (SELECT count(*) FROM pg_prepared_xacts), (SELECT count(*) FROM pg_subscription),"
            " (SELECT count(*) FROM pg_replication_slots)"
        )[0]
    return names, kept, counts


def leave(address, statements):
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["clone", "rollback"])
@pytest.mark.parametrize("what", LEFT)
def test_it_is_removed_with_its_database_and_reaches_no_other_test(server, plan, what, isolation):
    with Worker(server) as worker:
        template = worker.template(plan)
        with worker.database(template, isolation) as database:
            leave(database.address_for_writing, LEFT[what])
        with worker.database(template, isolation) as database, psycopg.connect(database.own_address.conninfo) as after:
            query = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
            assert after.execute(query).fetchone() == (0,)
            assert after.execute("SELECT count(*) FROM t").fetchone() == (1,)
    assert worker.failures == []
    assert left_of(server) == ([], [], (0, 0, 0))


@pytest.mark.slow
@pytest.mark.parametrize("what", LEFT)
def test_a_database_with_it_can_be_reset_and_kept_and_pruned(server, plan, what):
    with Worker(server) as worker, worker.database(worker.template(plan)) as database:
        leave(database.own_address, LEFT[what])
        database.reset()
        leave(database.own_address, LEFT[what])
        database.keep()
    assert worker.failures == []
    assert len(left_of(server)[1]) == 1
    with Admin(server.address) as admin:
        assert all(drop(admin, entry) for entry in inventory(admin) if entry.kind == "kept")
    assert left_of(server) == ([], [], (0, 0, 0))


@pytest.mark.slow
def test_what_cannot_be_removed_is_named_with_its_statement_and_the_database_is_open(server, tmp_path):
    with Admin(server.address) as admin:
        admin.run("CREATE ROLE modest LOGIN CREATEDB IN ROLE pg_signal_backend")
    address = type(server.address)({**server.address.params, "user": "modest"})
    stage = Statements("schema", ["CREATE TABLE t (v int)"]).stage()
    with open_server(Settings(root=tmp_path, server=address.url)) as modest, Worker(modest) as worker:
        plan = Plan("modest", "default", tmp_path, (stage,))
        with worker.database(worker.template(plan)) as database:
            name = database.name
            own = server.address.with_database(name)
            leave(own, ["BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'left'"])
    (failure,) = worker.failures
    assert "saw:  the prepared transaction 'left' of postgres" in failure
    assert f"connect to {name} as a superuser, and run: ROLLBACK PREPARED 'left'" in failure
    leave(own, ["ROLLBACK PREPARED 'left'"])  # it is open to whoever does that
    with open_server(Settings(root=tmp_path, server=address.url)) as modest, Worker(modest) as worker:
        pass
    assert worker.failures == []
    assert left_of(server) == ([], [], (0, 0, 0))


@pytest.mark.slow
def test_every_database_that_cannot_be_dropped_is_named(server, plan, monkeypatch):
    def refuse(_self, name):
        raise CloneError(f"The database {name} cannot be dropped")

    worker = Worker(server)
    names = [worker.clones.make(worker.template(plan)).name for _ in range(2)]
    monkeypatch.setattr(worker.clones, "discard_all", lambda: None)
    worker.close()
    with monkeypatch.context() as patch:
        patch.setattr(Admin, "drop", refuse)
        with Worker(server) as next_worker:
            pass
    assert all(name in " ".join(next_worker.failures) for name in names)
    with Worker(server):
        pass
    assert left_of(server) == ([], [], (0, 0, 0))
