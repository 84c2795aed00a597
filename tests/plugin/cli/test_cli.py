"""The `seeddb` command as people and scripts meet it: in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest
from command import Command
from taking_part import IS_EXACT

from pytest_seeddb.cli.parser import make_parser


@pytest.mark.slow
def test_build_builds_once_and_then_says_that_it_is_there(seeddb):
    first = seeddb("build")
    assert first.stdout.startswith("template little-shop/default built in ")
    assert "first build of this plan and profile" in first.stdout or "db/000_own.sql" in first.stdout
    assert "seed seeds/shops.sql" in first.stderr, "progress goes to standard error"
    second = seeddb("build")
    assert second.stdout.startswith("template little-shop/default is there already: seeddb_t_little_shop_")
    assert second.stderr == ""


@pytest.mark.long  # three builds
def test_build_reseed_builds_anew(seeddb):
    first, second = (json.loads(seeddb("build", "--json", "--reseed").stdout) for _ in range(2))
    assert first["built"]
    assert second["built"]
    assert first["template"] != second["template"]
    assert first["fingerprint"] == second["fingerprint"]


@pytest.mark.slow
def test_explain_shows_each_part_and_whether_there_is_a_template_and_builds_nothing(seeddb):
    before = seeddb("explain").stdout
    assert "template    none; next run builds: " in before
    for text in ("plan        little-shop", "profile     default", "PostgreSQL 1", "db/001_shop.sql", "`seeds` in"):
        assert text in before
    built = json.loads(seeddb("build", "--json").stdout)
    after = json.loads(seeddb("explain", "--json").stdout)
    assert after["template"] == built["template"]
    assert after["fingerprint"] == built["fingerprint"]
    assert after["reason"] == ""
    assert after["steps"][0]["name"] == "server"
    assert after["settings"]["migrations"].endswith("pyproject.toml")


TALKATIVE = """
    import atexit, os, subprocess, sys
    from sqlalchemy import text
    from pytest_seeddb import seeder

    @seeder
    def shops(session, fails: bool = False):
        print("said by the seeder")
        sys.__stdout__.write("said past it\\n")
        os.write(1, b"said below it\\n")
        subprocess.run(["echo", "said by its child"], check=True)
        atexit.register(print, "said at the end")
        session.execute(text("SELECT nonsense" if fails else "INSERT INTO shop (name) VALUES ('first')"))
"""


@pytest.mark.slow
def test_what_seeders_and_their_children_print_is_not_in_the_json(seeddb, project):
    project.seeders()
    project.write("little/seeds.py", TALKATIVE)
    for options, code in (((), 0), (("--set", "fails=yes"), 1), (("-q", "--set", "fails=yes"), 1)):
        done = seeddb("build", "--json", *options, code=code)
        assert ("error" in json.loads(done.stdout)) == bool(code)
        for text in ("said by the seeder", "said past it", "said below it", "said by its child", "said at the end"):
            assert text in done.stderr
        assert ("building" in done.stderr) == ("-q" not in options)
    assert "Traceback" in seeddb.start("build", "-v", "--set", "fails=yes").communicate()[1]


TWO = """
    [tool.seeddb]
    name = "two seeders"
    migrations = "db"
    seeds = ["little.one", "little.two"]
"""
SECRETIVE = """
    from typing import Annotated
    from sqlalchemy import text
    from pytest_seeddb import Param, seeder

    @seeder
    def admin(session, word: Annotated[str, Param(secret=True)] = "x", api_token: str = "y", stores: int = 1):
        session.execute(text("INSERT INTO shop (name) VALUES ('first')"))
"""


@pytest.mark.slow
def test_the_format_of_migrations_and_the_files_that_do_not_run_are_told(project):
    for name in ("V1__a.sql", "sub/V1_1__b.sql", "U1__a.sql", "notes.sql"):
        project.write(f"flyway/{name}", "SELECT 1;")
    lines = [
        "flyway: Flyway, recognised, 2 files",
        "not run: flyway/U1__a.sql: a down migration",
        "not run: flyway/notes.sql: not named as Flyway names migrations",
    ]
    seeddb = Command(project.path, SEEDDB_NAME="flown", SEEDDB_MIGRATIONS="flyway", SEEDDB_SEEDS="flyway/notes.sql")
    result = json.loads(seeddb("explain", "--json").stdout)
    assert result["notes"] == lines
    printed = seeddb("build", "--reseed").stderr
    assert "".join(f"  {line}\n" for line in lines) in printed


@pytest.mark.slow
def test_explain_shows_of_a_secret_only_that_it_is_set_or_changed(seeddb, project):
    project.seeders()
    project.write("little/seeds.py", SECRETIVE)

    def explained(*options, **variables):
        command = Command(project.path, **{f"SEEDDB_SEED_{name.upper()}": value for name, value in variables.items()})
        return command("explain", *options).stdout

    secrets = [{"word": "123456", "api_token": "234567"}, {"word": "654321", "api_token": "765432"}, {}]
    for shown in (explained(**given) for given in secrets):
        lines = [line.split() for line in shown.splitlines() if " parameter " in line]
        assert lines == [["set", "parameter", "word"], ["set", "parameter", "api_token"], ["1", "parameter", "stores"]]
    parts = json.loads(explained("--json", **secrets[0]))["steps"][-1]["parts"]
    assert {"name": "parameter word", "digest": "set"} in parts
    assert all(set(part) == {"name", "digest"} for part in parts)
    assert len({explained("--digest", **given) for given in secrets}) == 1, "the same on each server, for a cache's key"
    Command(project.path, SEEDDB_SEED_WORD="123456")("build")
    assert "changed     parameter word  (seed little.seeds:admin)" in explained("--diff", word="654321")
    difference = json.loads(explained("--diff", "--json", word="654321"))["differences"]
    assert [(each["name"], each["before"], each["after"]) for each in difference] == [("parameter word", "", "")]
    assert "no difference" in explained("--diff", word="123456")


@pytest.mark.slow
def test_explain_diff_lists_what_changed_came_and_went_since_the_last_build(seeddb, project):
    project.seeders("[tool.seeddb.profiles.demo]\nshops = 7")
    assert "no difference" in built_and_compared(seeddb, "--profile", "demo")
    project.seeders("[tool.seeddb.profiles.demo]\nshops = 8")
    project.write("db/001_shop.sql", (project.path / "db/001_shop.sql").read_text() + "-- more")
    (project.path / "db/000_own.sql").rename(project.path / "db/002_own.sql")
    found = json.loads(seeddb("explain", "--diff", "--json", "--profile", "demo").stdout)
    assert {(each["kind"], each["name"]): (each["before"], each["after"]) for each in found["differences"]} == {
        ("changed", "db/001_shop.sql"): ("", ""),
        ("changed", "parameter shops"): ("7", "8"),
        ("removed", "db/000_own.sql"): ("", ""),
        ("added", "migration db/002_own.sql"): ("", ""),
        ("removed", "migration db/000_own.sql"): ("", ""),
    }
    shown = seeddb("explain", "--diff", "--profile", "demo").stdout.splitlines()
    assert shown[2].startswith("last build  20")
    assert "changed     parameter shops: 7 -> 8  (seed little.seeds:shops)" in shown


@pytest.mark.slow
def test_explain_shows_changed_lines_and_each_step_that_depends_on_a_file(seeddb, project):
    seeder = """
        from sqlalchemy import text
        from pytest_seeddb import seeder
        from little.names import name

        @seeder
        def {0}(session):
            session.execute(text("INSERT INTO shop (name) VALUES (:name)"), {{"name": name() + "{0}"}})
    """
    project.write("little/__init__.py", "")
    project.write("little/names.py", "def name():\n    return 'a'\n")
    for module in ("one", "two"):
        project.write(f"little/{module}.py", seeder.format(module))
    project.write("pyproject.toml", TWO)
    for arguments in (("init", "-q"), ("add", "-A")):
        subprocess.run(["git", "-C", str(project.path), *arguments], check=True)
    seeddb("build")
    assert list(json.loads(seeddb("explain", "--why", "little/names.py", "--json").stdout)) == [
        "seed little.one:one",
        "seed little.two:two",
    ]
    why = seeddb("explain", "--why", "little/names.py").stdout
    assert why.endswith("seed little.two:two\n    little/names.py, through little/two.py\n")
    missing = json.loads(seeddb("explain", "--why", "little/nams.py", "--json", code=2).stdout)["error"]["saw"]
    assert missing.endswith("no step depends on it. Did you mean 'little/names.py'?")
    project.write("little/names.py", "def name():\n    return 'b'\n")
    unit = ": name()" if IS_EXACT else ""
    expected = f"changed     little/names.py{unit}  (seed little.one:one)\n"
    expected += "            -     return 'a'\n            +     return 'b'\n"
    assert expected in seeddb("explain", "--diff").stdout
    (difference,) = json.loads(seeddb("explain", "--diff", "--json").stdout)["differences"]
    assert difference["lines"] == ["-     return 'a'", "+     return 'b'"]


def built_and_compared(seeddb, *options):
    seeddb("build", *options)
    return seeddb("explain", "--diff", *options).stdout


def test_explain_diff_says_that_there_is_no_build_yet(seeddb, project):
    project.write("pyproject.toml", '[tool.seeddb]\nname = "never built"\nmigrations = "db"\n')
    assert "last build  none" in seeddb("explain", "--diff").stdout


@pytest.mark.slow
def test_a_run_uses_what_the_command_built(seeddb, project):
    built = json.loads(seeddb("build", "--json").stdout)
    result = project.test("def test_it(seeded_db): pass")
    result.stdout.fnmatch_lines(["seeddb: template little-shop/default reused"])
    assert json.loads(seeddb("build", "--json").stdout)["template"] == built["template"]


@pytest.mark.long  # three builds
def test_another_profile_is_another_template(seeddb, project):
    project.seeders("[tool.seeddb.profiles.demo]\nshops = 7")
    found = [json.loads(seeddb("build", "--json", *options).stdout) for options in ((), ("--profile", "demo"))]
    assert [each["profile"] for each in found] == ["default", "demo"]
    assert found[0]["template"] != found[1]["template"]


@pytest.mark.slow
def test_it_works_from_anywhere_with_the_directory_given(seeddb, project, tmp_path_factory):
    built = json.loads(seeddb("build", "--json").stdout)
    line = [sys.executable, "-m", "pytest_seeddb.cli", "explain", "--json", "-C", str(project.path)]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(line, capture_output=True, text=True, cwd=elsewhere, check=True)
    assert json.loads(done.stdout)["template"] == built["template"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("buid",), "there is no 'buid'. Did you mean 'build'?"),
        (("build", "--reseeed"), "unrecognized arguments: --reseeed. Did you mean '--reseed'?"),
        (("build", "--profile", "dmo"), "There is no profile 'dmo'"),
        (("explain", "--server", "mysql://app:s3cret@db/x"), "the option --server"),
        (("explain", "-C", "no/such"), "there is no directory 'no/such'"),
    ],
)
def test_wrong_usage_and_wrong_settings_exit_with_2(seeddb, arguments, text):
    done = seeddb(*arguments, code=2)
    assert text in done.stderr
    assert "s3cret" not in done.stderr
    assert done.stdout == ""


def test_a_wrong_table_exits_with_2_and_the_whole_error(seeddb, project):
    project.table('migration = "db"')
    done = seeddb("build", code=2)
    assert done.stderr.startswith("seeddb: `migration` is not a setting of pytest-seeddb\n  saw:  ")
    assert "Did you mean 'migrations'?" in done.stderr


def test_help_works_however_broken_the_table_is_and_names_the_exit_codes(seeddb, project):
    project.write("seeddb.toml", "= broken [")
    shown = seeddb("--help").stdout
    codes = "0 done, 1 failed, 2 wrong usage or settings, 3 something is pending (apply --check), 130 interrupted."
    assert f"Exit codes: {codes}" in " ".join(shown.split())
    for command in ("build", "explain"):
        assert f"    {command} " in shown
        options = seeddb(command, "--help").stdout
        assert all(option in options for option in ("--profile NAME", "--server SERVER", "--json", "-C DIR"))


def test_every_command_and_each_of_its_options_says_what_it_does():
    commands = next(each.choices for each in make_parser()._actions if each.choices)
    assert {"init", "build", "status", "explain", "prune", "shell"} <= set(commands)
    for name, parser in commands.items():
        assert parser.description.endswith("."), name
        assert parser.epilog.startswith("example:\n"), name
        assert f"seeddb {name}" in parser.epilog
        assert [each.dest for each in parser._actions if not each.help] == [], name


def test_a_failing_build_exits_with_1_and_leaves_nothing(seeddb, project, server_address):
    project.write("db/002_more.sql", "INSERT INTO shpo VALUES (1);")
    done = seeddb("build", "--json", code=1)
    assert "seeddb: db/002_more.sql, line 1: the statement failed" in done.stderr
    assert json.loads(done.stdout)["error"]["title"] == "db/002_more.sql, line 1: the statement failed"
    assert half_built(server_address) == []


def test_no_server_exits_with_1(seeddb):
    done = seeddb("build", "--server", "postgresql://app:s3cret@no-such-host.invalid/shop", code=1)
    assert "correct the host in the URL" in done.stderr
    assert "s3cret" not in done.stderr


def test_an_interrupted_build_exits_with_130_and_leaves_nothing(seeddb, project, server_address):
    project.write("db/002_slow.sql", f"SELECT pg_sleep(60) /* {os.getpid()} */;")
    running = seeddb.start("build")
    with psycopg.connect(server_address.conninfo, autocommit=True) as watching:
        deadline = time.monotonic() + 30
        while not asleep(watching):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=20)
        assert running.returncode == 130, errors
        assert not asleep(watching)
    assert errors.endswith("seeddb: interrupted\n")
    assert "Traceback" not in errors
    assert output == ""
    assert half_built(server_address) == []


def asleep(connection):
    statement = "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()"
    return connection.execute(statement, [f"%pg_sleep(60) /* {os.getpid()} */%"]).fetchone() is not None


def half_built(address):
    """Databases of builders; only those of this test's can be there, since it waits for each."""
    with psycopg.connect(address.conninfo) as connection:
        return connection.execute(r"SELECT datname FROM pg_database WHERE datname LIKE 'seeddb\_b\_%'").fetchall()
