"""The shared clone: each test finds the seeded state, and it is not given up without need."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import closing, contextmanager

import psycopg
import pytest
from handmade import Statements

from pytest_seeddb.clones.engines import AsyncJoinedConnection, open_async_engine
from pytest_seeddb.clones.observer import Look
from pytest_seeddb.clones.shared import writing
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.plan.plan import Plan
from pytest_seeddb.servers.admin import Admin

SCHEMA = [
    "CREATE TABLE shop (id serial PRIMARY KEY, name text UNIQUE)",
    "CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, shop int REFERENCES shop, price numeric)",
    'CREATE SCHEMA "Odd ""schema"" one"',
    'CREATE SEQUENCE "Odd ""schema"" one"."it\'s, a ""sequence"" %s" START 7 INCREMENT -2 MAXVALUE 100',
    "CREATE UNLOGGED SEQUENCE light",
    "CREATE SEQUENCE ticket START 5 CACHE 20",
    "CREATE VIEW names AS SELECT name FROM shop",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM shop",
    "SELECT setval('light', 40, true)",
]
ROWS = [
    "INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 50) n",
    "INSERT INTO item (shop, price) SELECT n, n FROM generate_series(1, 50) n",
    "REFRESH MATERIALIZED VIEW counted",
]
ODD = """'"Odd ""schema"" one"."it''s, a ""sequence"" %s"'"""


@pytest.fixture(scope="module")
def scene(embedded_server, tmp_path_factory):
    """A worker and a template, the same for all tests here: each finds it seeded or the clone is new."""
    own = Statements("own", [f"SELECT '{uuid.uuid4()}'"], layered=False)
    stages = (own, Statements("schema", SCHEMA, layered=False), Statements("rows", ROWS))
    plan = Plan("shared", "default", tmp_path_factory.mktemp("shared"), tuple(each.stage() for each in stages))
    with Worker(embedded_server) as worker:
        yield worker, worker.template(plan)


@pytest.fixture
def shared(scene):
    worker, template = scene
    return worker.shared_clone(template)


def execute(address, *statements, commit=True):
    with closing(psycopg.connect(address.conninfo)) as connection:
        for each in statements:
            connection.execute(each)
        if commit:
            connection.commit()


THIS = "SELECT oid FROM pg_database WHERE datname = current_database()"


def state(clone):
    """Everything of the clone that a test could see."""
    queries = [
        "SELECT (id, name, ctid)::text FROM shop",
        "SELECT (id, shop, price, ctid)::text FROM item",
        "SELECT (s.schemaname, s.sequencename, s.last_value)::text FROM pg_sequences s ORDER BY 1",
        "SELECT (relname, relacl, relkind)::text FROM pg_class WHERE oid > 16383 AND relkind <> 't' ORDER BY 1",
        "SELECT obj_description('shop'::regclass)",
        "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'made%'",
        f"SELECT setconfig::text FROM pg_db_role_setting WHERE setrole <> 0 AND setdatabase = ({THIS})",
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()",
        "SELECT oid::text FROM pg_largeobject_metadata",
    ]
    with psycopg.connect(clone.address.conninfo) as connection:
        return [connection.execute(each).fetchall() for each in queries]


def sequences(clone):
    names = ["shop_id_seq", "item_id_seq", "light", "ticket", '"Odd ""schema"" one"."it\'s, a ""sequence"" %%s"']
    with psycopg.connect(clone.address.conninfo) as connection:
        query = "SELECT last_value, is_called FROM {}"
        return [connection.execute(query.format(each).replace("%%", "%")).fetchone() for each in names]


@contextmanager
def one_test(shared, *, rolled_back):
    clone = shared.take()
    try:
        yield clone
    finally:
        shared.settle(rolled_back=rolled_back)


def changes(shared):
    return shared.changes({}, time.monotonic() + 1, lambda: True)


def kept(shared, clone):
    return shared.take().name == clone.name


WRITES = {
    "insert": "INSERT INTO shop (name) VALUES ('new')",
    "update": "UPDATE shop SET name = name || '!' WHERE id = 1",
    "update to the same": "UPDATE shop SET name = name WHERE id = 1",
    "delete": "DELETE FROM item WHERE id = 1",
    "truncate": "TRUNCATE item",
    "truncate and restart": "TRUNCATE shop RESTART IDENTITY CASCADE",
    "create table": "CREATE TABLE other (id int)",
    "unlogged table": "CREATE UNLOGGED TABLE other AS SELECT 1 AS one",
    "temporary table": "CREATE TEMPORARY TABLE other AS SELECT 1 AS one",
    "drop table": "DROP TABLE item",
    "alter table": "ALTER TABLE shop ADD extra int DEFAULT 3",
    "create index": "CREATE INDEX ON item (price)",
    "create function": "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create sequence": "CREATE SEQUENCE another",
    "drop sequence": "DROP SEQUENCE ticket",
    "alter sequence": "ALTER SEQUENCE ticket RESTART WITH 99",
    "grant": "GRANT SELECT ON shop TO PUBLIC",
    "comment": "COMMENT ON TABLE shop IS 'ours'",
    "analyze": "ANALYZE shop",
    "large object": "SELECT lo_from_bytea(0, 'abc')",
    "refresh": "REFRESH MATERIALIZED VIEW counted",
    "cluster": "CLUSTER shop USING shop_pkey",
    "copy": "COPY shop (name) FROM PROGRAM 'echo copied'",
    "merge": "MERGE INTO shop USING (VALUES (1)) v (n) ON id = n WHEN MATCHED THEN UPDATE SET name = 'merged'",
    "create role": "CREATE ROLE made_by_a_test",
    "default privileges": "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    "extension": "CREATE EXTENSION pg_trgm",
    "lock for update": "SELECT id FROM shop FOR UPDATE",
}
OF_THE_DATABASE = {
    "setting": "EXECUTE format('ALTER DATABASE %I SET work_mem = ''5MB''', current_database())",
    "grant on database": "EXECUTE format('GRANT TEMP ON DATABASE %I TO PUBLIC', current_database())",
    "comment on database": "EXECUTE format('COMMENT ON DATABASE %I IS ''mine''', current_database())",
    "setting of a role": "EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET a.b = ''c''', current_database())",
}
WRITES |= {name: f"DO $$ BEGIN {each}; END $$" for name, each in OF_THE_DATABASE.items()}
HARMLESS = {"lock for update"}
"""Writes that change nothing that a test could see: no counter moves."""

MOVES = [
    "SELECT nextval('shop_id_seq')",
    "SELECT setval('item_id_seq', 1000)",
    "SELECT setval('ticket', 1, false)",
    "SELECT nextval('ticket')",
    "SELECT nextval('light') FROM generate_series(1, 10)",
    f"SELECT nextval({ODD})",
]
READS = [
    "SELECT count(*) FROM shop JOIN item ON item.shop = shop.id",
    "SELECT * FROM names ORDER BY name DESC",
    "EXPLAIN ANALYZE SELECT * FROM shop",
    "UPDATE shop SET name = 'x' WHERE id < 0",
    "DELETE FROM item WHERE false",
    "NOTIFY anybody",
    "LISTEN anybody",
    "SELECT pg_advisory_lock(17)",
    "SELECT pg_notify('a', 'b')",
    "SET work_mem = '5MB'",
    "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM shop",
    "LOCK TABLE shop",
    "SAVEPOINT s",
]


@pytest.fixture(autouse=True)
def no_roles_left(server_address):
    yield
    with psycopg.connect(server_address.conninfo, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS made_by_a_test")


@pytest.fixture(scope="module")
def seeded(scene):
    worker, template = scene
    clone = worker.clones.make(template)
    yield state(clone), sequences(clone)
    worker.clones.discard(clone)


def is_seeded(shared, seeded):
    with one_test(shared, rolled_back=False) as clone:
        return (state(clone), sequences(clone)) == seeded


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("isolation", ["readonly", "rollback"])
def test_a_committed_write_costs_the_clone_whatever_the_isolation(shared, seeded, isolation, write):
    with one_test(shared, rolled_back=isolation == "rollback") as clone:
        with closing(psycopg.connect(writing(clone.address).conninfo)) as connection:
            connection.execute(WRITES[write])
            is_told = [bool(changes(shared))]
            connection.commit()
            is_told.append(bool(changes(shared)))
        is_told.append(bool(changes(shared)))
        assert write in HARMLESS or all(is_told)
    assert kept(shared, clone) == (write in HARMLESS)
    if write == "create role":  # that is the server's, and no clone's
        with psycopg.connect(clone.address.conninfo.replace(clone.name, "postgres"), autocommit=True) as connection:
            connection.execute("DROP ROLE made_by_a_test")
    assert is_seeded(shared, seeded)


@pytest.mark.parametrize("end", ["rollback", "lost"])
def test_writes_that_are_rolled_back_leave_the_clone_as_it_was(shared, seeded, end):
    with one_test(shared, rolled_back=True) as clone:
        for write in WRITES.values():
            with psycopg.connect(writing(clone.address).conninfo) as connection:
                connection.execute(write)
                connection.rollback() if end == "rollback" else connection.pgconn.finish()
    assert kept(shared, clone)
    assert is_seeded(shared, seeded)


def test_a_readonly_test_that_writes_and_rolls_back_is_doubted(shared, seeded):
    with one_test(shared, rolled_back=False) as clone:
        execute(writing(clone.address), WRITES["insert"], commit=False)
    assert not kept(shared, clone)
    assert is_seeded(shared, seeded)


@pytest.mark.parametrize("isolation", ["readonly", "rollback"])
@pytest.mark.parametrize("commit", [False, True], ids=["rolled back", "committed"])
def test_every_kind_of_sequence_is_set_back_and_the_clone_is_kept(shared, seeded, isolation, commit):
    with one_test(shared, rolled_back=isolation == "rollback") as clone:
        execute(writing(clone.address), *MOVES, commit=commit)
        assert sequences(clone) != seeded[1]
    assert kept(shared, clone)
    assert is_seeded(shared, seeded)


def test_sequences_are_set_back_in_the_middle_of_a_test(shared, seeded):
    with one_test(shared, rolled_back=True) as clone:
        execute(writing(clone.address), *MOVES, commit=False)
        shared.restore_sequences()
        assert sequences(clone) == seeded[1]


@pytest.mark.parametrize("isolation", ["readonly", "rollback"])
def test_pure_reads_keep_the_clone(shared, seeded, isolation):
    with one_test(shared, rolled_back=isolation == "rollback") as clone:
        execute(writing(clone.address), *READS)
        execute(clone.address, *READS[:3])
        assert not changes(shared)
    assert kept(shared, clone)
    assert is_seeded(shared, seeded)


def test_what_other_workers_do_at_the_same_time_does_not_cost_the_clone(scene, shared, embedded_server):
    mine, template = scene
    first = shared.take()
    for _ in range(3):
        with one_test(shared, rolled_back=False) as clone, Worker(embedded_server) as other:
            execute(clone.address, *READS[:3])
            other.clones.discard(other.clones.make(template))
            mine.clones.discard(mine.clones.make(template))
        mine.clones.discard(mine.clones.make(template))
    assert kept(shared, first)


@pytest.mark.slow
def test_a_test_that_lasts_longer_than_the_server_holds_counters_back_keeps_the_clone(shared):
    shared.take()
    shared.give_up()
    with one_test(shared, rolled_back=False) as clone:
        execute(clone.address, *READS[:3])
        time.sleep(1.2)  # a backend reports its counts after a second at the earliest
    assert kept(shared, clone)


def test_connections_left_open_in_a_transaction_are_ended_and_undone(shared, seeded):
    with one_test(shared, rolled_back=True) as clone:
        left = psycopg.connect(writing(clone.address).conninfo)
        left.execute("DELETE FROM item")
        left.execute("LOCK TABLE shop")
    assert kept(shared, clone)
    assert is_seeded(shared, seeded)
    with pytest.raises(psycopg.OperationalError):
        left.execute("SELECT 1")


@pytest.mark.parametrize("isolation", ["readonly", "rollback"])
def test_a_test_that_ends_every_connection_to_its_database_costs_no_more_than_the_clone(shared, seeded, isolation):
    with one_test(shared, rolled_back=isolation == "rollback") as clone:
        execute(
            writing(clone.address),
            MOVES[0],
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
    assert not kept(shared, clone)
    assert is_seeded(shared, seeded)


def test_a_failure_while_settling_gives_the_clone_up(scene, shared, seeded, monkeypatch):
    clone = shared.take()
    execute(writing(clone.address), WRITES["truncate"])

    def refuse(*_arguments, **_named):
        raise psycopg.OperationalError

    with monkeypatch.context() as patch, closing(psycopg.connect(clone.address.conninfo)):
        patch.setattr(Admin, "evict", refuse)
        with pytest.raises(psycopg.OperationalError):
            shared.settle(rolled_back=True)
    assert not kept(shared, clone)
    assert is_seeded(shared, seeded)


def test_a_failure_while_taking_leaves_no_clone_that_nobody_watches(shared, seeded, monkeypatch):
    shared.give_up()

    def refuse(*_arguments, **_named):
        raise psycopg.OperationalError

    with monkeypatch.context() as patch:
        patch.setattr(Look, "of", refuse)
        with pytest.raises(psycopg.OperationalError):
            shared.take()
    with one_test(shared, rolled_back=True) as clone:
        execute(writing(clone.address), WRITES["truncate"])
    assert not kept(shared, clone)
    assert is_seeded(shared, seeded)


def test_counters_that_were_reset_in_between_count_as_doubt(shared, seeded):
    shared.take()
    shared.give_up()
    with one_test(shared, rolled_back=True) as clone:
        execute(writing(clone.address), WRITES["delete"])
        execute(writing(clone.address), "SELECT pg_stat_reset()")
    assert not kept(shared, clone)
    assert is_seeded(shared, seeded)


@pytest.mark.slow
def test_rollback_and_readonly_tests_take_turns_on_one_clone(shared, seeded):
    first = shared.take()
    for turn in range(6):
        with one_test(shared, rolled_back=turn % 2 == 0) as clone:
            if turn % 2 == 0:
                for write in (*WRITES.values(), MOVES[0]):
                    execute(writing(clone.address), write, commit=False)
            else:
                assert (state(clone), sequences(clone)) == seeded
    assert kept(shared, first)
    with one_test(shared, rolled_back=True) as clone:
        execute(writing(clone.address), WRITES["update"])
    assert is_seeded(shared, seeded)


def test_a_task_that_is_cancelled_before_it_joins_the_transaction_leaves_no_connection(scene, monkeypatch):
    worker, template = scene
    joining = []

    async def cancel(connection, *_arguments):
        joining.append(connection)
        raise asyncio.CancelledError

    async def use(engine):
        async with engine.connect():
            pass

    with worker.database(template, "rollback") as database, open_async_engine(database) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(AsyncJoinedConnection, "execute", cancel)
            with pytest.raises(asyncio.CancelledError):
                asyncio.run(use(engine))
        assert [connection.closed for connection in joining] == [True]


def test_connections_of_ones_own_cannot_write(shared):
    with one_test(shared, rolled_back=True) as clone, psycopg.connect(clone.address.conninfo) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM item")
        connection.rollback()
