"""How the plugin behaves in a run: enabled or not, with xdist, alone, quiet, with other plugins."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest

TEST = """
    def test_it(seeded_connection):
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)

    def test_other():
        pass
"""


def test_without_the_option_seeded_tests_are_skipped_saying_why(project):
    project.write("test_it.py", TEST)
    result = project.run("-ra", enabled=False)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*seeded tests run with --seed-db, or with enabled = *"])


@pytest.mark.slow
def test_enabled_always_in_the_table_needs_no_option(project):
    project.table('enabled = "always"')
    project.write("test_it.py", TEST)
    project.run(enabled=False).assert_outcomes(passed=2)


@pytest.mark.slow
def test_using_a_fixture_marks_the_test_so_that_m_seeded_selects_it(project):
    project.write("test_it.py", TEST)
    project.run("-m", "seeded").assert_outcomes(passed=1, deselected=1)
    project.run("-m", "not seeded").assert_outcomes(passed=1, deselected=1)


def test_a_run_without_seeded_tests_starts_no_server(project, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project.test("def test_it(): pass").assert_outcomes(passed=1)
    assert not (tmp_path / "cache").exists()


def test_the_second_run_reuses_the_template_and_says_so(project):
    project.write("seeds/more.sql", "INSERT INTO shop (name) VALUES ('only here, for the second run');")
    test = TEST.replace("(3,)", "(4,)")
    first, second = project.test(test), project.run()
    first.stdout.fnmatch_lines(["seeddb: template little-shop/default built in *"])
    second.stdout.fnmatch_lines(["seeddb: template little-shop/default reused"])


@pytest.mark.embedded
def test_the_header_tells_the_server_and_where_it_came_from_before_it_is_started(project):
    result = project.test("def test_it(): pass")
    result.stdout.fnmatch_lines(["seeddb: embedded PostgreSQL * (*), profile default"])


@pytest.mark.slow
def test_quiet_stays_quiet_but_for_the_report_that_was_asked_for(project):
    project.write("test_it.py", TEST)
    assert "seeddb" not in project.run("-q").stdout.str()
    lines = [line for line in project.run("-q", "--seed-db-report").stdout.lines if line.startswith("seeddb")]
    assert [" ms  test_it.py::" in line for line in lines] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-n", "2"), ("-n", "4", "--dist", "loadfile"), ("-p", "no:xdist"), ("-n", "0")])
def test_one_build_serves_all_workers(project, options):
    project.write("watched.txt", str(options))
    project.table('watch = ["watched.txt"]')
    for number in range(4):
        project.write(f"test_{number}.py", TEST)
    result = project.run(*options)
    result.assert_outcomes(passed=8)
    output = result.stdout.str()
    assert output.count("template little-shop/default built") == 1
    assert "after tests: 4 kept" in output


@pytest.mark.slow
def test_a_run_without_xdist_installed_works(project):
    # A module that cannot be imported is as good as none.
    project.write("xdist/__init__.py", "raise ImportError")
    project.test(TEST, "-p", "no:xdist", "-p", "no:xdist.looponfail").assert_outcomes(passed=2)


@pytest.mark.slow
def test_random_order_and_no_cache_do_no_harm(project):
    project.write("test_it.py", TEST)
    plugins = ("-p", "no:cacheprovider", "-p", "no:asyncio", "--seed-db", "-p", "randomly")
    project.pytester.runpytest_subprocess(*plugins).assert_outcomes(passed=2)


@pytest.mark.slow
def test_twenty_destructive_tests_in_any_order_on_four_workers_each_see_the_seeded_state(project):
    result = project.test(
        """
        import pytest, psycopg
        left = []
        WAYS = [
            "DROP TABLE shop", "DELETE FROM shop", "TRUNCATE shop RESTART IDENTITY",
            "SELECT setval('shop_id_seq', 1000)",
            "ALTER TABLE shop ADD extra int", "INSERT INTO shop (name) VALUES ('x')", "DROP SCHEMA public CASCADE",
            "UPDATE shop SET name = name || '!'", "SELECT nextval('ticket')", "CREATE TABLE other ()",
        ]

        @pytest.mark.parametrize("way", WAYS * 2)
        def test_it(seeded_db, way):
            connection = psycopg.connect(seeded_db.url, autocommit=True)
            left.append(connection)
            rows = connection.execute("SELECT id, name FROM shop").fetchall()
            assert rows == [(1, "shop 1"), (2, "shop 2"), (3, "shop 3")]
            assert connection.execute("SELECT nextval('shop_id_seq'), nextval('ticket')").fetchone() == (4, 1)
            assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (1,)
            connection.execute(way)
        """,
        "-n",
        "4",
        "-W",
        "ignore",
        "-p",
        "randomly",
    )
    result.assert_outcomes(passed=20)


@pytest.mark.parametrize(
    ("file", "text"), [("pyproject.toml", "[tool.seeddb]\nscop = 3"), ("seeddb.toml", "= broken [")]
)
def test_help_works_however_broken_the_table_is(project, file, text):
    project.write("pyproject.toml", "")
    project.write(file, text)
    assert project.run("--co").ret == pytest.ExitCode.USAGE_ERROR
    result = project.run("--help")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*--seed-db-server=SERVER*"])


@pytest.mark.slow
def test_nothing_is_left_on_the_server_but_templates(project, server_address):
    import psycopg

    def listed():
        with psycopg.connect(server_address.conninfo) as connection:
            return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}

    before = listed()  # other tests' runs keep the databases of what failed in them
    project.test(TEST).assert_outcomes(passed=2)
    assert {name for name in listed() - before if not name.startswith("seeddb_t_")} == set()


@pytest.mark.slow
def test_forked_tests_leave_the_parents_clones_alone(project):
    result = project.test(
        """
        import os

        def test_it(seeded_db, seeded_db_factory):
            child = os.fork()
            if child == 0:
                with seeded_db_factory() as own, own.connect() as connection:
                    found = connection.execute("SELECT count(*) FROM shop").fetchone()
                os._exit(0 if found == (3,) and own.name != seeded_db.name else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            with seeded_db.connect() as connection:
                assert connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
            with seeded_db_factory() as another:
                assert another.name != seeded_db.name
        """,
        "-W",
        "ignore::DeprecationWarning",
    )
    result.assert_outcomes(passed=1)


HEAVY = ("sqlalchemy", "psycopg", "factory", "testcontainers", "alembic", "django", "faker", "numpy")


def test_a_run_without_a_seeded_test_imports_no_framework(project):
    result = project.test(
        f"""
        import sys

        def test_it():
            assert not set({HEAVY!r}) & set(sys.modules)
        """
    )
    result.assert_outcomes(passed=1)


SLOW = "SELECT pg_sleep(1.6); -- {}"


@pytest.mark.slow
def test_a_long_build_says_in_plain_lines_what_it_is_at(project):
    project.write("seeds/slow.sql", SLOW.format("plain"))
    result = project.test("def test_it(seeded_url): pass")
    result.stderr.fnmatch_lines(["seeddb: building little-shop/default: * seed seeds/slow.sql, for * s"])


@pytest.mark.slow
def test_on_a_terminal_the_line_of_a_long_build_is_cleared_at_its_end(project, repository):
    project.write("seeds/slow.sql", SLOW.format("terminal"))
    project.write("test_it.py", "def test_it(seeded_url): pass")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "pytest", "--seed-db", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=project.path, stderr=theirs, stdout=subprocess.DEVNULL, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\r\x1b[Kseeddb: building little-shop/default" in shown
    assert shown.endswith("\r\x1b[K")


@pytest.mark.slow
def test_the_value_of_a_secret_parameter_is_in_no_output_and_no_comment(project, server_address):
    project.seeders()
    project.write(
        "little/seeds.py",
        """
        from typing import Annotated
        from sqlalchemy import text
        from pytest_seeddb import Param, seeder

        @seeder
        def admin(session, pin: Annotated[str, Param(secret=True)] = "0000"):
            session.execute(text("INSERT INTO shop (name) VALUES (:pin)"), {"pin": pin})
        """,
    )
    result = project.test(
        """
        import pytest

        @pytest.mark.seeded(pin="98-canary-76")
        def test_it(seeded_db):
            assert seeded_db.connect().execute("SELECT name FROM shop").fetchone() == ("98-canary-76",)
        """,
        "-v",
    )
    result.assert_outcomes(passed=1)
    assert "canary" not in result.stdout.str() + result.stderr.str()
    with psycopg.connect(server_address.conninfo) as connection:
        rows = connection.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database").fetchall()
    assert not [comment for (comment,) in rows if comment and "canary" in comment]
