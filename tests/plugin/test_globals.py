"""Roles and settings of the server: what a test or a build changes keeps no other run from working."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid

import pytest
from command import QUICK
from separate import separate_server

pytestmark = pytest.mark.slow

LEFT = {
    "ALTER SYSTEM": "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()",
    "ALTER SYSTEM that keeps a server from starting": "ALTER SYSTEM SET shared_preload_libraries = 'missing'",
    "the superuser's login": "ALTER ROLE postgres NOLOGIN",
    "the superuser's database": "ALTER DATABASE postgres WITH ALLOW_CONNECTIONS false",
}
LOOK = """
    import psycopg, pytest

    def state(connection):
        return connection.execute('''
            SELECT (SELECT array_agg(replace(a::text, ',infinity)', ',)') ORDER BY oid) FROM pg_authid a),
                   (SELECT array_agg(m::text ORDER BY roleid, member) FROM pg_auth_members m),
                   (SELECT array_agg(setconfig ORDER BY 1) FROM pg_db_role_setting WHERE setdatabase < 16384),
                   (SELECT array_agg(datname ORDER BY oid) FROM pg_database WHERE datname NOT LIKE 'seeddb%'),
                   (SELECT array_agg(spcname ORDER BY oid) FROM pg_tablespace),
                   (SELECT count(*) FROM pg_parameter_acl WHERE parname <> 'none' AND paracl::text LIKE '%left%'),
                   pg_read_file('postgresql.auto.conf'), current_setting('default_transaction_read_only')
        ''').fetchone()
"""
LEAVES = (
    LOOK
    + """
    seen = []

    @pytest.mark.parametrize("statements", {statements!r})
    def test_it(seeded_connection, statements):
        seen.append(state(seeded_connection))
        assert seen[-1] == seen[0]
        seeded_connection.rollback()
        seeded_connection.autocommit = True
        for statement in statements.split("; "):
            seeded_connection.execute(statement)

    def test_last(seeded_connection):
        assert state(seeded_connection) == seen[0]
        assert not [role for role in seen[0][0] if "left" in role]
"""
)


@pytest.fixture
def cache(cache_home, monkeypatch):
    """A cache directory of the test's own, and so servers of its own."""
    place = cache_home / uuid.uuid4().hex
    place.mkdir()
    place.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    return place


def wait_for_the_end_of_servers(cache):
    deadline = time.monotonic() + 20
    while list(cache.glob("**/postmaster.pid")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def shown(result):
    return [line for line in result.outlines if line.startswith("seeddb: ")]


@pytest.mark.parametrize("statement", LEFT.values(), ids=LEFT)
def test_what_a_run_leaves_does_not_keep_the_servers_next_start_from_working_which_says_so(project, cache, statement):
    project.write(
        "test_it.py",
        f"""
        import os, signal

        def test_it(seeded_connection):
            seeded_connection.autocommit = True
            for statement in {statement!r}.split("; "):
                seeded_connection.execute(statement)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    line = [sys.executable, "-m", "pytest", *QUICK, "--seed-db"]
    killed = subprocess.run(line, cwd=project.path, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    wait_for_the_end_of_servers(cache)
    result = project.test(LEAVES.format(statements=["SELECT 1"]))
    result.assert_outcomes(passed=2)
    assert any("undone on the embedded server" in line or "begins on fresh data" in line for line in shown(result))


def test_a_superuser_that_is_locked_out_while_others_wait_is_no_longer_after_them(project, cache):
    """A role that cannot log in cannot be mended by itself: whoever comes next gets fresh data."""
    project.test(
        """
        import os, psycopg, signal

        def test_it(seeded_connection, seeddb_server):
            seeded_connection.autocommit = True
            seeded_connection.execute("ALTER DATABASE postgres WITH ALLOW_CONNECTIONS false")
            seeded_connection.execute("ALTER ROLE postgres NOLOGIN")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    began = time.monotonic()
    project.test(LEAVES.format(statements=["SELECT 1"])).assert_outcomes(passed=2)
    assert time.monotonic() - began < 15


# -- servers that run already --------------------------------------------------------------------


@pytest.fixture
def running():
    with separate_server() as start:
        yield start()


def test_a_role_of_an_earlier_build_on_another_server_is_named_as_the_cause(project, running):
    project.write("db/002_roles.sql", "CREATE ROLE made_role;")
    test = "def test_it(seeded_connection): pass"
    project.test(test, f"--seed-db-server={running.url}").assert_outcomes(passed=1)
    project.write("db/002_roles.sql", "CREATE ROLE made_role; SELECT 1;")
    result = project.test(test, f"--seed-db-server={running.url}")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*roles belong to the whole server*an earlier build created this one*duplicate_object*"]
    )
    written = "DO $$ BEGIN CREATE ROLE made_role; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
    project.write("db/002_roles.sql", written)
    project.test(test, f"--seed-db-server={running.url}").assert_outcomes(passed=1)
