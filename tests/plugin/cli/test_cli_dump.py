"""`seeddb dump`, `seeddb verify --dump` and templates in files, as people and scripts meet them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import psycopg
import pytest
from command import QUICK, Command
from psycopg import sql

from pytest_seeddb.cli import main

REVISION = '''
    """A note on each order."""

    import sqlalchemy as sa
    from alembic import op

    revision = "0010"
    down_revision = "0009"


    def upgrade() -> None:
        op.add_column("orders", sa.Column("note", sa.Text()))
'''


def steps_of(done):
    """The steps that ran, as the progress tells them."""
    return [line.split(" (")[0].split(" ", 3)[-1] for line in done.stderr.splitlines() if line.startswith("  ")]


@pytest.mark.slow
def test_the_life_of_a_committed_dump(seeddb, project):
    done = seeddb("dump", "-o", "seed-db.sql")
    assert done.stdout.startswith("seed-db.sql: little-shop/default, plain, 0.0")
    first = (project.path / "seed-db.sql").read_bytes()
    project.table('dump = "seed-db.sql"')
    done = seeddb("build")
    assert steps_of(done) == ["dump seed-db.sql"], "no migrations to apply, no seeds to run"
    done = seeddb("verify", "--dump")
    told = "seed-db.sql holds all 2 migrations, and its schema matches one migrated from scratch\n"
    assert done.stdout == told
    project.write("db/002_town.sql", "ALTER TABLE shop ADD town text;")
    done = seeddb("verify", "--dump", code=1)
    assert done.stdout.splitlines() == [
        "seed-db.sql is stale: it lacks",
        "  migration db/002_town.sql",
        "write it again: seeddb dump, or seeddb dump --from-scratch",
    ]
    done = seeddb("dump", "--json")
    assert steps_of(done) == ["migration db/002_town.sql"]
    found = json.loads(done.stdout)
    assert (found["path"], found["format"]) == (f"{project.path}/seed-db.sql", "plain")
    assert b"town" in (project.path / "seed-db.sql").read_bytes()
    assert b"town" not in first


@pytest.mark.long  # builds, restores
def test_a_template_goes_through_a_file(seeddb, project, server_address):
    key = seeddb("explain", "--digest").stdout
    built = json.loads(seeddb("build", "--export", "t.dump", "--json").stdout)
    assert built["exported"] == f"{project.path}/t.dump"
    with psycopg.connect(server_address.conninfo, autocommit=True) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'seeddb_t_little_shop_%'")
        for (name,) in names.fetchall():
            where = sql.Identifier(name)
            connection.execute(sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(where))
            connection.execute(sql.SQL("DROP DATABASE {}").format(where))
    done = seeddb("build", "--import", "t.dump")
    assert f"restored from {project.path}/t.dump" in done.stdout
    assert steps_of(done) == ["import t.dump"]
    assert seeddb("explain", "--digest").stdout == key


@pytest.mark.slow
def test_a_file_that_cannot_be_imported_is_told_and_no_failure(seeddb, project):
    done = seeddb("build", "--import", "no-such.dump")
    assert f"seeddb: nothing was imported: there is no {project.path}/no-such.dump" in done.stderr
    assert "template little-shop/default built in" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("dump",), "The dump needs an output file"),
        (("dump", "-o", "seed-db.txt"), "does not say which format"),
        (("dump", "-o", "x.sql", "--format", "zip"), "there is no 'zip'"),
        (("dump", "-o", "x.sql", "--url", "mysql://app:s3cret@db/x"), "is not a PostgreSQL URL"),
        (("verify", "--dump"), "There is no dump to verify"),
        (("build", "--reseed", "--import", "x"), "not allowed with argument"),
    ],
)
def test_wrong_usage_exits_with_2(project, monkeypatch, capsys, arguments, text):
    monkeypatch.chdir(project.path)
    try:
        code = main(arguments)
    except SystemExit as ended:  # as argparse has it
        code = ended.code
    assert code == 2
    errors = capsys.readouterr().err
    assert text in errors
    assert "s3cret" not in errors


def test_a_database_that_cannot_be_reached_exits_with_1_and_shows_no_password(seeddb):
    done = seeddb("dump", "-o", "x.sql", "--url", "postgresql://app:s3cret@no-such-host.invalid/shop", code=1)
    assert "The database cannot be dumped" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout


@pytest.mark.long  # builds twice
def test_demo_data_in_a_dump_are_refused_in_production(seeddb, project, empty_database):
    project.seeders("[tool.seeddb.profiles.demo]\nshops = 2")
    seeddb("dump", "-o", "seed-db.sql", "--profile", "demo")
    project.seeders('dump = "seed-db.sql"\nprofile = "demo"\n[tool.seeddb.profiles.demo]\nshops = 2')
    live = Command(project.path, ENVIRONMENT="production")
    done = live("apply", "--url", empty_database.url, code=2)
    assert "dump seed-db.sql" in done.stderr
    with psycopg.connect(empty_database.conninfo) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


# -- the example ----------------------------------------------------------------------------------


@pytest.fixture
def quickstart(repository, tmp_path):
    place = tmp_path / "quickstart"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*", "seed-db*")
    shutil.copytree(repository / "examples" / "quickstart", place, ignore=ignored)
    (place / ".git").mkdir()
    return place


@pytest.mark.long  # builds the example several times, and runs its tests
def test_alembic_runs_only_what_the_dump_lacks(quickstart, server_address):
    seeddb = Command(quickstart)
    seeddb("dump", "-o", "seed-db.sql")
    table = quickstart / "pyproject.toml"
    table.write_text(table.read_text().replace("[tool.seeddb]\n", '[tool.seeddb]\ndump = "seed-db.sql"\n'))
    assert steps_of(seeddb("build")) == ["dump seed-db.sql"], "no migrations to apply"
    assert "holds all 9 migrations" in seeddb("verify", "--dump").stdout
    line = [sys.executable, "-m", "pytest", "--seed-db", *QUICK]
    done = subprocess.run(line, cwd=quickstart, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    revision = quickstart / "migrations" / "versions" / "0010_note.py"
    revision.write_text(textwrap.dedent(REVISION))
    assert [each.split()[:2] for each in steps_of(seeddb("build"))] == [["migration", "0010"]]
    done = seeddb("verify", "--dump", code=1)
    assert done.stdout.splitlines()[1].startswith("  migration 0010 A note on each order.")
    revision.unlink()
    seeddb("dump", "-o", "other.sql", "--from-scratch")
    assert (quickstart / "other.sql").read_bytes() == (quickstart / "seed-db.sql").read_bytes()


@pytest.mark.long  # as above
def test_a_dump_that_is_ahead_of_the_migrations_is_an_error_that_names_the_revision(quickstart):
    seeddb = Command(quickstart)
    revision = quickstart / "migrations" / "versions" / "0010_note.py"
    revision.write_text(textwrap.dedent(REVISION))
    seeddb("dump", "-o", "seed-db.sql")
    table = quickstart / "pyproject.toml"
    table.write_text(table.read_text().replace("[tool.seeddb]\n", '[tool.seeddb]\ndump = "seed-db.sql"\n'))
    revision.unlink()
    assert "0010" in seeddb("verify", "--dump", code=1).stderr


# -- killed ---------------------------------------------------------------------------------------


@pytest.mark.long  # waits for a process, kills it, and looks
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_restore_that_is_ended_leaves_no_program_and_the_next_build_works(seeddb, project, server_address, how):
    mark = f"{os.getpid()} {how}"
    project.write("legacy.sql", f"CREATE TABLE legacy (v int);\nSELECT pg_sleep(60) /* {mark} */;\n")
    project.table('dump = "legacy.sql"')
    running = seeddb.start("build")
    with psycopg.connect(server_address.conninfo, autocommit=True) as watching:
        wait_until(lambda: sleeping(watching, mark), running)
        running.send_signal(how)
        running.communicate(timeout=20)
        assert running.returncode in {130, -how}
        project.write("legacy.sql", "CREATE TABLE legacy (v int);\n")
        seeddb("build")
        wait_until(lambda: not sleeping(watching, mark))


@pytest.mark.long  # as above
def test_a_killed_dump_leaves_the_old_one(seeddb, project, server_address):
    seeddb("dump", "-o", "seed-db.sql")
    path = project.path / "seed-db.sql"
    before = path.read_bytes()
    project.write("db/003_big.sql", "CREATE TABLE big AS SELECT repeat('x', 900) AS v FROM generate_series(1, 300000)")
    seeddb("build")
    for pause in (0.0, 0.1, 0.3):
        running = seeddb.start("dump", "-o", "seed-db.sql")
        wait_until(lambda: list(project.path.glob(".seed-db.sql.*.part")), running)
        time.sleep(pause)
        running.kill()
        running.communicate()
        assert path.read_bytes() == before
    seeddb("dump", "-o", "seed-db.sql")
    assert path.stat().st_size > 2e8


def sleeping(connection, mark):
    statement = "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()"
    return connection.execute(statement, [f"%pg_sleep(60) /* {mark} */%"]).fetchone() is not None


def wait_until(condition, running=None):
    deadline = time.monotonic() + 30
    while not condition():
        assert running is None or running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
