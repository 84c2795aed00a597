"""What a failed test leaves for whoever has to find out why, and the report of what tests wrote."""

from __future__ import annotations

import json
import re
import subprocess

import psycopg
import pytest
from separate import separate_server

from pytest_seeddb.settings.files import project_identity

FAILING = """
    import psycopg, pytest

    def test_it(seeded_connection):
        seeded_connection.autocommit = True
        seeded_connection.execute("INSERT INTO shop (name) VALUES ('left by the test')")
        assert 1 == 2

    def test_after(seeded_db):
        with seeded_db.connect() as connection:
            assert connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
"""


def shown(result):
    return re.search(r"psql '(\S+)'", result.stdout.str())


def drop(url):
    name = url.split("?")[0].rpartition("/")[2]
    with psycopg.connect(url.replace(name, "postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name}")


@pytest.fixture(scope="module")
def server():
    """A server of this module's own: other tests keep databases, too, and the oldest of twenty go."""
    with separate_server() as start:
        yield start()


@pytest.fixture
def kept(server):
    def listed():
        with psycopg.connect(server.conninfo) as connection:
            rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'seeddb_k%' ORDER BY 1")
            return [row[0] for row in rows]

    return listed


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_a_failed_tests_database_is_kept_and_the_report_says_how_to_open_it_and_what_was_written(
    project, server, workers
):
    url = server.url
    result = project.test(FAILING, f"--seed-db-server={url}", *workers)
    result.assert_outcomes(passed=1, failed=1)
    output = result.stdout.str()
    assert "shop  1 inserted" in output
    assert "sequences moved: public.shop_id_seq" in output or "sequences moved: shop_id_seq" in output
    with psycopg.connect(shown(result)[1]) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM shop ORDER BY id")]
        note = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"
        assert json.loads(connection.execute(note).fetchone()[0])["project"] == project_identity(project.path)
    assert names[-1] == "left by the test"
    drop(shown(result)[1])


@pytest.mark.slow
def test_an_error_in_set_up_is_treated_likewise(project, server):
    result = project.test(
        """
        import pytest

        @pytest.fixture
        def broken(seeded_connection):
            seeded_connection.execute("INSERT INTO shop (name) VALUES ('x')")
            seeded_connection.commit()
            raise RuntimeError("broken")

        def test_it(broken):
            pass
        """,
        f"--seed-db-server={server.url}",
    )
    result.assert_outcomes(errors=1)
    assert "shop  1 inserted" in result.stdout.str()
    drop(shown(result)[1])


@pytest.mark.slow
def test_keep_none_keeps_nothing_and_still_says_what_was_written(project, server, kept):
    before = kept()
    result = project.test(FAILING, f"--seed-db-server={server.url}", "--seed-db-keep=none")
    assert "shop  1 inserted" in result.stdout.str()
    assert shown(result) is None
    assert kept() == before


@pytest.mark.slow
def test_twenty_are_kept_and_the_oldest_go_first(project, server, kept):
    for already in kept():
        drop(server.with_database(already).url)
    text = """
        import pytest

        @pytest.mark.parametrize("number", range(23))
        def test_it(seeded_db, number):
            with seeded_db.connect() as connection:
                connection.execute("INSERT INTO shop (name) VALUES (%s)", [f"number {number}"])
    """
    result = project.test(text, f"--seed-db-server={server.url}", "--seed-db-keep=all")
    result.assert_outcomes(passed=23)
    assert len(kept()) == 20
    for each in kept():
        drop(server.with_database(each).url)


@pytest.mark.slow
@pytest.mark.embedded
def test_seeddb_shell_opens_the_newest_kept_database_also_when_its_server_has_stopped(project, cache_home, monkeypatch):
    own = cache_home / "shell"
    own.mkdir(mode=0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    result = project.test(FAILING)
    result.assert_outcomes(passed=1, failed=1)
    name = re.search(r"seeddb shell (\S+)", result.stdout.str())[1]
    asked = "SELECT count(*) FROM shop WHERE name = 'left by the test';"
    for given in ([name], []):
        done = subprocess.run(["seeddb", "shell", *given], input=asked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[:3] == ["count", "-------", "1"]
    unknown = subprocess.run(["seeddb", "shell", "nothing"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "There is no database 'nothing'" in unknown.stderr
    assert name in unknown.stderr


@pytest.mark.slow
def test_no_password_stands_in_the_psql_line(project, server, monkeypatch):
    url = server.url
    separator = "&" if "?" in url else "?"
    result = project.test(FAILING, f"--seed-db-server={url}{separator}password=s3cret")
    assert shown(result)
    assert "s3cret" not in result.stdout.str() + result.stderr.str()
    drop(shown(result)[1])


@pytest.mark.slow
def test_the_report_says_which_test_wrote_what_and_what_became_of_its_database(project):
    result = project.test(
        """
        def test_reads(seeded_db):
            pass

        def test_writes(seeded_connection):
            seeded_connection.execute("INSERT INTO shop (name) VALUES ('x')")
            seeded_connection.commit()
        """,
        "--seed-db-report",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_it.py::test_reads  keep: nothing was written"])
    result.stdout.fnmatch_lines(["*test_it.py::test_writes  rewind: rows were put back, wrote shop"])


@pytest.mark.slow
@pytest.mark.parametrize("position", ["in the middle", "last of the session"])
@pytest.mark.parametrize("broken_first", [False, True], ids=["made after the database", "made before it"])
def test_an_error_in_tear_down_is_treated_likewise(project, server, position, broken_first):
    after = "" if position == "last of the session" else "def test_other(seeded_db): pass"
    result = project.test(
        f"""
        import pytest

        @pytest.fixture
        def broken({"" if broken_first else "seeded_db"}):
            yield
            raise RuntimeError("broken in tear-down")

        def test_it({"broken, seeded_connection" if broken_first else "seeded_connection, broken"}):
            seeded_connection.execute("INSERT INTO shop (name) VALUES ('x')")
            seeded_connection.commit()

        {after}
        """,
        f"--seed-db-server={server.url}",
    )
    result.assert_outcomes(passed=1 + bool(after), errors=1)
    assert "broken in tear-down" in result.stdout.str()
    assert "shop  1 inserted" in result.stdout.str()
    with psycopg.connect(shown(result)[1]) as connection:
        assert connection.execute("SELECT count(*) FROM shop WHERE name = 'x'").fetchone() == (1,)
    drop(shown(result)[1])


@pytest.mark.slow
def test_errors_of_the_last_tests_tear_down_and_of_the_sessions_are_both_reported(project, server):
    result = project.test(
        """
        import pytest

        @pytest.fixture(scope="session")
        def wide():
            yield
            raise RuntimeError("the session's")

        @pytest.fixture
        def narrow(seeded_db):
            yield
            raise RuntimeError("the test's")

        def test_it(wide, narrow):
            pass
        """,
        f"--seed-db-server={server.url}",
    )
    result.assert_outcomes(passed=1, errors=1)
    assert "the session's" in result.stdout.str()
    assert "the test's" in result.stdout.str()
    drop(shown(result)[1])


@pytest.mark.slow
def test_a_tear_down_that_skips_or_passes_keeps_nothing(project, server, kept):
    before = kept()
    text = """
        import pytest

        @pytest.fixture
        def leaving(seeded_db):
            yield
            pytest.skip("no reason")

        def test_it(leaving):
            pass
    """
    project.test(text, f"--seed-db-server={server.url}")
    assert kept() == before
