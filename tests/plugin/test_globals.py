"""Roles, databases, settings of the server: a test or a build that changes them disturbs no other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid

import psycopg
import pytest
from command import QUICK, Command
from separate import separate_server

pytestmark = pytest.mark.slow

LEFT = {
    "a role": "CREATE ROLE left_role LOGIN PASSWORD 'quoted'",
    "a role that owns and may": "CREATE ROLE left_role; GRANT SELECT ON shop TO left_role; "
    "CREATE TABLE left_table (); ALTER TABLE left_table OWNER TO left_role; GRANT pg_monitor TO left_role",
    "a database": "CREATE DATABASE left_database",
    "a role's database": "CREATE ROLE left_role; CREATE DATABASE left_database OWNER left_role",
    "a setting of a role": "ALTER ROLE postgres SET default_transaction_read_only = on",
    "a setting of all roles": 'ALTER ROLE ALL SET search_path = left_schema, "Left"',
    "a setting of a database": "ALTER DATABASE postgres SET work_mem = '5MB'",
    "ALTER SYSTEM": "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()",
    "ALTER SYSTEM that keeps a server from starting": "ALTER SYSTEM SET shared_preload_libraries = 'missing'",
    "the superuser's login": "ALTER ROLE postgres NOLOGIN",
    "the superuser's limit": "ALTER ROLE postgres CONNECTION LIMIT 0 VALID UNTIL '1990-01-01'",
    "the superuser's database": "ALTER DATABASE postgres WITH ALLOW_CONNECTIONS false",
    "a replication origin": "SELECT pg_replication_origin_create('left_origin')",
    "comments": "COMMENT ON ROLE postgres IS 'left'; COMMENT ON DATABASE postgres IS 'left'; "
    "COMMENT ON DATABASE template1 IS NULL; COMMENT ON TABLESPACE pg_default IS 'left'",
    "a role with a comment": "CREATE ROLE left_role; COMMENT ON ROLE left_role IS 'left'",
    "a tablespace's options": "ALTER TABLESPACE pg_default SET (random_page_cost = 3, seq_page_cost = 2)",
    "a parameter's privilege": "CREATE ROLE left_role; GRANT SET ON PARAMETER work_mem TO left_role",
}
LOOK = """
    import psycopg, pytest

    def state(connection):
        return connection.execute('''
            SELECT (SELECT array_agg(replace(a::text, ',infinity)', ',)') ORDER BY oid) FROM pg_authid a),
                   (SELECT array_agg(m::text ORDER BY roleid, member) FROM pg_auth_members m),
                   (SELECT array_agg(setconfig ORDER BY 1) FROM pg_db_role_setting WHERE setdatabase < 16384),
                   (SELECT array_agg(datname ORDER BY oid) FROM pg_database WHERE datname NOT LIKE 'seeddb%'),
                   (SELECT array_agg((spcname, spcoptions)::text ORDER BY oid) FROM pg_tablespace),
                   (SELECT array_agg(roname) FROM pg_replication_origin),
                   (SELECT array_agg((objoid, description)::text ORDER BY classoid, objoid) FROM pg_shdescription
                    WHERE objoid < 16384),
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


@pytest.mark.usefixtures("cache")
def test_what_a_test_leaves_on_a_server_that_we_start_is_undone_before_the_next_test(project):
    statements = [text for text in LEFT.values() for _ in range(2)]
    project.test(LEAVES.format(statements=statements)).assert_outcomes(passed=len(statements) + 1)


def test_what_a_session_fixture_makes_stays_for_the_session(project, cache):
    project.write(
        "conftest.py",
        """
        import psycopg, pytest

        @pytest.fixture(scope="session", autouse=True)
        def app_role(seeddb_server):
            with psycopg.connect(seeddb_server.address.conninfo, autocommit=True) as connection:
                connection.execute("CREATE ROLE app_role")
                yield
                connection.execute("DROP ROLE app_role")
        """,
    )
    project.test(
        """
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it(seeded_connection, number):
            assert seeded_connection.execute("SELECT FROM pg_roles WHERE rolname = 'app_role'").rowcount == 1
            seeded_connection.execute("CREATE ROLE left_role")
            seeded_connection.execute("GRANT app_role TO left_role")
            seeded_connection.commit()
        """
    ).assert_outcomes(passed=3)


LOCKING = ("ALTER SYSTEM that keeps a server from starting", "the superuser's login", "the superuser's limit")
KILLED = {
    **{name: LEFT[name] for name in (*LOCKING, "the superuser's database")},
    "the rest": "; ".join(
        text.replace("left_role", f"left_role{number}").replace("left_database", f"left_database{number}")
        for number, (name, text) in enumerate(sorted(LEFT.items(), key=lambda item: item[0] == "ALTER SYSTEM"))
        if name not in LOCKING
    ),
}


@pytest.mark.parametrize("statement", KILLED.values(), ids=KILLED)
def test_what_a_killed_run_leaves_is_undone_by_the_servers_next_start_which_says_so(project, cache, statement):
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


# -- builds --------------------------------------------------------------------------------------

MAKES = """
    CREATE ROLE made_role LOGIN;
    GRANT SELECT, INSERT ON shop TO made_role;
    ALTER ROLE made_role SET work_mem = '7MB';
    GRANT pg_monitor TO made_role;
    ALTER ROLE ALL SET search_path = "$user", public, more;
"""


def test_a_migration_that_makes_roles_is_built_any_number_of_times(project, cache):
    test = """
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_it(seeded_connection, number):
            execute = seeded_connection.execute
            assert execute("SHOW search_path").fetchone() == ('"$user", public, more',)
            assert execute("SELECT pg_has_role('made_role', 'pg_monitor', 'MEMBER')").fetchone() == (True,)
            assert execute("SELECT FROM pg_db_role_setting WHERE setconfig = '{work_mem=7MB}'").rowcount == 1
            execute("SET ROLE made_role")
            execute(f"INSERT INTO shop (id, name) VALUES ({10 + number}, '{number}')")
            seeded_connection.commit()
    """
    project.write("db/002_roles.sql", MAKES)
    first = project.test(test)
    first.assert_outcomes(passed=2)
    assert sum("has data of its own" in line for line in shown(first)) == 1
    warm = project.test(test)
    warm.assert_outcomes(passed=2)
    assert any("reused" in line for line in shown(warm))
    project.test(test, "--seed-db-reseed").assert_outcomes(passed=2)
    project.write("db/002_roles.sql", f"{MAKES}\nALTER TABLE shop ADD COLUMN edited int;")
    project.test(test, "-n", "2").assert_outcomes(passed=2)
    project.write("seeds/more.sql", "INSERT INTO shop (name) VALUES ('more');")
    project.test(test).assert_outcomes(passed=2)
    wait_for_the_end_of_servers(cache)
    project.test(test).assert_outcomes(passed=2)


@pytest.mark.usefixtures("cache")
def test_every_command_knows_the_data_of_a_plan_that_makes_roles(project):
    seeddb = Command(project.path)
    project.write("db/002_roles.sql", MAKES)
    project.test(
        """
        def test_it(seeded_connection):
            seeded_connection.execute("INSERT INTO shop (name) VALUES ('kept')")
            seeded_connection.commit()
            assert False
        """
    ).assert_outcomes(failed=1)
    assert json.loads(seeddb("verify", "--json").stdout)["seeds"]["plan"] == "little-shop"
    assert json.loads(seeddb("explain", "--json").stdout)["template"].startswith("seeddb_t_")
    assert "no difference" in seeddb("explain", "--diff").stdout
    look = "SELECT string_agg(name, ',' ORDER BY id), current_user::regrole, to_regrole('made_role') FROM shop;"
    assert "shop 1,shop 2,shop 3,kept|postgres|made_role" in seeddb("shell", input=f"\\a\n{look}").stdout
    assert "shop 1,shop 2,shop 3|postgres|made_role" in seeddb("shell", "--fresh", input=f"\\a\n{look}").stdout
    seeddb("dump", "-o", "made.sql")
    assert "CREATE TABLE public.shop" in (project.path / "made.sql").read_text()
    status = json.loads(seeddb("status", "--json").stdout)
    assert [*status["server"]["own"].values()] == ["little-shop"]
    assert len(status["kept"]) == 1
    assert {row["plan"] for row in status["templates"]} == {"little-shop"}
    assert not status["remains"]
    assert "of little-shop alone" in seeddb("status").stdout
    gone = json.loads(seeddb("prune", "--kept", "--json").stdout)["gone"]
    assert [item["kind"] for item in gone] == ["kept"]
    seeddb("prune", "--all")
    time.sleep(1)
    seeddb("prune", "--all")
    assert not json.loads(seeddb("status", "--json").stdout)["server"]["own"]


ROLES_ENV = """
    from alembic import context
    from sqlalchemy import create_engine

    with create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nowhere").connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
ROLES_REVISION = """
    revision, down_revision = "0001", None
    from alembic import op

    def upgrade():
        op.execute("CREATE ROLE made_role; CREATE TABLE made (id int)")
"""


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_the_data_of_a_plan_whose_code_makes_roles_are_found_again(project):
    project.write("alembic.ini", "[alembic]\nscript_location = roles\n")
    project.write("roles/env.py", ROLES_ENV)
    project.write("roles/versions/0001.py", ROLES_REVISION)
    project.write("made.sql", "INSERT INTO made VALUES (1);")
    project.write("pyproject.toml", '[tool.seeddb]\nname = "made"\nmigrations = "alembic.ini"\nseeds = ["made.sql"]\n')
    seeddb = Command(project.path)
    why = "  once more, on data of its own: its build makes the role made_role, which all databases share\n"
    assert why in seeddb("build").stderr
    assert "is there already" in seeddb("build").stdout
    project.write("made.sql", "INSERT INTO made VALUES (2);")
    said = seeddb("build").stderr
    assert "seed made.sql" in said
    assert "migration" not in said


def test_builds_that_fail_leave_no_data_behind(project, cache):
    test = "def test_it(seeded_db): pass"
    project.write("db/002_roles.sql", f"{MAKES} SELECT wrong;")
    failed = project.test(f"{test}\n{test.replace('it', 'again')}", "-n", "2")
    failed.assert_outcomes(errors=2)
    failed.stdout.fnmatch_lines(["*another process of this run tried, and failed*"])
    project.test(test).assert_outcomes(errors=1)
    wait_for_the_end_of_servers(cache)
    project.write("db/002_roles.sql", f"{MAKES} SELECT 1;")
    project.test(test).assert_outcomes(passed=1)
    assert len(list(cache.glob("**/data/PG_VERSION"))) == 2, "everybody's and the plan's own"


def test_two_projects_whose_migrations_make_the_same_role_do_not_meet(project, cache):
    project.write("db/002_roles.sql", "CREATE ROLE made_role; GRANT SELECT ON shop TO made_role;")
    other = project.path / "other"
    for name in ("pyproject.toml", "db/001_shop.sql", "db/002_roles.sql", "seeds/shops.sql"):
        text = (project.path / name).read_text().replace("little-shop", "another").replace("GRANT SELECT", "GRANT ALL")
        project.write(f"other/{name}", text)
    test = """
        import pytest

        @pytest.mark.parametrize("number", range(20))
        def test_it(seeded_connection, number):
            seeded_connection.execute("SET ROLE made_role; SELECT * FROM shop")
    """
    project.write("other/test_another.py", test)
    line = [sys.executable, "-m", "pytest", *QUICK, "--seed-db", "-q", "--rootdir", "."]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(line, cwd=other, **pipes) as running:
        project.test(test, "test_it.py").assert_outcomes(passed=20)
        output = running.communicate()[0]
    assert "20 passed" in output, output


@pytest.mark.usefixtures("cache")
def test_a_plan_that_no_longer_makes_roles_goes_back_to_the_server_that_all_share(project):
    project.write("db/002_roles.sql", "CREATE ROLE made_role;")
    test = "def test_it(seeded_connection): seeded_connection.execute('SELECT * FROM shop')"
    assert any("data of its own" in line for line in shown(project.test(test)))
    project.write("db/002_roles.sql", "SELECT 1;")
    for _ in range(2):
        project.test(test).assert_outcomes(passed=1)
    result = project.test(test)
    assert any("reused" in line for line in shown(result))


# -- servers that run already --------------------------------------------------------------------


@pytest.fixture
def running():
    with separate_server() as start:
        yield start()


def test_what_a_test_leaves_on_another_server_is_named_with_what_removes_it(project, running):
    result = project.test(
        """
        def test_it(seeded_connection):
            seeded_connection.autocommit = True
            seeded_connection.execute("CREATE ROLE left_role")
            seeded_connection.execute("GRANT SELECT ON shop TO left_role")
            seeded_connection.execute("CREATE DATABASE left_database")
            seeded_connection.execute("ALTER ROLE ALL SET work_mem = '5MB'")
            seeded_connection.execute("CREATE ROLE gone_role")
            seeded_connection.execute("DROP ROLE gone_role")
        """,
        f"--seed-db-server={running.url}",
    )
    result.assert_outcomes(passed=1)
    left = [line.partition("made it, run: ")[2] for line in shown(result) if "made it, run: " in line]
    assert len(left) == 3, result.outlines
    with psycopg.connect(running.conninfo, autocommit=True) as connection:
        for statements in left:
            for statement in filter(None, statements.split("; ")):
                connection.execute(statement)
        assert not connection.execute("SELECT FROM pg_roles WHERE rolname LIKE 'left%'").fetchall()
        assert not connection.execute("SELECT FROM pg_database WHERE datname LIKE 'left%'").fetchall()
        assert not connection.execute("SELECT FROM pg_db_role_setting").fetchall()


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
