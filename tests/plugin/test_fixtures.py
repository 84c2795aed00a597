"""The fixtures: what each gives, how long it lives, how it is overridden, and what other plugins make of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psycopg
import pytest

ISOLATIONS = ("clone", "rollback", "readonly")
COUNT = "SELECT count(*) FROM shop"


def clones_on(address):
    """The databases of ours on the server that are no templates, and were not kept for somebody to look at."""
    with psycopg.connect(address.conninfo) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'seeddb%'").fetchall()
    return [name for (name,) in names if not name.startswith(("seeddb_t_", "seeddb_k_"))]


# -- each of them, under each isolation ----------------------------------------------------------


@pytest.mark.slow
def test_every_fixture_reads_the_seeded_state_under_every_isolation(project):
    result = project.test(
        """
        import asyncio, gc, re
        import psycopg, pytest
        from psycopg.pq import TransactionStatus
        from sqlalchemy import text

        each = pytest.mark.parametrize("isolation", [
            pytest.param(name, marks=pytest.mark.seeded(isolation=name)) for name in ("clone", "rollback", "readonly")
        ])
        COUNT = "SELECT count(*) FROM shop"

        @each
        def test_database(seeded_db, seeded_url, isolation):
            assert seeded_db.isolation == isolation
            assert seeded_db.url == seeded_url and seeded_url.startswith("postgresql://")
            assert set(seeded_db.env) >= {"DATABASE_URL", "PGDATABASE", "PGHOST"}
            for connected in (seeded_db.connect(), psycopg.connect(seeded_url), psycopg.connect(seeded_db.conninfo)):
                with connected as connection:
                    assert connection.info.dbname == seeded_db.name
                    assert connection.execute(COUNT).fetchone() == (3,)
            as_dict = seeded_db.connect(autocommit=True, row_factory=psycopg.rows.dict_row)
            assert as_dict.execute("SELECT 7 AS n").fetchone() == {"n": 7}
            seeded_db.reset()
            with seeded_db.connect() as connection:
                assert connection.execute(COUNT).fetchone() == (3,)
            seeded_db.connect()  # left open
            gc.collect()

        @each
        def test_connection(seeded_connection, seeded_db, isolation):
            assert not seeded_connection.autocommit
            assert seeded_connection.execute(COUNT).fetchone() == (3,)
            assert seeded_connection.info.transaction_status == TransactionStatus.INTRANS
            assert seeded_connection.info.dbname == seeded_db.name

        @each
        def test_engine(seeded_engine, seeded_db, isolation):
            assert seeded_engine.dialect.driver == "psycopg"
            with seeded_engine.connect() as one, seeded_engine.connect() as two:
                assert one.execute(text(COUNT)).scalar() == two.execute(text(COUNT)).scalar() == 3

        @each
        def test_session(seeded_session, seeded_engine, isolation):
            assert seeded_session.get_bind() is seeded_engine
            assert seeded_session.execute(text(COUNT)).scalar() == 3
            # left inside a transaction

        @each
        def test_async(seeded_async_engine, seeded_async_session, isolation):
            assert seeded_async_session.bind is seeded_async_engine
            async def work():
                async with seeded_async_engine.connect() as connection:
                    assert (await connection.execute(text(COUNT))).scalar() == 3
                assert (await seeded_async_session.execute(text(COUNT))).scalar() == 3
            asyncio.run(work())
            gc.collect()

        @pytest.mark.parametrize("isolation", ["clone", "rollback", "readonly"])
        def test_factory(seeded_db_factory, isolation):
            with seeded_db_factory(isolation=isolation) as one, one.connect() as connection:
                assert connection.execute(COUNT).fetchone() == (3,)
        """
    )
    result.assert_outcomes(passed=18)


@pytest.mark.slow
def test_fixtures_of_one_test_are_one_database(project):
    result = project.test(
        """
        import pytest
        from sqlalchemy import text

        def test_it(seeded_db, seeded_session, seeded_engine, seeded_connection):
            seeded_connection.execute("INSERT INTO shop (name) VALUES ('one')")
            seeded_connection.commit()
            with seeded_engine.begin() as connection:
                connection.execute(text("INSERT INTO shop (name) VALUES ('two')"))
            assert seeded_session.execute(text("SELECT count(*) FROM shop")).scalar() == 5

        def test_reset_in_a_loop_as_property_tests_do(seeded_db, seeded_session, seeded_engine):
            for number in range(10):
                seeded_session.execute(text("INSERT INTO shop (name) VALUES ('mine')"))
                if number % 2:
                    seeded_session.commit()
                with seeded_engine.begin() as connection:
                    connection.execute(text("DELETE FROM shop WHERE id <= :n"), {"n": number % 3})
                seeded_db.reset()
                assert seeded_session.execute(text("SELECT count(*) FROM shop")).scalar() == 3
                assert seeded_session.execute(text("SELECT nextval('shop_id_seq')")).scalar() == 4
                seeded_db.reset()

        @pytest.fixture
        def shop(seeded_session, request):
            seeded_session.execute(text("INSERT INTO shop (name) VALUES (:name)"), {"name": request.param})
            return request.param

        @pytest.mark.parametrize("shop", ["a", "b"], indirect=True)
        def test_with_a_parameter_for_a_fixture_of_ones_own(shop, seeded_session):
            found = seeded_session.execute(text("SELECT name FROM shop WHERE id = 4")).scalar()
            assert found == shop
        """
    )
    result.assert_outcomes(passed=4)


@pytest.mark.slow
def test_the_factory_takes_what_the_marker_takes_and_makes_several_at_once(project):
    project.seeders("[tool.seeddb.profiles.demo]\nshops = 2")
    result = project.test(
        """
        import pytest
        from contextlib import ExitStack

        def rows(database):
            with database.connect() as connection:
                return connection.execute("SELECT count(*) FROM shop").fetchone()[0]

        @pytest.fixture(scope="session")
        def of_session(seeded_db_factory):
            with seeded_db_factory("demo", shops=5) as database:
                yield database

        @pytest.fixture(scope="module")
        def of_module(seeded_db_factory, of_session):
            with seeded_db_factory("demo") as database:
                assert database.name != of_session.name
                yield database

        @pytest.mark.parametrize("round", range(2))
        def test_it(of_session, of_module, seeded_db_factory, round):
            assert rows(of_session) == 6 + round
            with of_session.connect() as connection:
                connection.execute("INSERT INTO shop (name) VALUES (%s)", [f"round {round}"])
            assert rows(of_module) == 3
            with ExitStack() as stack:
                databases = [stack.enter_context(seeded_db_factory("demo")) for _ in range(3)]
                for isolation in ("readonly", "rollback"):
                    databases.append(stack.enter_context(seeded_db_factory(isolation=isolation)))
                assert len({each.name for each in databases}) >= 4
                assert [rows(each) for each in databases] == [3, 3, 3, rows(databases[3]), rows(databases[3])]

        def test_what_is_wrong(seeded_db_factory):
            from pytest_seeddb import ConfigError
            for wrong in ({"profile": "dmo"}, {"isolation": "none"}, {"shop": 3}):
                with pytest.raises(ConfigError):
                    with seeded_db_factory(**wrong):
                        pass
        """
    )
    result.assert_outcomes(passed=3)


# -- who gets a database, and when ---------------------------------------------------------------


@pytest.mark.slow
def test_a_test_that_asks_while_it_runs_gets_one(project):
    test = """
        import pytest

        @pytest.fixture
        def chosen(request):
            return request.getfixturevalue("seeded_db")

        def test_dynamic(request):
            with request.getfixturevalue("seeded_db").connect() as connection:
                assert connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)

        def test_in_a_fixture(chosen):
            assert chosen.name

        @pytest.fixture
        def by_name(seeded_connection):
            return seeded_connection

        def test_marked_by_a_fixture_of_a_fixture(by_name, request):
            assert request.node.get_closest_marker("seeded")
    """
    project.test(test).assert_outcomes(passed=3)
    project.run("-m", "seeded").assert_outcomes(passed=1, deselected=2)
    project.run("-ra", enabled=False).assert_outcomes(skipped=3)


@pytest.mark.slow
def test_the_users_own_fixtures_find_the_database_active(project):
    project.table('env = "SHOP_URL"')
    project.write(
        "conftest.py",
        """
        import os, psycopg, pytest

        def count():
            if "SHOP_URL" not in os.environ:
                return None
            with psycopg.connect(os.environ["SHOP_URL"]) as connection:
                return connection.execute("SELECT count(*) FROM shop").fetchone()[0]

        @pytest.fixture(autouse=True)
        def a_fixture_of_the_conftest():
            yield count()
            count()

        @pytest.fixture
        def seen():
            return count()
        """,
    )
    result = project.test(
        """
        import pytest
        from conftest import count

        @pytest.fixture(autouse=True)
        def of_the_module(a_fixture_of_the_conftest):
            before = count()
            yield before
            assert count() == before      # at the end it is still there

        @pytest.mark.seeded
        def test_marked(of_the_module, a_fixture_of_the_conftest, seen):
            assert of_the_module == a_fixture_of_the_conftest == seen == 3

        def test_unmarked(of_the_module, seen):
            assert of_the_module is seen is None

        @pytest.mark.seeded
        class TestMarked:
            def setup_method(self):
                assert count() == 3
            def teardown_method(self):
                assert count() == 3
            def test_it(self):
                assert count() == 3
            def test_again(self):
                assert count() == 3
        """
    )
    result.assert_outcomes(passed=4)


@pytest.mark.slow
def test_other_kinds_of_items_are_not_disturbed(project):
    project.table('scope = "module"')
    project.write("notes.txt", ">>> 1 + 1\n2\n")
    project.write("checks.check", "fine")
    project.write(
        "conftest.py",
        """
        import pytest

        class Check(pytest.Item):
            def runtest(self):
                assert self.path.read_text() == "fine"

        class Checks(pytest.File):
            def collect(self):
                yield Check.from_parent(self, name="check")

        def pytest_collect_file(parent, file_path):
            return Checks.from_parent(parent, path=file_path) if file_path.suffix == ".check" else None
        """,
    )
    result = project.test(
        '''
        """
        >>> getfixture("seeded_db").isolation
        'clone'
        """
        import unittest

        def double(n):
            """
            >>> double(2)
            4
            """
            return 2 * n

        class TestPlain(unittest.TestCase):
            def test_it(self):
                self.assertEqual(double(1), 2)
        ''',
        "--doctest-modules",
        "--doctest-glob=*.txt",
    )
    result.assert_outcomes(passed=5)
    for scope in ("class", "session", "function"):
        project.table(f'scope = "{scope}"')
        project.run("--doctest-modules", "--doctest-glob=*.txt").assert_outcomes(passed=5)


# -- scopes --------------------------------------------------------------------------------------

FILLING = """
    import os, psycopg, pytest

    def count():
        with psycopg.connect(os.environ["SHOP_URL"]) as connection:
            return connection.execute("SELECT count(*) FROM shop").fetchone()[0]

    def add(name):
        with psycopg.connect(os.environ["SHOP_URL"]) as connection:
            connection.execute("INSERT INTO shop (name) VALUES (%s)", [name])

    def of_scope(scope):
        @pytest.fixture(scope=scope)
        def filled():
            add("of the " + scope)
        return filled
"""


@pytest.fixture
def scoped(project):
    project.write("filling.py", FILLING)
    return project


@pytest.mark.slow
def test_scope_class_is_one_clone_for_each_class(scoped):
    scoped.table('scope = "class"\nenv = "SHOP_URL"')
    result = scoped.test(
        """
        import os, unittest, pytest
        from filling import add, count, of_scope
        filled = of_scope("class")

        @pytest.mark.seeded
        class TestOne:
            def test_a(self, filled):
                assert count() == 4
                add("of a")
            def test_b(self):
                assert count() == 5

        @pytest.mark.seeded
        class TestUnit(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                add("of setUpClass")
            @classmethod
            def tearDownClass(cls):
                assert count() == 5
            def setUp(self):
                assert count() >= 4
            def test_a(self):
                add("of a")
            def test_b(self):
                assert count() == 5

        class TestUnmarked(unittest.TestCase):
            def test_it(self):
                assert "SHOP_URL" not in os.environ

        class TestByFixture:
            def test_a(self, seeded_session, seeded_db):
                add("of a")
            def test_b(self, seeded_db):
                assert count() == 4

        @pytest.mark.seeded
        @pytest.mark.parametrize("round", range(2))
        def test_alone(round):
            assert count() == 3
            add("alone")
        """
    )
    result.assert_outcomes(passed=9)
    result.stdout.fnmatch_lines(["seeddb: after tests: 5 *"])


MODULE = """
    import pytest
    from filling import add, count
    pytestmark = pytest.mark.seeded

    def test_first():
        add("first")

    def test_second():
        assert count() == {}
"""


@pytest.mark.slow
def test_scope_module_with_unmarked_modules_between_and_with_xdist(scoped):
    scoped.table('scope = "module"\nenv = "SHOP_URL"')
    plain = "import os\n\ndef test_it():\n    assert 'SHOP_URL' not in os.environ\n"
    for name in "abcd":
        scoped.write(f"test_{name}.py", plain if name in "ac" else MODULE.format(4))
    scoped.write(
        "test_e.py",
        """
        import pytest
        from filling import add, count, of_scope
        filled = of_scope("module")

        def test_unmarked(filled):     # shares the module with a marked one
            assert count() == 4

        @pytest.mark.seeded
        def test_marked():
            assert count() == 4
        """,
    )
    result = scoped.run()
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["seeddb: after tests: 3 *"])
    result = scoped.run("-n", "2", "--dist", "loadscope")
    result.assert_outcomes(passed=8)


@pytest.mark.slow
def test_scope_package_is_one_clone_for_each_package_and_its_fixtures_write_before_the_tests(scoped):
    scoped.table('scope = "package"\nenv = "SHOP_URL"')
    for package in ("one", "two", "two/inner"):
        scoped.write(f"{package}/__init__.py", "")
        scoped.write(
            f"{package}/conftest.py",
            "from filling import of_scope\nfilled = of_scope('package')",
        )
        for name in "ab":
            scoped.write(
                f"{package}/test_{name}.py",
                f"""
                import pytest
                from filling import add, count
                pytestmark = pytest.mark.seeded

                def test_it(filled):
                    assert count() == {4 if name == "a" else 5}
                    add("{name}")
                """,
            )
    result = scoped.run("-p", "no:warnings")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["seeddb: after tests: 3 *"])


@pytest.mark.slow
def test_scope_session_is_one_clone_for_all(scoped):
    scoped.table('scope = "session"\nenv = "SHOP_URL"')
    scoped.write("conftest.py", "from filling import of_scope\nfilled = of_scope('session')")
    scoped.write("test_a.py", MODULE.format(4))
    scoped.write(
        "test_b.py",
        """
        import pytest
        from filling import count

        def test_it(filled, seeded_session, seeded_db_factory):
            assert count() == 5
            with seeded_db_factory() as own, own.connect() as connection:
                assert connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
        """,
    )
    result = scoped.run()
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["seeddb: 2 clones, *"])


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
@pytest.mark.slow
def test_a_marker_of_ones_own_inside_a_shared_scope_is_a_usage_error(project, scope):
    project.table(f'scope = "{scope}"')
    project.write("pack/__init__.py", "")
    result = project.test(
        """
        import pytest

        @pytest.mark.seeded
        class TestIt:
            @pytest.mark.seeded(isolation="readonly")
            def test_it(self):
                pass
        """,
        name="pack/test_it.py",
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*differs from that of its {scope}*", "*pack/test_it.py::TestIt::test_it*"])


# -- overriding the session's chain --------------------------------------------------------------


@pytest.mark.slow
def test_the_sessions_fixtures_can_be_overridden_in_a_conftest(project):
    project.seeders("[tool.seeddb.profiles.demo]\nshops = 2")
    project.write(
        "conftest.py",
        """
        import pytest
        from pytest_seeddb import plan_of

        used = []

        @pytest.fixture(scope="session")
        def seeddb_settings(seeddb_settings):
            return seeddb_settings.replace(profile="large", profiles={"large": {"shops": 6}, "tiny": {"shops": 1}})

        @pytest.fixture(scope="session")
        def seeddb_server(seeddb_server):
            used.append("server")
            return seeddb_server

        @pytest.fixture(scope="session")
        def seeddb_plan(seeddb_settings):
            used.append("plan")
            return plan_of(seeddb_settings)

        @pytest.fixture(scope="session")
        def seeddb_template(seeddb_template):
            used.append("template")
            return seeddb_template
        """,
    )
    result = project.test(
        """
        import pytest
        from conftest import used

        def rows(connection):
            return connection.execute("SELECT count(*) FROM shop").fetchone()[0]

        def test_it(seeded_connection):
            assert rows(seeded_connection) == 7
            assert sorted(used) == ["plan", "server", "template"]

        @pytest.mark.seeded("tiny")
        def test_a_profile_that_only_the_override_has(seeded_connection):
            assert rows(seeded_connection) == 2

        @pytest.mark.seeded(shops=4)
        def test_parameters(seeded_connection):
            assert rows(seeded_connection) == 5
        """
    )
    result.assert_outcomes(passed=3)


@pytest.mark.slow
def test_a_refused_write_is_explained_by_an_isolation_that_is_overridden_or_by_full_memory(project):
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def seeddb_settings(seeddb_settings):
            return seeddb_settings.replace(isolation="readonly")
        """,
    )
    result = project.test(
        """
        import psycopg

        def test_it(seeded_connection):
            seeded_connection.execute("DELETE FROM shop")

        def test_full(seeded_connection):
            raise psycopg.errors.DiskFull('could not extend file "pg_tblspc/16384/PG_15/1/2"')
        """
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(['This test has isolation="readonly"*', "The test's database is in memory, and *"])


@pytest.mark.slow
@pytest.mark.parametrize("order", [("test_a_top.py", "sub"), ("sub", "test_a_top.py")], ids=["top first", "sub first"])
@pytest.mark.parametrize("overridden", ["settings", "plan"])
def test_a_conftest_of_a_subdirectory_overrides_for_its_own_tests_only(project, overridden, order):
    override = {
        "settings": """
            import pytest

            @pytest.fixture(scope="session")
            def seeddb_settings(seeddb_settings):
                return seeddb_settings.replace(name="sub", seeds=[])
        """,
        "plan": """
            import pytest
            from pytest_seeddb import plan_of

            @pytest.fixture(scope="session")
            def seeddb_plan(seeddb_settings):
                return plan_of(seeddb_settings.replace(name="sub", seeds=[]))
        """,
    }
    project.write("sub/conftest.py", override[overridden])
    test = "def test_it(seeded_connection): assert seeded_connection.execute('{}').fetchone() == ({},)"
    project.write("sub/test_in_sub.py", test.format(COUNT, 0))
    project.write("test_a_top.py", test.format(COUNT, 3))
    project.run(*order).assert_outcomes(passed=2)


# -- failures and other plugins ------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_left_after_failures_in_setup_in_teardown_and_in_the_test(project, server_address):
    result = project.test(
        """
        import pytest

        @pytest.fixture
        def broken_at_setup(seeded_session):
            raise RuntimeError("at setup")

        @pytest.fixture
        def broken_at_teardown(seeded_session):
            yield
            raise RuntimeError("at teardown")

        def test_setup(broken_at_setup): pass
        def test_teardown(broken_at_teardown): pass
        def test_call(seeded_session): raise RuntimeError("in the test")

        def test_after(seeded_connection):
            assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
        """,
        "--seed-db-server",
        server_address.url,
    )
    result.assert_outcomes(passed=2, failed=1, errors=2)
    assert clones_on(server_address) == []


@pytest.mark.slow
def test_failed_first_stepwise_and_stop_at_the_first_failure_work(project):
    options = ("--seed-db", "-p", "no:randomly", "-p", "no:asyncio", "-W", "error")
    project.write(
        "test_it.py",
        """
        import os

        def test_a(seeded_db): pass
        def test_b(seeded_db): assert "MENDED" in os.environ
        def test_c(seeded_db): pass
        """,
    )
    run = project.pytester.runpytest_subprocess
    run(*options, "-x").assert_outcomes(passed=1, failed=1)
    run(*options, "--lf").assert_outcomes(failed=1)
    run(*options, "--sw").assert_outcomes(passed=1, failed=1)
    run(*options, "--ff", "-x").assert_outcomes(failed=1)


@pytest.mark.slow
def test_looking_at_tests_and_fixtures_starts_no_server(project, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project.write("test_it.py", "def test_it(seeded_session, seeded_db_factory): pass")
    assert project.run("--collect-only").ret == 0
    shown = project.run("--fixtures")
    for name in ("seeded_db", "seeded_session", "seeded_db_factory", "seeddb_settings"):
        shown.stdout.fnmatch_lines([f"{name} *"])
    assert project.run("--setup-plan").ret == 0
    assert project.run("--fixtures-per-test").ret == 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_an_interrupt_in_a_test_leaves_nothing_on_the_server(project, server_address):
    project.write(
        "test_it.py",
        """
        import pathlib, time

        def test_it(seeded_session, seeded_db):
            pathlib.Path("running").touch()
            time.sleep(60)
        """,
    )
    command = [sys.executable, "-m", "pytest", "--seed-db", "--seed-db-server", server_address.url]
    command += ["-p", "no:cacheprovider", "-p", "no:asyncio"]
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not (project.path / "running").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=30)[0]
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert clones_on(server_address) == []


@pytest.mark.slow
def test_a_plugin_that_runs_each_test_in_a_fork_does_no_harm_and_the_next_run_tidies_up(project, server_address):
    project.write(
        "conftest.py",
        """
        import os, pytest
        from _pytest.runner import runtestprotocol

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item, nextitem):
            if not item.config.getoption("verbose"):
                return None
            child = os.fork()
            if child == 0:  # dies without any teardown of the session's
                reports = runtestprotocol(item, log=False, nextitem=nextitem)
                os._exit(0 if all(report.passed for report in reports) else 1)
            passed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            for when in ("setup", "call", "teardown"):
                outcome = "passed" if passed else "failed"
                report = pytest.TestReport(item.nodeid, item.location, {}, outcome, None, when)
                item.ihook.pytest_runtest_logreport(report=report)
            return True
        """,
    )
    server = ("--seed-db-server", server_address.url)
    result = project.test(
        """
        import pytest
        from sqlalchemy import text

        @pytest.mark.parametrize("round", range(3))
        def test_it(seeded_session, seeded_db, round):
            assert seeded_session.execute(text("SELECT count(*) FROM shop")).scalar() == 3
            seeded_session.execute(text("DELETE FROM shop"))
            seeded_session.commit()
        """,
        *("-v", *server),
    )
    result.assert_outcomes(passed=3)
    project.run(*server).assert_outcomes(passed=3)
    assert clones_on(server_address) == []
