"""Every target of `examples/store_platform`'s Makefile, on databases of a server of its own."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import uuid

import psycopg
import pytest
from psycopg import sql
from separate import separate_server

TARGETS = [
    "migrate-up",
    "init-prod",
    "seed-demo",
    "seed-demo-minimal",
    "seed-demo-reset",
    "db-setup",
    "db-reset",
    "backup-db",
    "verify-setup",
]
NOTHING = {"roles": 0, "users": 0, "stores": 0, "customers": 0, "products": 0, "orders": 0}
ESSENTIAL = NOTHING | {"roles": 3, "users": 1}
MINIMAL = {"roles": 3, "users": 2, "stores": 1, "customers": 2, "products": 3, "orders": 1}
DEMO = {"roles": 3, "users": 10, "stores": 3, "customers": 45, "products": 60, "orders": 90}
MADE = {
    "migrate-up": NOTHING,
    "init-prod": ESSENTIAL,
    "seed-demo": DEMO,
    "seed-demo-minimal": MINIMAL,
    "seed-demo-reset": DEMO,
    "db-setup": DEMO,
    "db-reset": DEMO,
}
PRODUCTION = {"ENVIRONMENT": "production", "SECRET_KEY": "b7f1c0", "SEEDDB_SEED_ADMIN_PASSWORD": "x9-hidden"}


class Platform:
    """The example, copied, with an empty database."""

    def __init__(self, reader, server):
        self.directory = reader.directory
        name = f"platform_{uuid.uuid4().hex[:12]}"
        self.address = server.with_database(name)
        self.environment = {**reader._environment(), "DATABASE_URL": self.address.url}
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def make(self, target, code=0, answer=None, **environ):
        """Run ``make`` where nobody is there to be asked, or somebody who answers; all that it printed."""
        terminal, stdin = pty.openpty() if answer else (None, subprocess.DEVNULL)
        if answer:
            os.write(terminal, f"{answer}\n".encode())
        done = self.run(["make", target], stdin=stdin, env={**self.environment, **environ})
        for each in (terminal, stdin) if answer else ():
            os.close(each)
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        assert "x9-hidden" not in done.stdout
        return done.stdout

    def run(self, command, **options):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 300}
        options = {"cwd": self.directory, "env": self.environment, **pipes, **options}
        return subprocess.run(command, check=False, **options)

    def typed(self, command):
        """Run what the README shows, on the database that it names."""
        done = self.run(command, shell=True)
        done.stdout = done.stdout.replace(self.address.masked, "postgresql://localhost/store_platform").splitlines()
        return done

    def scalar(self, statement):
        with psycopg.connect(self.address.conninfo) as connection:
            return connection.execute(statement).fetchone()[0]

    @property
    def rows(self):
        return {table: self.scalar(f"SELECT count(*) FROM {table}") for table in NOTHING}

    @property
    def is_empty(self):
        return self.scalar("SELECT to_regclass('users') IS NULL AND to_regnamespace('seeddb') IS NULL")


@pytest.fixture(scope="module")
def server():
    with separate_server() as start:
        yield start()


@pytest.fixture
def platform(example, server):
    return Platform(example("store_platform"), server)


def test_the_makefile_has_these_targets_and_each_is_one_line_over_seeddb(platform):
    recipes = re.findall(r"^([\w-]+):.*\n((?:\t.*\n)+)", (platform.directory / "Makefile").read_text(), re.MULTILINE)
    assert [target for target, _ in recipes] == TARGETS
    assert all(re.fullmatch(r"\tseeddb .*\n", recipe) for _, recipe in recipes)


@pytest.mark.long
@pytest.mark.parametrize("target", ["migrate-up", "init-prod", "seed-demo", "seed-demo-minimal", "db-setup"])
def test_the_second_time_there_is_nothing_to_do(platform, target):
    platform.make(target)
    assert platform.rows == MADE[target]
    assert "up to date" in platform.make(target)
    assert platform.rows == MADE[target]


@pytest.mark.long
@pytest.mark.parametrize("target", ["seed-demo-reset", "db-reset"])
def test_a_reset_makes_the_same_rows_each_time(platform, target):
    answer = "yes" if target == "db-reset" else None
    for _ in range(2):
        platform.make(target, answer=answer)
        assert platform.rows == MADE[target]
        assert platform.scalar("SELECT min(id) FROM orders") == 1


@pytest.mark.slow
def test_db_reset_does_nothing_unless_somebody_says_yes(platform):
    assert "no terminal on which to ask" in platform.make("db-reset", code=2)
    assert "nothing was done" in platform.make("db-reset", code=2, answer="no")
    assert platform.is_empty


@pytest.mark.long
def test_one_target_goes_on_where_another_ended(platform):
    for target in ("migrate-up", "init-prod", "seed-demo"):
        platform.make(target)
        assert platform.rows == MADE[target]
    assert "up to date" in platform.make("db-setup")
    refused = platform.make("seed-demo-minimal", code=2)
    assert "it was applied with another profile, 'demo', and not 'minimal'" in refused
    assert "--reset empties the database first" in refused
    assert platform.rows == DEMO


@pytest.mark.long
def test_the_environment_says_how_many(platform):
    counts = {"STORES": "2", "USERS": "1", "CUSTOMERS": "4", "PRODUCTS": "5", "ORDERS": "6"}
    platform.make("seed-demo", **{f"SEEDDB_SEED_{name}": count for name, count in counts.items()})
    assert platform.rows == {"roles": 3, "users": 3, "stores": 2, "customers": 8, "products": 10, "orders": 12}


@pytest.mark.long
def test_a_backup_holds_what_is_there_and_two_are_the_same(platform):
    platform.make("seed-demo-minimal")
    backup = platform.directory / "backup.sql"
    platform.make("backup-db")
    first = backup.read_text(encoding="utf-8")
    platform.make("backup-db")
    assert backup.read_text(encoding="utf-8") == first
    assert "customer1@mail.example" in first
    assert "seeddb_marker" in first


@pytest.mark.long
def test_the_seeds_are_what_they_say(platform):
    for _ in range(2):
        assert "store-platform/demo: sound" in platform.make("verify-setup")
    assert platform.is_empty


@pytest.mark.long
def test_the_readme_shows_what_is_printed(example, server, blocks):
    reader = example("store_platform")
    reader.run = Platform(reader, server).typed
    shown = [each for each in blocks("examples/store_platform/README.md", "console") if "\nseeddb " in each.text]

    assert len(shown) == 4
    reader.follow(shown)


# -- production ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["seed-demo", "seed-demo-minimal", "seed-demo-reset", "db-setup", "db-reset"])
@pytest.mark.slow
def test_production_refuses_demo_data(platform, target):
    answer = "yes" if target == "db-reset" else None
    assert "is refused in production; no option allows it" in platform.make(target, 2, answer, **PRODUCTION)
    assert platform.is_empty


@pytest.mark.slow
def test_production_takes_what_is_essential_and_stays_production(platform):
    for _ in range(2):
        platform.make("migrate-up", **PRODUCTION)
        platform.make("init-prod", **PRODUCTION)
    assert platform.rows == ESSENTIAL
    assert "which says production" in platform.make("seed-demo", code=2)
    assert platform.rows == ESSENTIAL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "said"),
    [("SEEDDB_SEED_ADMIN_PASSWORD", "`admin_password` has its default value"), ("SECRET_KEY", "SECRET_KEY needs")],
)
def test_production_needs_secrets_of_its_own(platform, variable, said):
    given = {name: value for name, value in PRODUCTION.items() if name != variable}
    assert said in platform.make("init-prod", code=2, **given)
    assert platform.scalar("SELECT to_regclass('users') IS NULL")
