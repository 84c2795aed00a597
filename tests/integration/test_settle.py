"""Settling: after keep and rewind a clone equals a fresh one in every row, their order, sequences and catalogs."""

from __future__ import annotations

import psycopg
import pytest
from handmade import Statements
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workloads import (
    BEYOND,
    DELETES,
    INSERTS,
    READS,
    ROWS,
    SCHEMA,
    SEQUENCES,
    STATEMENTS,
    UPDATES,
    differences,
    run,
    state,
)

from pytest_seeddb.changes import Changes, TableChange
from pytest_seeddb.database import seeded_database
from pytest_seeddb.plan import Plan
from pytest_seeddb.settle import Costs
from pytest_seeddb.worker import Worker


class Bench:
    """One worker whose clone goes from workload to workload, and the state that it must come back to."""

    def __init__(self, worker, template):
        self.worker = worker
        self.pool = worker.pool
        self.template = template
        fresh = worker.clones.make(template)
        self.seeded = state(fresh.address)
        worker.clones.discard(fresh)
        self.known = self.pool._templates
        self.verdicts = {}

    def settled(self, work):
        """Let ``work`` change a clone; settle it; compare it with the seeded state unless it is discarded."""
        leased = self.pool.take(self.template)
        work(leased.clone.address)
        found = self.pool.give_back(leased)
        self.verdicts[found.verdict] = self.verdicts.get(found.verdict, 0) + 1
        if found.verdict != "discard":
            assert differences(state(leased.clone.address), self.seeded) == {}, found
        return found

    def rewinds(self, statement):
        """Settle after a statement twice: the first time a table's rows may not be known yet."""
        self.settled(lambda address: run(address, [(0, statement)]))
        self.settled(lambda address: None)
        return self.settled(lambda address: run(address, [(0, statement)]))


@pytest.fixture(scope="module")
def bench(embedded_server, tmp_path_factory):
    stages = (Statements("everything", SCHEMA).stage(), Statements("rows", ROWS).stage())
    plan = Plan("settling", "default", tmp_path_factory.mktemp("plan"), stages)
    with Worker(embedded_server) as worker:
        bench = Bench(worker, worker.template(plan))
        yield bench


@pytest.fixture(autouse=True)
def rewinding_is_always_the_cheaper(monkeypatch):
    monkeypatch.setattr(Costs, "prefer_clone", lambda self, estimate: False)


@pytest.mark.parametrize("statement", READS)
def test_what_changes_nothing_is_kept(bench, statement):
    assert bench.settled(lambda address: run(address, [(0, statement)])).verdict == "keep"


@pytest.mark.parametrize("statement", [*INSERTS, *UPDATES, *DELETES])
def test_rows_are_put_back_exactly_or_the_clone_is_discarded(bench, statement):
    found = bench.rewinds(statement)
    loud, big = (
        " loud" in statement,
        statement in ("UPDATE big SET v = 0 WHERE id = 77", "DELETE FROM big WHERE id = 5"),
    )
    assert (found.verdict == "discard") == (loud or big), found


@pytest.mark.parametrize("statement", SEQUENCES)
def test_sequences_are_set_back(bench, statement):
    assert bench.rewinds(statement).verdict == "rewind"


@pytest.mark.parametrize("statement", BEYOND)
def test_what_is_more_than_rows_is_discarded(bench, statement):
    found = bench.settled(lambda address: run(address, [(0, statement)]))
    assert found.verdict == "discard"
    assert "more than rows" in found.reason


def test_a_setting_of_the_database_is_more_than_rows(bench):
    def work(address):
        run(address, [(0, f"ALTER DATABASE {address.database} SET work_mem = '5MB'")])

    assert bench.settled(work).verdict == "discard"


def test_a_connection_left_idle_is_ended_named_and_no_harm(bench):
    left = []

    def work(address):
        left.append(psycopg.connect(address.conninfo, autocommit=True, application_name="forgetful"))
        left[0].execute("SELECT 'last words'")

    found = bench.settled(work)
    assert found.verdict == "keep"
    assert [(each.application, each.state, each.statement) for each in found.left] == [
        ("forgetful", "idle", "SELECT 'last words'")
    ]
    with pytest.raises(psycopg.OperationalError):
        left[0].execute("SELECT 1")
    left[0].close()


@pytest.mark.parametrize("statement", ["SELECT 1", "INSERT INTO keyless VALUES (1)"])
def test_a_connection_left_inside_a_transaction_means_discard(bench, statement):
    left = []

    def work(address):
        left.append(psycopg.connect(address.conninfo, application_name="forgetful"))
        left[0].execute(statement)

    found = bench.settled(work)
    left[0].close()
    assert found.verdict == "discard"
    assert [(each.application, each.state) for each in found.left] == [("forgetful", "idle in transaction")]


def test_a_transaction_that_ends_with_its_connection_is_no_reason_to_discard(bench):
    def work(address):
        connection = psycopg.connect(address.conninfo)
        connection.execute("SELECT * FROM parent")
        connection.close()

    assert bench.settled(work).verdict == "keep"


def test_a_keeper_that_was_ended_means_discard(bench):
    def work(address):
        with psycopg.connect(address.conninfo, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%keeper'"
            )

    assert bench.settled(work).verdict == "discard"


def test_counters_that_were_reset_mean_discard(bench):
    def work(address):
        with psycopg.connect(address.conninfo, autocommit=True) as connection:
            connection.execute("INSERT INTO keyless VALUES (1)")
            connection.execute("SELECT pg_stat_force_next_flush()")
            connection.execute("SELECT pg_stat_reset()")

    assert bench.settled(work).verdict == "discard"


def test_a_prepared_transaction_means_discard(bench, embedded_server):
    with psycopg.connect(embedded_server.address.conninfo) as connection:
        if connection.execute("SHOW max_prepared_transactions").fetchone() == ("0",):
            return  # the server allows none, so no test can leave one

    def work(address):
        run(address, [(0, "BEGIN"), (0, "INSERT INTO keyless VALUES (1)"), (0, "PREPARE TRANSACTION 'left'")])

    assert bench.settled(work).verdict == "discard"


def test_rows_in_the_middle_of_a_big_table_mean_discard(embedded_server, make_plan):
    schema = Statements("schema", ["CREATE TABLE big (id int, filler text)"])
    rows = Statements(
        "rows",
        [
            "INSERT INTO big SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n",
            "DELETE FROM big WHERE id BETWEEN 500 AND 900",
        ],
    )
    with Worker(embedded_server) as worker:
        bench = Bench(worker, worker.template(make_plan(schema, rows)))
        insert = "INSERT INTO big VALUES (0, repeat('y', 500))"
        found = bench.settled(lambda address: run(address, [(0, insert)]))
        assert (found.verdict, found.reason) == ("discard", "new rows of big stand among the template's")


def test_a_table_that_does_not_come_out_as_it_was_is_discarded_and_not_tried_again(embedded_server, make_plan):
    # COPY fills pages as the table says now, which is not as they were filled.
    fill = "INSERT INTO t SELECT n FROM generate_series(1, 300) n"
    schema = Statements("schema", ["CREATE TABLE t (v int)", fill, "ALTER TABLE t SET (fillfactor = 20)"])
    with Worker(embedded_server) as worker:
        bench = Bench(worker, worker.template(make_plan(schema)))
        found = bench.rewinds("UPDATE t SET v = 0 WHERE v = 1")
        assert (found.verdict, found.reason) == ("discard", "rows of t do not come to stand where they stood")
        again = bench.rewinds("UPDATE t SET v = 0 WHERE v = 1")
        assert again.reason == "rows of t were updated or deleted"


def test_a_clone_that_is_rewound_often_does_not_grow(embedded_server, make_plan):
    schema = Statements("schema", ["CREATE TABLE t (v int)", "INSERT INTO t SELECT generate_series(1, 10)"])
    with Worker(embedded_server) as worker:
        bench = Bench(worker, worker.template(make_plan(schema)))
        sizes = set()
        for _ in range(10):
            leased = worker.pool.take(bench.template)
            with psycopg.connect(leased.clone.address.conninfo, autocommit=True) as connection:
                sizes.add(connection.execute("SELECT pg_relation_size('t')").fetchone())
                connection.execute("INSERT INTO t SELECT generate_series(1, 500)")
            assert worker.pool.give_back(leased).verdict == "rewind"
        assert len(sizes) == 1


def test_without_a_superuser_rows_mean_discard_and_reading_is_kept(bench, monkeypatch):
    monkeypatch.setattr(bench.pool, "_superuser", False)
    bench.settled(lambda address: run(address, [(0, "CREATE TABLE away (v int)")]))
    assert bench.settled(lambda address: run(address, [(0, READS[0])])).verdict == "keep"
    found = bench.settled(lambda address: run(address, [(0, "INSERT INTO keyless VALUES (1)")]))
    assert (found.verdict, found.reason) == ("discard", "rows were written, and our role is no superuser")


# -- what users see --------------------------------------------------------------------------------


def test_changes_are_told_in_the_middle_of_a_test_table_by_table(bench):
    with seeded_database(bench.worker, bench.template, "clone", ()) as database:
        assert database.changes() == Changes()
        assert str(database.changes()) == "nothing was written"
        connection = database.connect(autocommit=True, application_name="the test")
        connection.execute("INSERT INTO keyless VALUES (1), (2)")
        connection.execute("UPDATE document SET mood = 'sad'")
        connection.execute("SELECT nextval('free')")
        changes = database.changes()
        assert set(changes.tables) == {TableChange("keyless", 2, 0, 0), TableChange("document", 0, 3, 0)}
        assert changes.sequences == ("free",)
        assert not changes.beyond_rows
        assert [each.application for each in changes.connections] == ["the test"]
        assert "keyless   2 inserted" in str(changes)
        assert "document  3 updated" in str(changes)
        connection.execute("CREATE TABLE extra (v int)")
        assert database.changes().beyond_rows


def test_a_reset_in_the_middle_rewinds_under_the_same_name(bench):
    with seeded_database(bench.worker, bench.template, "clone", ()) as database:
        for statement in ("INSERT INTO keyless VALUES (1)", "DROP TABLE keyless"):
            run(database.address, [(0, statement)])
            database.reset()
            assert differences(state(database.address), bench.seeded) == {}


def test_reset_clone_never_keeps(embedded_server, make_plan):
    with Worker(embedded_server, reset="clone") as worker:
        template = worker.template(make_plan(Statements("schema", ["CREATE TABLE t (v int)"])))
        names = set()
        for _ in range(4):
            with seeded_database(worker, template, "clone", ()) as database:
                names.add(database.name)
        assert len(names) == 4
        assert worker.pool.verdicts == {"discard": 4}


def test_after_a_discard_a_spare_is_ready_and_all_are_gone_at_the_end(embedded_server, make_plan, databases):
    with Worker(embedded_server) as worker:
        template = worker.template(make_plan(Statements("schema", ["CREATE TABLE t (v int)"])))
        for _ in range(6):
            with seeded_database(worker, template, "clone", ()) as database:
                run(database.address, [(0, "DROP TABLE t")])
        assert worker.clones.made <= 8
        lease = worker._lease
    assert databases(f"seeddb_c_{lease}%") == set()


# -- random workloads ------------------------------------------------------------------------------

STEP = st.tuples(st.integers(0, 1), st.one_of(st.sampled_from(INSERTS), st.sampled_from(STATEMENTS)))
WORKLOAD = st.lists(STEP, min_size=1, max_size=8)
RANDOM = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def random_workload(bench, workload):
    def work(address):
        run(address, workload)

    bench.settled(work)
    if "random()" in str(workload):
        return
    # The same work on a clone that has been through many, and on a fresh one, must come to the same.
    leased, fresh = bench.pool.take(bench.template), bench.worker.clones.make(bench.template)
    run(leased.clone.address, workload)
    run(fresh.address, workload)
    assert differences(state(leased.clone.address), state(fresh.address)) == {}
    bench.worker.clones.discard(fresh)
    bench.pool.give_back(leased)


@given(workload=WORKLOAD)
@settings(max_examples=40, **RANDOM)
def test_random_workloads_leave_nothing_behind(bench, workload):
    random_workload(bench, workload)


@pytest.mark.long
@given(workload=WORKLOAD)
@settings(max_examples=2000, **RANDOM)
def test_two_thousand_random_workloads_leave_nothing_behind(bench, workload):
    random_workload(bench, workload)
    # Without rewinds it would prove nothing.
    total = sum(bench.verdicts.values())
    assert total < 500 or bench.verdicts["rewind"] > total / 4, bench.verdicts
