from __future__ import annotations

import random
import re
import textwrap
import time
from contextlib import ExitStack, contextmanager, suppress

import majors
import psycopg
import pytest
from attacks import MIGRATIONS, PASSING, times
from attacks import site as new_site
from poor import on_request, pooler, poor_server, programs_in, proxy, standby_of, visitor

UNLOGGED = "CREATE UNLOGGED TABLE visit (id serial, at int); INSERT INTO visit (at) SELECT generate_series(1, 50);"
"""A migration; a crash of the server empties such a table, in templates as anywhere."""

COUNTED = """
    import os
    import time
    from pathlib import Path

    import pytest
    from sqlalchemy import text

    SEEDED = (
        "SELECT (SELECT count(*) FROM shop), (SELECT count(*) FROM item), (SELECT max(id) FROM item),"
        " (SELECT count(*) FROM visit), (SELECT last_value FROM visit_id_seq)"
    )

    def is_seeded(connection):
        found = connection.execute(SEEDED).fetchone()
        assert found == (40, 400, 400, 50, 50), "WRONG STATE"
        connection.rollback()

    def request():
        asked = Path(os.environ["REQUEST"])
        asked.touch()
        while asked.exists():
            time.sleep(0.005)
"""


@contextmanager
def other_site(tests=None, **environment):
    with new_site(**environment) as site:
        site.write("db/004_visit.sql", UNLOGGED)
        if tests:
            site.write("test_it.py", textwrap.dedent(COUNTED) + textwrap.dedent(tests))
        yield site


def on(server, **given):
    return f"--seed-db-server={server.url(**given)}"


def told_by(run):
    """The first error that a run shows, in full."""
    found = re.search(r"^(ServerError: .*\n(?:  .*\n)+)", run, re.MULTILINE)
    assert found, run
    return found[1]


def is_refused(site, server, expected, **given):
    run = site.run(on(server, **given), code=1)
    assert f"{PASSING} errors" in run
    assert "Traceback" not in run
    url = server.address(**given).masked
    assert told_by(run) == textwrap.dedent(expected).lstrip().replace("SERVER", url)


@pytest.fixture(scope="module")
def plain():
    with poor_server(max_connections=40) as server:
        yield server


@pytest.fixture(scope="module")
def busy():
    """A server that waits for the disk and vacuums each second, with replicas."""
    settings = {"fsync": "on", "wal_level": "replica", "autovacuum_naptime": 1, "autovacuum_vacuum_threshold": 1}
    with poor_server(max_connections=40, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def ordered():
    """A server that sorts by ICU's rules, which have versions."""
    with poor_server("--locale-provider=icu", "--icu-locale=en-US") as server:
        yield server


# -- roles ----------------------------------------------------------------------------------------


def test_a_role_that_may_create_databases_is_enough(plain, site, tried):
    url = plain.role("maker", "CREATEDB", "s3cret p@ss")
    for workers in (0, 2):
        run = site.passes(f"--seed-db-server={url}", "-n", workers)
        assert "s3cret" not in run
        assert plain.half_made() == []
    tried("a run of a role with CREATEDB", 2)


def test_a_role_that_may_not_is_told_what_to_grant(plain, site, tried):
    plain.role("poor man", "NOCREATEDB")
    expected = """
        ServerError: The role 'poor man' may not create databases on this server
          saw:  it has neither CREATEDB nor SUPERUSER
          from: SERVER, the option --seed-db-server
          do:   as a superuser: ALTER ROLE "poor man" CREATEDB;  (or name another role in the URL)
    """
    before = plain.databases()
    is_refused(site, plain, expected, user="poor man")
    assert plain.databases() == before
    tried("a run of a role without CREATEDB")


# -- what goes on on the server -------------------------------------------------------------------


def test_a_server_that_waits_for_the_disk_and_vacuums_all_the_time(busy, site, tried):
    before = busy.databases("seeddb_t_")
    for _ in range(times(3)):
        site.passes(on(busy), "--seed-db-reseed")
        assert busy.half_made() == []
    assert len(busy.databases("seeddb_t_")) > len(before)
    tried("a run with fsync and with autovacuum in every database each second", times(3))


def test_template1_in_use(plain, site, tried):
    with ExitStack() as users:
        for _ in range(3):
            user = users.enter_context(psycopg.connect(plain.address(database="template1").conninfo))
            user.execute("SELECT count(*) FROM pg_class")
        site.passes(on(plain), "--seed-db-reseed")
    tried("a build while others use template1")


def test_a_visitor_of_every_database(plain, site, tried):
    with visitor(plain) as counts:
        for number in range(5 * times(5)):  # a quick run may be met seldom
            if number >= times(5) and counts["ours"] > 10 * times(5):
                break
            site.passes(on(plain), "--seed-db-reseed", "-n", 2 * (number % 2))
    assert counts["ours"] > 10 * times(5)
    assert plain.half_made() == []
    tried("a connection to a database of ours, some being built, by somebody else", counts["ours"])


def test_failed_tests_databases_are_kept_although_somebody_visits_them(plain, tried):
    tests = "@pytest.mark.parametrize('number', range(6))\ndef test_fails(seeded_db, number):\n    assert not number\n"
    with other_site(tests) as site, visitor(plain) as counts:
        for _ in range(times(3)):
            run = site.run(on(plain), code=1)
            assert "5 failed, 1 passed" in run
            kept = re.findall(r"seeddb shell (seeddb_k_\S+)", run)
            assert len(kept) == 5
            assert set(kept) <= set(plain.databases())
            for name in kept:
                assert plain.do("SELECT count(*) FROM item", database=name) == [(400,)]
    assert counts["ours"]
    tried("a failed test's database that somebody visits", 5 * times(3))


# -- collations -----------------------------------------------------------------------------------


# An upgrade of the system changes the rules and no row; here the row changes, so the seal is made to fit again.
OTHER_RULES = """
DO $$
DECLARE each record;
BEGIN
    UPDATE pg_database SET datcollversion = '0.0' WHERE datname <> 'template0';
    FOR each IN
        SELECT datname, xmin, shobj_description(oid, 'pg_database')::jsonb AS said
        FROM pg_database WHERE datname LIKE 'seeddb\\_t\\_%'
    LOOP
        EXECUTE format('COMMENT ON DATABASE %I IS %L', each.datname,
            jsonb_set(each.said, '{sealed}', each.xmin::text::jsonb)::text);
    END LOOP;
END $$
"""


def test_templates_that_were_sorted_by_other_rules_are_built_anew(ordered, site, tried):
    site.passes(on(ordered))
    ordered.do(OTHER_RULES)
    run = site.run(on(ordered), "-v")
    assert "built in" in run
    assert "the operating system sorts text by other rules than when the earlier one was built" in run
    run = site.run(on(ordered), "-v")
    assert "built in" not in run
    assert ordered.half_made() == []
    tried("a collation that changed after the templates were built")


def test_an_empty_template_of_other_rules_is_an_error_that_says_what_to_do(ordered, site, tried):
    ordered.do("UPDATE pg_database SET datcollversion = '0.0'")
    run = site.run(on(ordered), "--seed-db-reseed", code=1)
    told = told_by(run)
    assert told.startswith("ServerError: The template could not be made\n")
    assert '  saw:  template database "template0" has a collation version mismatch\n' in told
    assert f"  from: {ordered.address().masked}\n" in told
    remedy = re.search("do:   as its owner: (ALTER DATABASE template0 REFRESH COLLATION VERSION;)", told)
    ordered.do(remedy[1])
    site.passes(on(ordered), "--seed-db-reseed")
    tried("a collation that changed after initdb")


# -- servers that cannot be used ------------------------------------------------------------------


def test_a_replica_is_refused(busy, site, tried):
    expected = """
        ServerError: The server is a read-only replica: no database can be created there
          saw:  pg_is_in_recovery() is true
          from: SERVER, the option --seed-db-server
          do:   name the primary server
    """
    with standby_of(busy) as replica:
        is_refused(site, replica, expected)
    tried("a run on a standby")


def test_postgresql_14_is_refused(site, tried):
    directory = majors.directories().get(14)
    assert directory, f"{majors.VARIABLE} names no programs of PostgreSQL 14; tox run -e promises gets them"
    with poor_server(program=programs_in(directory, "14")) as server:
        before = server.databases()
        ((banner,),) = server.do("SELECT version()")
        assert banner.startswith("PostgreSQL 14.")
        expected = f"""
            ServerError: The server is too old: PostgreSQL 15 is the oldest that works
              saw:  {banner}
              from: SERVER, the option --seed-db-server
              do:   upgrade it, or name a server with PostgreSQL 15 or newer
        """
        is_refused(site, server, expected)
        assert server.databases() == before
    tried("a run on PostgreSQL 14")


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
def test_a_pooler_that_lends_sessions_is_refused(plain, site, mode, tried):
    before = plain.databases()
    with pooler(plain, mode) as port:
        run = site.run(on(plain, port=port), code=1)
    told = re.sub(r"-?\d+", "N", told_by(run))
    assert told == (
        "ServerError: The server is behind a connection pooler, "
        "which lends one session, with its locks, to several clients\n"
        "  saw:  the connection is announced as process N, the server's is N\n"
        "  from: postgresql://postgres@N.N.N.N:N/postgres, the option --seed-db-server\n"
        "  do:   name the server itself, by its own host and port: "
        "PgBouncer's settings have them under [databases]\n"
    )
    assert plain.databases() == before
    tried(f"a run through PgBouncer, pool_mode = {mode}")


# -- a proxy --------------------------------------------------------------------------------------


def test_a_proxy_that_forwards_connections_is_as_good_as_the_server(plain, site, tried):
    with proxy(plain) as between:
        site.passes(on(plain, port=between.port), "-n", "2")
        assert between.served > PASSING
    assert plain.half_made() == []
    tried("a connection through a proxy", between.served)


# -- a server that goes and comes back ------------------------------------------------------------

INTERRUPTED = """
    @pytest.fixture(autouse=True)
    def as_seeded(seeded_connection):
        is_seeded(seeded_connection)

    def test_before(seeded_connection):
        seeded_connection.execute("DELETE FROM item")
        seeded_connection.commit()

    def test_within(seeded_connection):
        seeded_connection.execute("DELETE FROM item")
        seeded_connection.execute("DELETE FROM visit")
        seeded_connection.commit()
        request()
        seeded_connection.execute("SELECT 1")

    @pytest.mark.parametrize("number", range(3))
    def test_after(seeded_connection, number):
        seeded_connection.execute("DELETE FROM shop WHERE id NOT IN (SELECT shop_id FROM item)")
        seeded_connection.execute("UPDATE item SET price = 1")
        seeded_connection.commit()

    @pytest.mark.seeded(isolation="rollback")
    def test_within_rollback(seeded_session):
        seeded_session.execute(text("DELETE FROM item"))
        seeded_session.commit()
        request()
        seeded_session.execute(text("SELECT 1"))

    @pytest.mark.seeded(isolation="rollback")
    @pytest.mark.parametrize("number", range(2))
    def test_after_rollback(seeded_session, number):
        seeded_session.execute(text("DELETE FROM item"))

    @pytest.mark.seeded(isolation="readonly")
    def test_within_readonly(seeded_connection):
        request()
        seeded_connection.execute("SELECT 1")

    @pytest.mark.seeded(isolation="readonly")
    def test_after_readonly(seeded_connection):
        pass
"""
BETWEEN = """
    @pytest.mark.parametrize("isolation", ["clone", "rollback", "readonly"])
    @pytest.mark.parametrize("number", range(2))
    def test_each(seeded_db_factory, isolation, number):
        with seeded_db_factory(isolation=isolation) as database, database.connect() as connection:
            is_seeded(connection)
            if isolation == "clone":
                connection.execute("DELETE FROM item")
                connection.execute("DELETE FROM visit")
                connection.commit()
"""
ASKS_AFTER_EACH = """
    import os
    import time
    from pathlib import Path

    def pytest_runtest_logfinish():
        asked = Path(os.environ["REQUEST"])
        asked.touch()
        while asked.exists():
            time.sleep(0.005)
"""
GONE = {
    "fast": lambda server: server.restart("fast"),
    "immediate": lambda server: server.restart("immediate"),
    "cut": lambda server: server.do(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    ),
}


@pytest.fixture(params=GONE)
def gone(request, plain):
    def act():
        GONE[request.param](plain)

    act.name = request.param
    return act


def outcome(run):
    """Names of the tests that did not pass."""
    return set(re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)", run, re.MULTILINE))


def test_tests_after_one_that_lost_its_server_see_the_seeded_state(plain, gone, tried):
    with other_site(INTERRUPTED) as site, on_request(site, gone) as served:
        for workers in (0, 2)[: times(2)]:
            run = site.run(on(plain), "-n", workers, code=1, timeout=400)
            assert "WRONG STATE" not in run
            # With two workers the one's server goes in the middle of whatever the other is at.
            assert workers or outcome(run) <= {"test_within", "test_within_rollback", "test_within_readonly"}
            assert "test_within" in outcome(run)
            assert re.search("terminating connection|server closed the connection", run)
            assert plain.half_made() == []
            site.run(on(plain), "--deselect=test_it.py::test_within", "-k", "not within")
    tried(f"a server lost within a test: {gone.name}", len(served))


def test_a_server_lost_between_two_tests_is_noticed_by_nobody(plain, gone, tried):
    with other_site(BETWEEN) as site, on_request(site, gone) as served:
        site.write("conftest.py", ASKS_AFTER_EACH)
        run = site.run(on(plain), timeout=400)
        assert "6 passed" in run
        assert "rror" not in run
        assert plain.half_made() == []
    tried(f"a server lost between two tests: {gone.name}", len(served))


def test_a_crash_in_the_middle_of_anything_never_shows_another_state(plain, tried):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    tests = """
        @pytest.mark.parametrize("number", range(20))
        @pytest.mark.parametrize("isolation", ["clone", "rollback", "readonly"])
        def test_each(seeded_db_factory, number, isolation):
            with seeded_db_factory(isolation=isolation) as database, database.connect() as connection:
                is_seeded(connection)
                if isolation == "clone":
                    connection.execute("DELETE FROM visit")
                    connection.execute("INSERT INTO shop (name) VALUES ('new')")
                    connection.commit()
    """
    lost = 0
    with other_site(tests) as site:
        site.run(on(plain))
        for _ in range(times(8)):
            process = site.start(on(plain))
            while process.poll() is None:
                time.sleep(chance.uniform(0.3, 2.5))
                GONE[chance.choice(list(GONE))](plain)
                lost += 1
                if chance.random() < 0.5:
                    break
            run, _ = process.communicate(timeout=400)
            assert process.returncode in {0, 1}, f"seed {seed}\n{run}"
            assert "WRONG STATE" not in run, f"seed {seed}\n{run}"
            assert "INTERNALERROR" not in run, f"seed {seed}\n{run}"
            assert "60 passed" in site.run(on(plain)), f"seed {seed}"
            assert plain.half_made() == [], f"seed {seed}"
    tried("a server lost at a random moment of a run", lost)


def test_a_server_lost_in_the_middle_of_a_build_is_an_error_and_the_next_run_builds(plain, gone, tried):
    with other_site() as site, on_request(site, gone) as served:
        site.write("attacked/seeds.py", SLOW_SEEDS)
        site.write(
            "test_it.py",
            textwrap.dedent(COUNTED) + "\ndef test_it(seeded_connection):\n    is_seeded(seeded_connection)\n",
        )
        run = site.run(on(plain), "--seed-db-reseed", code=1)
        assert "1 error" in run
        assert re.search(r"^(BuildError|ServerError): The \S+", run, re.MULTILINE)
        assert re.search(r"^  do:   \S", run, re.MULTILINE)
        site.environment["REQUEST"] = ""
        site.run(on(plain))
        assert plain.half_made() == []
    tried(f"a server lost in the middle of a build: {gone.name}", len(served))


SLOW_SEEDS = """
    import os
    import time
    from pathlib import Path
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder
    def shops(session):
        session.execute(text("INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 40) n"))
        if asked := os.environ["REQUEST"]:
            Path(asked).touch()
            while Path(asked).exists():
                time.sleep(0.005)

    @seeder(after=[shops])
    def items(session):
        session.execute(text("INSERT INTO item (shop_id, price) SELECT id, n FROM shop, generate_series(1, 10) n"))
"""


def test_a_server_that_does_not_come_back_is_one_clear_error(tried):
    with poor_server() as server, other_site(INTERRUPTED) as site, on_request(site, server.stop):
        started = time.monotonic()
        run = site.run(on(server), code=1, timeout=300)
        assert time.monotonic() - started < 120
        told = told_by(run[run.index("ServerError: The connection to") :])
    assert told.startswith("ServerError: The connection to the PostgreSQL server was lost, and there is no new one\n")
    assert "Connection refused" in told
    assert f"  from: {server.address().masked}\n" in told
    assert "  do:   check that the server runs, and that the role may connect\n" in told
    tried("a server lost for good")


# -- connections run out --------------------------------------------------------------------------


@contextmanager
def full(server, user="postgres", spare=0):
    """Takes every connection that the user may have, but ``spare``."""
    taken = []
    try:
        with suppress(psycopg.OperationalError):
            while len(taken) < 100:
                taken.append(psycopg.connect(server.address(user=user).conninfo))
        assert len(taken) < 100
        for _ in range(spare):
            taken.pop().close()
        time.sleep(0.2)
        yield
    finally:
        for each in taken:
            each.close()


def test_no_connection_left_at_the_start_is_said_with_what_to_do(plain, site, tried):
    plain.role("one of many", "CREATEDB")
    for user, what in {"postgres": "sorry, too many clients already", "one of many": "slots are reserved for"}.items():
        with full(plain, user):
            told = told_by(site.run(on(plain, user=user), code=1))
        assert told.startswith("ServerError: The server cannot be used: connecting failed\n")
        assert what in told
        assert "  from: the option --seed-db-server\n" in told
        assert "  do:   raise max_connections on the server, end unused connections, or run fewer" in told
    site.passes(on(plain))
    tried("a run without any connection left", 2)


@pytest.mark.parametrize("spare", [1, 2, 3, 4])
def test_however_few_connections_are_left_tests_pass_or_say_so(plain, site, spare, tried):
    with full(plain, spare=spare):
        process = site.start(on(plain))
        run, _ = process.communicate(timeout=200)
    assert "Traceback" not in run
    assert "assert (" not in run, run
    for kind, error in re.findall(r"^(ERROR|FAILED) .* - (.*)", run, re.MULTILINE):
        ours, tests_own = error.startswith("pytest_seed"), error.startswith("sqlalchemy.")
        assert ours or (kind == "FAILED" and tests_own), run
    if process.returncode:
        assert "  do:   raise max_connections on the server" in run
    else:
        assert spare > 2
    time.sleep(0.2)
    site.passes(on(plain))
    assert plain.half_made() == []
    tried(f"a run with {spare} connections left")


def test_four_workers_share_few_connections(tried):
    with poor_server(max_connections=18, superuser_reserved_connections=1, max_wal_senders=0) as server:
        url = server.role("maker", "CREATEDB")
        with new_site() as site:
            for _ in range(times(3)):
                site.passes(f"--seed-db-server={url}", "-n", "4", "--seed-db-reseed")
                assert server.half_made() == []
    tried("four workers with 17 connections", times(3))


def test_connections_that_run_out_within_a_run_spoil_no_later_test(plain, tried):
    tests = """
        import psycopg

        @pytest.mark.parametrize("number", range(6))
        def test_takes_all(seeded_db, number):
            taken = []
            with database_connection(seeded_db) as connection:
                is_seeded(connection)
                connection.execute("DELETE FROM item")
                connection.commit()
            with pytest.raises(psycopg.OperationalError):
                while True:
                    taken.append(psycopg.connect(seeded_db.conninfo))
            for each in taken:
                each.close()

        def database_connection(database):
            return psycopg.connect(database.conninfo)
    """
    with other_site(tests) as site:
        run = site.run(on(plain))
        assert "6 passed" in run
        assert plain.half_made() == []
    tried("a test that takes all connections", 6)


assert "004_visit" not in MIGRATIONS
