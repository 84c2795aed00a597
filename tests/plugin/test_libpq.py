"""A shell with libpq's variables for another server, and a server of our own."""

from __future__ import annotations

import textwrap
import time

import pytest

SHELL = {
    "PGSERVICE": "gone",
    "PGHOSTADDR": "192.0.2.1",
    "PGCHANNELBINDING": "require",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGTARGETSESSIONATTRS": "read-only",
    "PGSSLMODE": "require",
    "PGOPTIONS": "-c search_path=nowhere",
    "PGTZ": "Asia/Tokyo",
    "PGDATESTYLE": "German",
    "PGCLIENTENCODING": "LATIN1",
}
TESTS = """
    import os, subprocess, sys
    import psycopg, psycopg2, pytest
    from sqlalchemy import create_engine, text

    SHOWN = ["search_path", "TimeZone", "DateStyle", "client_encoding"]
    CODE = "import psycopg, sys; print(psycopg.connect(sys.argv[1]).execute('SELECT count(*) FROM shop').fetchone()[0])"

    def shown(connection):
        cursor = connection.cursor()
        cursor.execute(f"SELECT {', '.join(f'current_setting({name!r})' for name in SHOWN)}")
        return list(cursor.fetchone())

    def test_connections(seeded_connection, seeded_url, seeded_engine):
        expected = shown(seeded_connection)
        assert expected[:2] == ['"$user", public', "UTC"]
        assert seeded_connection.execute("SELECT count(*) FROM shop WHERE name = 'UTC'").fetchone() == (1,)
        with psycopg.connect(seeded_url) as connection:
            assert shown(connection) == expected
        connection = psycopg2.connect(seeded_url)
        assert shown(connection)[:2] == expected[:2]
        connection.close()
        with seeded_engine.connect() as connection:
            assert connection.scalar(text("SHOW TimeZone")) == "UTC"
        child = subprocess.run([sys.executable, "-c", CODE, seeded_url], capture_output=True, text=True)
        assert child.stdout == "4\\n", child.stderr

    @pytest.fixture(scope="module")
    def made(seeded_db_factory):
        with seeded_db_factory() as database:
            with psycopg.connect(database.url) as connection:
                yield connection.execute("SELECT count(*) FROM shop").fetchone()

    def test_factory(made):
        assert made == (4,)

    @pytest.mark.seeded
    def test_what_a_conftest_sets_stays(seeded_url):
        assert os.environ["PGAPPNAME"] == "shop"

    def test_unmarked():
        assert {name: os.environ.get(name) for name in SHELL} == SHELL
"""


@pytest.mark.embedded
@pytest.mark.slow
def test_variables_of_the_shell_reach_neither_builds_nor_tests_nor_their_children(project, monkeypatch):
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    project.table('seeds = ["seeds/*.sql", {command = "python seeds.py", inputs = ["seeds.py"]}]')
    text = (project.path / "pyproject.toml").read_text().replace('seeds = ["seeds/*.sql"]\n', "")
    project.write("pyproject.toml", text)
    project.write("conftest.py", "import os\nos.environ['PGAPPNAME'] = 'shop'\n")
    project.write(
        "seeds.py",
        """
        import os, psycopg
        with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
            connection.execute("INSERT INTO shop (name) SELECT current_setting('TimeZone')")
        """,
    )
    result = project.test(f"SHELL = {SHELL!r}\n" + textwrap.dedent(TESTS))
    result.assert_outcomes(passed=4)


@pytest.mark.embedded
@pytest.mark.slow
def test_a_variable_that_the_project_sets_itself_ends_the_wait_at_once_and_is_named(project):
    project.write("conftest.py", "import os\nos.environ['PGCHANNELBINDING'] = 'require'\n")
    began = time.monotonic()
    result = project.test("def test_one(seeded_db): ...")
    assert time.monotonic() - began < 15
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert "libpq refuses to connect to the embedded server" in text
    assert "unset PGCHANNELBINDING" in text
