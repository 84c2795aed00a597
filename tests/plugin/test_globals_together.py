"""Runs at once, of which one makes roles in a test and one in a migration: none disturbs another, and nothing stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pytest
from command import QUICK

from pytest_seeddb.servers.globals import Globals
from pytest_seeddb.servers.opening import open_server
from pytest_seeddb.settings.settings import Settings

pytestmark = pytest.mark.long

ROUNDS = max(1, round(200 * float(os.environ.get("TESTS_SCALE", "1"))))
IN_A_TEST = """
    import pytest

    @pytest.mark.parametrize("number", range(2))
    def test_roles(seeded_connection, number, testrun_uid):
        seeded_connection.autocommit = True
        name = f"left_{testrun_uid}_{number}"
        for statement in (
            f"CREATE ROLE {name} LOGIN",
            f"GRANT ALL ON shop TO {name}",
            f"ALTER ROLE {name} SET work_mem = '7MB'",
            f"GRANT {name} TO CURRENT_USER",
            f"CREATE DATABASE {name} OWNER {name}",
            f"ALTER DATABASE {name} SET work_mem = '8MB'",
        ):
            seeded_connection.execute(statement)

    @pytest.mark.parametrize("number", range(4))
    def test_shops(seeded_connection, number):
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
        seeded_connection.execute("INSERT INTO shop (name) VALUES ('more')")
        seeded_connection.commit()
"""
IN_A_MIGRATION = """
    import pytest

    @pytest.mark.parametrize("number", range(3))
    def test_role(seeded_connection, number):
        seeded_connection.execute("SET ROLE made_role")
        assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() == (3,)
        assert seeded_connection.execute("SELECT FROM pg_roles WHERE rolname LIKE 'left%'").rowcount == 0
"""


def test_two_workers_and_another_project_make_roles_and_leave_nothing(project, cache_home, monkeypatch):
    cache = cache_home / uuid.uuid4().hex
    cache.mkdir()
    cache.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    project.write("test_it.py", IN_A_TEST)
    for name in ("db/001_shop.sql", "seeds/shops.sql"):
        project.write(f"other/{name}", (project.path / name).read_text())
    table = (project.path / "pyproject.toml").read_text()
    project.write("other/pyproject.toml", table.replace("little-shop", "another"))
    project.write("other/test_it.py", IN_A_MIGRATION)
    line = [sys.executable, "-W", "error", "-m", "pytest", *QUICK, "-p", "no:asyncio", "--seed-db", "-q", "--rootdir=."]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with open_server(Settings(root=Path("/"))) as server:  # so that it runs on, and shows what is left
        first = None
        for number in range(ROUNDS):
            made = f"CREATE ROLE made_role; GRANT SELECT ON shop TO made_role; SELECT {number};"
            project.write("other/db/002_role.sql", made)
            another = subprocess.Popen([*line, "test_it.py"], cwd=project.path / "other", **pipes)
            ours = subprocess.run([*line, "-n", "2", "test_it.py"], cwd=project.path, check=False, timeout=100, **pipes)
            outputs = ours.stdout, another.communicate(timeout=100)[0]
            assert "6 passed" in outputs[0], "\n".join(outputs)
            assert "3 passed" in outputs[1], "\n".join(outputs)
            with psycopg.connect(server.address.conninfo, autocommit=True) as connection:
                now = Globals.of(connection.execute, superuser=True)
            first = first or now
            assert not first.changes(now), f"round {number}: {', '.join(map(str, first.changes(now)))}"
            assert not [key for key in now.items if "left" in json.dumps(key) or "made" in json.dumps(key)]
    print(f"{ROUNDS} rounds of three processes")
