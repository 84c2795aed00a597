"""`build = "process"`: an application that can be made only once in a process."""

from __future__ import annotations

import textwrap
import uuid

import pytest
from command import QUICK

APPLICATION = """
    from sqlalchemy import Connection

    made = []

    def create_app():
        assert not made, "the metrics are registered already"
        made.append(1)
        print("made")

    def migrate(connection: Connection):
        create_app()
        connection.exec_driver_sql("CREATE TABLE shop (id int)")
"""
TABLE = "[tool.seeddb]\nmigrations = 'shop:migrate'\nbuild = 'process'\n"
SEEDS = """
    from pytest_seeddb import seeder

    @seeder
    def kinds(kind: object = None):
        assert kind is None or kind.value
"""
TESTS = """
    import shop

    def test_one(seeded_connection):
        shop.create_app()
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (0,)
"""


@pytest.mark.slow
def test_a_build_in_a_process_of_its_own_leaves_the_tests_one_alone(project):
    project.write("shop.py", APPLICATION)
    project.write("pyproject.toml", TABLE)
    project.write("conftest.py", "import sys\nsys.path.insert(0, '.')\n")
    result = project.test(TESTS)
    result.assert_outcomes(passed=1)
    assert "built in" in result.stdout.str()
    again = project.run()
    again.assert_outcomes(passed=1)
    assert "built in" not in again.stdout.str()

    project.write("shop.py", APPLICATION.replace("made.append(1)", 'raise OSError("no metrics")'))
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*BuildError: shop:migrate failed at shop.py:8", "*saw:  OSError: no metrics"])


@pytest.mark.slow
def test_the_process_has_the_run_s_variables_path_and_token_and_the_standard_library(project, monkeypatch):
    monkeypatch.setenv("PGAPPNAME", "the shell's")
    makes = f"""connection.exec_driver_sql("CREATE ROLE r{uuid.uuid4().hex}")
        import os
        assert (os.environ["PGTZ"], os.environ.get("PGAPPNAME")) == ("UTC", None)
        connection"""
    project.write("shop.py", APPLICATION.replace("connection.exec", f"{makes}.exec"))
    project.write("seeds.py", SEEDS)
    project.write("kinds.py", "from enum import Enum\n\nclass Kind(Enum):\n    LARGE = 1\n")
    project.write("pyproject.toml", f"{TABLE}seeds = ['seeds']\n")
    # As while another database is in use, the shell's variables are aside.
    project.write(
        "conftest.py",
        """
        import atexit, os, sys
        from pathlib import Path
        from pytest_seeddb.servers.libpq import without_shell_variables

        sys.path.insert(0, ".")
        os.environ["PGTZ"] = "UTC"
        os.environ.pop("PYTHONPATH")
        Path("secrets.py").write_text("raise OSError")
        aside = without_shell_variables()
        aside.__enter__()
        atexit.register(aside.__exit__, None, None, None)
        """,
    )
    marked = "import pytest\nfrom kinds import Kind\n\npytestmark = pytest.mark.seeded(kind=Kind.LARGE)\n"
    project.write("test_it.py", marked + textwrap.dedent(TESTS))
    options = (*QUICK, "-p", "no:asyncio", "-p", "no:django", "-W", "error", "--seed-db", "--seed-db-reseed")
    project.pytester.runpytest_subprocess(*options, timeout=100).assert_outcomes(passed=1)


@pytest.mark.slow
def test_a_build_that_fails_on_the_fixture_s_server_does_so_once_in_a_run(project):
    fails = 'open("builds", "a").write("x")\n        raise OSError("no metrics")'
    project.write("shop.py", APPLICATION.replace("made.append(1)", fails))
    project.write("seeds.py", SEEDS)
    keys = "server = 'postgresql://a@127.0.0.1:1/x'\nseeds = ['seeds']\nprofiles.other = {kind = 'x'}\n"
    project.write("pyproject.toml", TABLE + keys)
    project.write(
        "conftest.py",
        """
        import dataclasses, sys
        import pytest
        from pytest_seeddb.servers.opening import open_server

        sys.path.insert(0, ".")

        @pytest.fixture(scope="session")
        def seeddb_server(seeddb_settings):
            with open_server(seeddb_settings.replace(server="embedded")) as server:
                yield dataclasses.replace(server, kind="external", state=None)
        """,
    )
    other = "import pytest\n\n@pytest.mark.seeded('other')\ndef test_other(seeded_connection): ...\n"
    result = project.test(textwrap.dedent(TESTS) + other, "-n", "1")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*saw:  OSError: no metrics", "*saw:  another process of this run tried, and failed"])
    assert (project.path / "builds").read_text() == "x"
