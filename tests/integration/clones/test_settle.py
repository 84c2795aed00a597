"""Settling: after keep and rewind a clone equals a fresh one in every row, their order, sequences and catalogs."""

from __future__ import annotations

import contextlib
import time

import psycopg
import pytest
from attacks import times
from handmade import Statements
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from separate import separate_server
from settling import Bench, differences, passing_bench, run, state
from workloads import BEYOND, DELETES, INSERTS, READS, ROWS, SCHEMA, SEQUENCES, STATEMENTS, UPDATES

from pytest_seeddb.clones.changes import TableChange
from pytest_seeddb.clones.observer import SequenceWatch
from pytest_seeddb.clones.pool import CloneOptions
from pytest_seeddb.clones.shape import Sequences
from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.plan.plan import Plan
from pytest_seeddb.servers.admin import Admin
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Settings


@pytest.fixture(scope="module")
def bench(embedded_server, tmp_path_factory):
    stages = (Statements("everything", SCHEMA).stage(), Statements("rows", ROWS).stage())
    plan = Plan("settling", "default", tmp_path_factory.mktemp("plan"), stages)
    with Worker(embedded_server) as worker:
        bench = Bench(worker, worker.template(plan))
        yield bench


@pytest.fixture
def preparing_server(tmp_path):
    """One that lets transactions be prepared."""

    def prepare(data):
        (data / "postgresql.auto.conf").write_text("max_prepared_transactions = 5\n")

    with separate_server() as start, open_server(Settings(root=tmp_path, server=start(prepare).url)) as server:
        yield server


@pytest.mark.parametrize("statement", READS)
def test_what_changes_nothing_is_kept(bench, statement):
    assert bench.settled(lambda address: run(address, [(0, statement)])).verdict == "keep"


@pytest.mark.parametrize("statement", [*INSERTS, *UPDATES, *DELETES])
def test_rows_are_put_back_exactly_or_the_clone_is_discarded(bench, statement):
    found = bench.settled(lambda address: run(address, [(0, statement)]))
    # The triggers of one fire always; the other is big, and 40 rows more are pages more that VACUUM leaves.
    discarded = " loud" in statement or statement.startswith(("UPDATE big", "DELETE FROM big", "INSERT INTO big"))
    assert (found.verdict == "discard") == discarded, found


@pytest.mark.parametrize("statement", SEQUENCES)
def test_sequences_are_set_back(bench, statement):
    assert bench.settled(lambda address: run(address, [(0, statement)])).verdict == "rewind"


@pytest.mark.parametrize("isolation", ["clone", "rollback"])
def test_only_the_sequences_that_a_test_used_are_read_and_set_back_after_it(worker, make_plan, monkeypatch, isolation):
    template = worker.template(make_plan(Statements("two", ["CREATE SEQUENCE used", "CREATE SEQUENCE unused"])))
    touched = set()

    def noting(cls, name):
        function = getattr(cls, name)

        def patched(self, *given):
            return touched.update(self.names[oid] for oid in given[-1]) or function(self, *given)

        monkeypatch.setattr(cls, name, patched)

    noting(Sequences, "states")
    noting(SequenceWatch, "restore")
    seen = []
    for statement in ("SELECT nextval('used')", "SELECT nextval('used')", "SELECT 1"):
        touched.clear()
        with worker.database(template, isolation) as database:
            connection = psycopg.connect(database.address_for_writing.conninfo)
            connection.execute(statement)
            connection.close()
        seen.append({*touched})
    assert seen[1:] == [{"used"}, set()]


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


def test_an_observer_that_was_ended_means_discard(bench):
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


@pytest.mark.slow
def test_a_prepared_transaction_means_discard_and_does_not_hang_the_run(preparing_server, make_plan):
    plan = make_plan(Statements("schema", ["CREATE TABLE t (v int)"]))
    left = [(0, "BEGIN"), (0, "INSERT INTO t VALUES (1)"), (0, "PREPARE TRANSACTION 'left'")]
    with Worker(preparing_server) as worker:
        bench = Bench(worker, worker.template(plan))
        assert bench.settled(lambda address: run(address, left)).verdict == "discard"
        # The next test gets another clone, and waits for no drop.
        started = time.monotonic()
        assert bench.settled(lambda address: run(address, [(0, "SELECT * FROM t")])).verdict == "keep"
        assert time.monotonic() - started < 2
    assert time.monotonic() - started < 30
    assert worker.failures == []
    with Admin(preparing_server.address) as admin:
        assert admin.databases("seeddb\\_c\\_%") == []


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
        found = bench.settled(lambda address: run(address, [(0, "UPDATE t SET v = 0 WHERE v = 1")]))
        assert (found.verdict, found.reason) == ("discard", "rows of t do not come to stand where they stood")
        again = bench.settled(lambda address: run(address, [(0, "UPDATE t SET v = 0 WHERE v = 1")]))
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


def test_without_a_superuser_rows_mean_discard_and_reading_is_kept(bench):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.pool, "_superuser", False)
        bench.pool.close()  # what waits there is observed by a superuser
        assert bench.settled(lambda address: run(address, [(0, READS[0])])).verdict == "keep"
        found = bench.settled(lambda address: run(address, [(0, "INSERT INTO keyless VALUES (1)")]))
        assert (found.verdict, found.reason) == ("discard", "rows were written, and our role is no superuser")
        bench.pool.close()  # the spare that follows is not


# -- what random schemas have found ----------------------------------------------------------------

MANY = "INSERT INTO t SELECT n, repeat('x', n * 16 % 900) FROM generate_series(1, {}) n"
SIZED = "INSERT INTO t SELECT n, repeat('y', n * {} % {}) FROM generate_series(1, {}) n"


@pytest.fixture
def bench_of(embedded_server, make_plan):
    with contextlib.ExitStack() as stack:

        def made(*statements):
            return stack.enter_context(passing_bench(embedded_server, make_plan(Statements("schema", statements))))

        yield made


def test_rows_that_a_test_updated_and_vacuumed_are_put_back(bench_of):
    bench = bench_of("CREATE TABLE t (v int)", "INSERT INTO t VALUES (1), (2)")
    bench.settled(lambda address: run(address, [(0, "UPDATE t SET v = 0"), (0, "VACUUM t")]))


def test_an_update_that_stays_within_its_page_of_a_big_table_is_noticed(bench_of):
    bench = bench_of("CREATE TABLE t (v int, f text) WITH (fillfactor = 50)", MANY.format(900))
    bench.settled(lambda address: run(address, [(0, "UPDATE t SET v = 0 WHERE v = 3")]))


@pytest.mark.slow
def test_a_table_that_grew_by_a_page_or_two_takes_new_rows_as_a_fresh_one_does(bench_of):
    bench = bench_of("CREATE TABLE t (v int, f text)", MANY.format(600))
    bench.settled(lambda address: run(address, [(0, SIZED.format(40, 2000, 3)), (0, SIZED.format(87, 700, 20))]))
    bench.settled_like_a_fresh_one([(0, SIZED.format(90, 700, 20)), (0, SIZED.format(18, 700, 3))])


@pytest.mark.slow
def test_a_big_table_that_is_rewound_often_takes_as_many_rows_in_a_page_as_a_fresh_one(bench_of):
    bench = bench_of(
        "CREATE TABLE t (id int PRIMARY KEY, f text)",
        "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 1990) n",
    )
    sizes = set()
    for _ in range(110):
        leased = bench.pool.take(bench.template)
        with psycopg.connect(leased.clone.address.conninfo, autocommit=True) as connection:
            connection.execute("INSERT INTO t SELECT n, repeat('y', 500) FROM generate_series(2001, 2003) n")
            sizes.add(connection.execute("SELECT pg_relation_size('t')").fetchone())
        assert bench.pool.give_back(leased).verdict == "rewind"
    assert len(sizes) == 1


def test_the_planner_expects_as_many_rows_of_a_rewound_table_as_of_a_fresh_one(bench_of):
    bench = bench_of(
        "CREATE TABLE t (v int, f text)",
        "INSERT INTO t SELECT n, repeat('x', 400) FROM generate_series(1, 800) n",
    )
    bench.settled(lambda address: run(address, [(0, "INSERT INTO t VALUES (1)")]))


# -- what users see --------------------------------------------------------------------------------


def test_changes_are_told_in_the_middle_of_a_test_table_by_table(bench):
    with bench.worker.database(bench.template) as database:
        # A backend whose client has gone may be listed for another moment.
        assert not database.changes()
        assert str(database.changes()).splitlines()[0] == "nothing was written"
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
    with bench.worker.database(bench.template) as database:
        for statement in ("INSERT INTO keyless VALUES (1)", "DROP TABLE keyless"):
            run(database.address, [(0, statement)])
            database.reset()
            assert differences(state(database.address), bench.seeded) == {}


def test_reset_clone_never_keeps(embedded_server, make_plan):
    with Worker(embedded_server, options=CloneOptions("clone")) as worker:
        template = worker.template(make_plan(Statements("schema", ["CREATE TABLE t (v int)"])))
        names = set()
        for _ in range(4):
            with worker.database(template) as database:
                names.add(database.name)
        assert len(names) == 4
        assert worker.pool.verdicts == {"discard": 4}


def test_after_a_discard_a_spare_is_ready_and_all_are_gone_at_the_end(embedded_server, make_plan, databases):
    with Worker(embedded_server) as worker:
        template = worker.template(make_plan(Statements("schema", ["CREATE TABLE t (v int)"])))
        for _ in range(6):
            with worker.database(template) as database:
                run(database.address, [(0, "DROP TABLE t")])
        assert worker.clones.made <= 8
        lease = worker._lease
    assert databases(f"seeddb_c_{lease}%") == set()


# -- random workloads ------------------------------------------------------------------------------

STEP = st.tuples(st.integers(0, 1), st.one_of(st.sampled_from(INSERTS), st.sampled_from(STATEMENTS)))
WORKLOAD = st.lists(STEP, min_size=1, max_size=8)
RANDOM = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def random_workload(bench, workload):
    if "random()" in str(workload):
        bench.settled(lambda address: run(address, workload))
    else:
        bench.settled_like_a_fresh_one(workload)


@pytest.mark.slow
@given(workload=WORKLOAD)
@settings(max_examples=40, **RANDOM)
def test_random_workloads_leave_nothing_behind(bench, workload):
    random_workload(bench, workload)


@pytest.mark.long
@given(workload=WORKLOAD)
@settings(max_examples=times(2000), **RANDOM)
def test_two_thousand_random_workloads_leave_nothing_behind(bench, workload):
    random_workload(bench, workload)
    # Without rewinds it would prove nothing.
    total = sum(bench.verdicts.values())
    assert total < 500 or bench.verdicts["rewind"] > total / 4, bench.verdicts
