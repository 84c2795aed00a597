"""What `seeded_db.changes` tells of all that was committed before it was asked, and where it cannot tell."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import nullcontext, suppress

import psycopg
import pytest
from attacks import times
from handmade import Statements
from sqlalchemy import text
from writers import ENDS, WAYS, writers

from pytest_seeddb.clones import counting
from pytest_seeddb.clones import database as database_module
from pytest_seeddb.clones.changes import Changes, TableChange
from pytest_seeddb.clones.engines import open_async_engine, open_engine
from pytest_seeddb.clones.pool import CloneOptions
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.errors import SeedDbError

SCHEMA = [
    "CREATE TABLE t (id serial, v int)",
    "INSERT INTO t (v) VALUES (1), (2)",
    "CREATE SCHEMA s",
    "CREATE TABLE s.u (v int)",
]


@pytest.fixture
def template(worker, make_plan):
    return worker.template(make_plan(Statements("schema", SCHEMA)))


def test_under_rollback_the_transactions_own_rows_are_told_and_those_of_savepoints_that_were_rolled_back(
    worker, template
):
    with worker.database(template, "rollback") as database, open_engine(database) as engine:
        assert database.changes() == Changes()
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t (v) VALUES (3), (4)"))
            connection.execute(text("INSERT INTO s.u VALUES (5)"))
        changes = database.changes()
        assert changes.tables == (TableChange("s.u", 1, 0, 0), TableChange("t", 2, 0, 0))
        assert [name.rpartition(".")[2] for name in changes.sequences] == ["t_id_seq"]
        database.reset()
        assert database.changes() == Changes()


def test_under_rollback_a_failed_transaction_is_an_error_that_says_to_roll_back(worker, template):
    with worker.database(template, "rollback") as database, open_engine(database) as engine:
        with engine.connect() as connection:
            with pytest.raises(Exception, match="division by zero"):
                connection.execute(text("SELECT 1 / 0"))
            with pytest.raises(SeedDbError, match="roll back first"):
                database.changes()
        assert database.changes() == Changes()


def test_under_rollback_with_an_async_engine_it_is_an_error_that_says_why(worker, template):
    async def write(engine):
        async with engine.begin() as connection:
            await connection.execute(text("INSERT INTO t (v) VALUES (3)"))

    with worker.database(template, "rollback") as database, open_async_engine(database) as engine:
        asyncio.run(write(engine))
        with pytest.raises(SeedDbError, match="belongs to the event loop"):
            database.changes()


def test_under_readonly_there_are_none(worker, template):
    with worker.database(template, "readonly") as database:
        with database.connect() as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO t (v) VALUES (1)")
        assert database.changes() == Changes()


@pytest.mark.parametrize("isolation", ["readonly", "rollback"])
def test_what_somebody_committed_to_the_shared_clone_in_spite_of_all_is_not_nothing(worker, template, isolation):
    with worker.database(template, isolation) as database:
        assert not database.changes()
        with database.connect() as connection:
            connection.execute("SET TRANSACTION READ WRITE")
            connection.execute("INSERT INTO t (v) VALUES (1)")
            connection.commit()
            connection.execute("SELECT 1")
            connection.commit()
            assert database.changes().beyond_rows


@pytest.mark.parametrize("isolation", ["readonly", "rollback"])
def test_what_a_stranger_commits_to_the_shared_clone_is_not_nothing_from_its_first_row(
    worker, template, isolation, server_address
):
    with worker.database(template, isolation) as database:
        stranger = psycopg.connect(database.url, options="-c default_transaction_read_only=off")
        stranger.execute("SELECT * FROM t")
        assert not database.changes()
        stranger.execute("INSERT INTO t (id, v) VALUES (100, 1)")
        for end in (lambda: None, stranger.commit):
            end()
            assert [other.state[:4] for other in database.changes().not_known] == ["idle"]
        close(stranger, server_address)
        changes = database.changes()
        assert (changes.beyond_rows, changes.not_known) == (True, ())


def test_under_rollback_what_the_transaction_changed_beside_rows_counts(worker, template):
    with worker.database(template, "rollback") as database, open_engine(database) as engine:
        with engine.begin() as connection:
            connection.execute(text("SELECT * FROM t FOR UPDATE"))
            assert not database.changes()
        for statement in (
            "CREATE TABLE other (v int)",
            "SELECT lo_create(0)",
            "TRUNCATE t",
            "COMMENT ON TABLE t IS 'x'",
        ):
            with engine.begin() as connection:
                connection.execute(text(statement))
            changes = database.changes()
            assert (changes.beyond_rows, changes.not_known, changes.tables) == (True, (), ()), statement
            database.reset()
            assert database.changes() == Changes()


OF_THE_SERVER = {
    "CREATE ROLE made_by_a_test": "DROP ROLE made_by_a_test",
    "ALTER ROLE CURRENT_USER SET a.b = '1'": "ALTER ROLE CURRENT_USER RESET a.b",
    "ALTER ROLE ALL SET a.b = '1'": "ALTER ROLE ALL RESET a.b",
    "ALTER SYSTEM SET work_mem = '5MB'": "ALTER SYSTEM RESET work_mem",
    "CREATE DATABASE made_by_a_test": "DROP DATABASE made_by_a_test",
    "ALTER DATABASE postgres SET a.b = '1'": "ALTER DATABASE postgres RESET a.b",
    "GRANT CONNECT ON DATABASE postgres TO pg_monitor": "REVOKE CONNECT ON DATABASE postgres FROM pg_monitor",
    "COMMENT ON DATABASE postgres IS 'changed'": "COMMENT ON DATABASE postgres IS NULL",
    "COMMENT ON TABLESPACE pg_default IS 'changed'": "COMMENT ON TABLESPACE pg_default IS NULL",
    "SELECT pg_replication_origin_create('o')": "SELECT pg_replication_origin_drop('o')",
}


def run_alone(address, statement):
    """Run it, and wait until the session has told the server what it did."""
    connection = psycopg.connect(address.conninfo, autocommit=True)
    try:
        connection.execute(statement)
    finally:
        close(connection, address)


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside another process"])
def test_what_belongs_to_the_server_counts_and_is_not_known_where_it_may_be_anothers(
    worker, template, embedded_server, is_alone, server_address
):
    for statement, undo in OF_THE_SERVER.items():
        try:
            with worker.database(template) as database, nullcontext() if is_alone else Worker(embedded_server):
                assert not database.changes(), statement
                run_alone(database.own_address, statement)
                changes = database.changes()
                assert (changes.beyond_rows, changes.server_not_known) == (is_alone, not is_alone), statement
                assert ("not known: roles, databases or settings of the server" in str(changes)) != is_alone
        finally:
            with suppress(psycopg.Error):  # it is undone where nobody else is there
                run_alone(server_address, undo)


def test_what_others_change_for_the_server_is_not_a_test_s_that_committed_nothing(
    worker, template, embedded_server, server_address
):
    with Worker(embedded_server), worker.database(template, "readonly") as database, database.connect() as connection:
        connection.execute("SELECT * FROM t")
        run_alone(server_address, "ALTER ROLE ALL SET a.b = '1'")
        assert not database.changes()
        connection.commit()
        assert database.changes().server_not_known
        run_alone(server_address, "ALTER ROLE ALL RESET a.b")


def test_what_was_changed_for_the_server_before_a_test_is_not_the_test_s(worker, template, server_address):
    with worker.database(template):
        pass
    for statement in ("CREATE ROLE made_by_a_test", "DROP ROLE made_by_a_test"):
        run_alone(server_address, statement)
        with worker.database(template) as database:
            assert not database.changes()


def test_a_clone_that_is_being_dropped_meanwhile_changes_nothing_for_the_server(worker, template, server_address):
    going = worker.clones.make(template)
    with worker.database(template) as database:
        run_alone(server_address, f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{going.name}'")
        assert not database.changes()
    worker.clones.discard(going)


def test_with_reset_clone_it_is_an_error_that_says_so(embedded_server, make_plan):
    with Worker(embedded_server, options=CloneOptions("clone")) as worker:
        template = worker.template(make_plan(Statements("schema", SCHEMA)))
        with (
            worker.database(template) as database,
            pytest.raises(SeedDbError, match='choose reset = "auto"'),
        ):
            database.changes()


# -- everything that was committed -----------------------------------------------------------------

SHOP = [
    "CREATE TABLE item (id serial PRIMARY KEY, price int NOT NULL)",
    "INSERT INTO item (price) SELECT n FROM generate_series(1, 20) n",
    "CREATE TABLE log (at serial, what text)",
    "CREATE TABLE empty (v int)",
    "CREATE SEQUENCE ticket",
]
WRITES = [
    "INSERT INTO item (price) VALUES (21), (22)",
    "INSERT INTO empty VALUES (1)",
    "UPDATE item SET price = price + 1 WHERE id < 4",
    "DELETE FROM item WHERE id BETWEEN 5 AND 6",
    "DELETE FROM item WHERE price > 20",
    "DELETE FROM empty",
    "TRUNCATE empty",
    "TRUNCATE item RESTART IDENTITY",
    "CREATE TABLE extra_{} (id serial)",
    "DROP TABLE log",
    "ALTER TABLE empty ADD note_{} int",
    "COMMENT ON TABLE item IS '{}'",
    "SELECT lo_create(0)",
    "SELECT nextval('ticket')",
    "WITH gone AS (DELETE FROM item WHERE id = 7 RETURNING price) INSERT INTO empty SELECT price FROM gone",
]
READS = [
    "SELECT count(*) FROM item",
    "SELECT 1",
    "UPDATE item SET price = 0 WHERE id < 0",
    "DELETE FROM item WHERE id < 0",
]


@pytest.fixture
def no_haste(monkeypatch):
    """On a busy machine a look may have no time left to read contents."""
    monkeypatch.setattr(database_module, "BUDGET", 5)


def close(stranger, address):
    """Close the connection, and wait until the server knows: on a busy machine that is after the next look."""
    pid = stranger.info.backend_pid
    stranger.close()
    deadline = time.monotonic() + 10
    with psycopg.connect(address.conninfo) as admin:
        while admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.005)
            admin.rollback()


@pytest.fixture
def shop(worker, make_plan):
    return worker.template(make_plan(Statements("shop", SHOP)))


@pytest.mark.parametrize("way", [way for way in WAYS if way != "stranger"])
def test_rows_that_a_connection_committed_count_whatever_it_does_now(worker, shop, way):
    for end in ("pooled", "closed", "held", "reading"):
        with worker.database(shop) as database, writers(database) as all_ways:
            all_ways.work(way, ["SELECT 1"], "pooled")
            assert not database.changes()
            all_ways.work(way, ["DELETE FROM item WHERE id < 3", "UPDATE item SET price = 0 WHERE id = 4"], end)
            changes = database.changes()
            assert (changes.tables, changes.not_known) == ((TableChange("item", 0, 1, 2),), ()), end
            all_ways.work(way, ["INSERT INTO empty VALUES (1)"], end)
            assert set(database.changes().tables) == {TableChange("item", 0, 1, 2), TableChange("empty", 1, 0, 0)}


@pytest.mark.parametrize("way", ["psycopg", "psycopg2", "asyncpg", "psycopg_async"])
def test_a_connection_that_is_asked_goes_on_as_if_it_had_not_been(worker, shop, way):
    reads = ["SHOW transaction_isolation", "SELECT now()"]
    with worker.database(shop) as database, writers(database, threaded=True) as all_ways:
        all_ways.work(way, reads, "reading")
        for _ in range(3):
            assert not database.changes()
            all_ways.work(way, reads, "pooled")
        all_ways.work(way, ["INSERT INTO empty VALUES (1)"], "pooled", commit=False)
        all_ways.work(way, ["INSERT INTO empty VALUES (2)"], "pooled")
        with database.connect() as connection:
            assert connection.execute("SELECT v FROM empty").fetchall() == [(2,)]


def test_inside_of_an_event_loop_its_own_connections_are_asked_too(worker, shop):
    async def test(database, engines):
        for engine in engines:
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO empty VALUES (1)"))
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
                changes = database.changes()
                await connection.execute(text("SELECT 1"))
            yield changes

    async def run(database, engines):
        return [changes async for changes in test(database, engines)]

    with worker.database(shop) as database, writers(database) as all_ways:
        results = all_ways.loop.run(run(database, all_ways.async_engines.values()))
        assert [changes.tables for changes in results] == [(TableChange("empty", n, 0, 0),) for n in (1, 2, 3)]
        assert not any(changes.not_known for changes in results)


@pytest.mark.parametrize("end", ["held", "reading", "failed"])
@pytest.mark.parametrize(
    ("statement", "change"),
    [
        ("DELETE FROM item WHERE id < 3", (0, 0, 2)),
        ("INSERT INTO item (price) VALUES (1)", (1, 0, 0)),
        ("UPDATE item SET price = 0 WHERE id < 4", (0, 3, 0)),
    ],
)
@pytest.mark.usefixtures("no_haste")
def test_what_a_stranger_committed_is_counted_from_the_contents_at_least(
    worker, shop, statement, change, end, server_address
):
    with worker.database(shop) as database, writers(database) as all_ways:
        all_ways.work("stranger", ["SELECT 1"], "held")  # the first flush is immediate, the next is not
        all_ways.work("stranger", ["SELECT 1"], "closed")
        stranger = all_ways.held[0]
        stranger.execute(statement)
        stranger.commit()
        if end != "held":
            stranger.execute("SELECT 1")
        changes = database.changes()
        assert changes.tables == (TableChange("item", *change, is_exact=False),)
        assert len(changes.not_known) == 1
        assert "(at least)" in str(changes)
        assert "not known yet: all that was committed by no name (idle" in str(changes)
        close(stranger, server_address)
        assert database.changes().tables == (TableChange("item", *change),)


def test_what_is_written_in_a_transaction_that_is_not_over_is_not_nothing(worker, shop):
    with worker.database(shop) as database, psycopg.connect(database.own_address.conninfo) as connection:
        connection.execute("SELECT * FROM item")
        assert not database.changes()
        connection.execute("DELETE FROM item WHERE id < 3")
        changes = database.changes()
        assert changes
        assert [other.state for other in changes.not_known] == ["idle in transaction"]


def test_rows_that_a_transaction_locks_are_not_written(worker, shop):
    with worker.database(shop) as database, database.connect() as connection:
        connection.execute("SELECT pg_current_xact_id() FROM item FOR UPDATE")
        assert not database.changes()


def test_a_row_that_came_and_went_by_a_stranger_is_not_nothing(worker, shop, server_address):
    with worker.database(shop) as database, psycopg.connect(database.conninfo, autocommit=True) as stranger:
        stranger.execute("SELECT 1")
        stranger.execute("INSERT INTO empty VALUES (1)")
        stranger.execute("DELETE FROM empty")
        assert database.changes()
        close(stranger, server_address)
        assert database.changes().tables == (TableChange("empty", 1, 0, 1),)


@pytest.mark.usefixtures("no_haste")
def test_what_takes_too_long_to_read_is_left_out_and_the_next_look_is_as_good_as_ever(worker, shop, monkeypatch):
    with worker.database(shop) as database, psycopg.connect(database.conninfo) as stranger:
        stranger.execute("DELETE FROM item WHERE id < 3")
        stranger.commit()
        stranger.execute("SELECT 1")
        hasty = counting._HASTE
        for haste in (f"{hasty}; SELECT pg_sleep(1)", hasty.replace("15ms", "1ms")):
            monkeypatch.setattr(counting, "_HASTE", haste)
            assert all(database.changes().not_known for _ in range(10))
        monkeypatch.setattr(counting, "_HASTE", hasty.replace("15ms", "5s"))
        assert database.changes().tables == (TableChange("item", 0, 0, 2, is_exact=False),)


def test_a_sequence_that_cannot_be_read_may_have_moved(worker, shop):
    with worker.database(shop) as database, psycopg.connect(database.conninfo) as stranger:
        with database.connect() as connection:
            connection.execute("SELECT nextval('ticket')")
        stranger.execute("DROP SEQUENCE ticket")
        changes = database.changes()
        assert changes.sequences == ()
        assert changes.not_known
        stranger.rollback()
        assert database.changes().sequences == ("ticket",)


def test_where_no_time_is_left_it_is_not_known_yet(worker, shop, monkeypatch, server_address):
    with worker.database(shop) as database, psycopg.connect(database.conninfo) as stranger:
        stranger.execute("DELETE FROM item WHERE id < 3")
        stranger.commit()
        monkeypatch.setattr(database_module, "BUDGET", -1)
        changes = database.changes()
        assert changes.not_known
        assert changes.tables == ()
        close(stranger, server_address)
        monkeypatch.undo()
        assert database.changes().tables == (TableChange("item", 0, 0, 2),)


def test_nobody_waits_for_a_lock_on_what_was_written(worker, shop):
    with worker.database(shop) as database, psycopg.connect(database.conninfo) as stranger:
        stranger.execute("TRUNCATE item RESTART IDENTITY")
        started = time.perf_counter()
        database.changes()
        assert time.perf_counter() - started < 1  # the lock would be waited for for two seconds
        stranger.execute("DROP TABLE log")
        stranger.commit()
        assert database.changes()


def check_random_workloads(worker, shop, number):
    waits, falsy, not_known = [], 0, 0
    for seed in range(number):
        draw, wrote = random.Random(seed), False
        with worker.database(shop) as database, writers(database, threaded=draw.random() < 0.5) as all_ways:
            for _ in range(draw.randint(1, 4)):
                statements = ["SET LOCAL lock_timeout = '20ms'", *draw.choices(READS, k=draw.randint(0, 2))]
                if writes := draw.random() < 0.4:
                    statements.append(draw.choice(WRITES).format(draw.randrange(10**9)))
                way, end, commit = draw.choice(WAYS), draw.choice(ENDS), draw.random() < 0.8
                try:
                    rows = all_ways.work(way, statements, end, commit=commit)
                except Exception:  # noqa: BLE001 - a lock, or a table that is gone
                    commit = False
                wrote = wrote or (commit and writes and (rows > 0 or not statements[-1].startswith("DELETE")))
                started = time.perf_counter()
                changes = database.changes()
                waits.append(time.perf_counter() - started)
                assert changes or not wrote, (seed, way, end, statements)
                assert str(changes)
                falsy += not changes
                not_known += bool(changes.not_known)
    median, slow = 1000 * statistics.median(waits), 1000 * sorted(waits)[len(waits) * 95 // 100]
    print(f"{number} workloads, {len(waits)} looks: {falsy} falsy, {not_known} not known; {median:.1f} ms ({slow:.1f})")
    assert falsy
    assert median < 50


@pytest.mark.slow
def test_thirty_random_workloads_never_look_as_if_nothing_was_written(worker, shop):
    check_random_workloads(worker, shop, 30)


@pytest.mark.long
def test_a_thousand_random_workloads_never_look_as_if_nothing_was_written(worker, shop):
    check_random_workloads(worker, shop, times(1000))
