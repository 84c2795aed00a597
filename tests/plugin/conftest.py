"""A small project whose tests are run by a pytest of their own, in a subprocess."""

from __future__ import annotations

import textwrap
import uuid
from pathlib import Path

import pytest
from command import QUICK, Command

TABLE = """
    [project]
    name = "little-shop"
    [tool.seeddb]
    migrations = "db"
    seeds = ["seeds/*.sql"]
"""
SCHEMA = "CREATE TABLE shop (id serial PRIMARY KEY, name text NOT NULL UNIQUE);\nCREATE SEQUENCE ticket;"
ROWS = "INSERT INTO shop (name) SELECT 'shop ' || n FROM generate_series(1, 3) n;"

SEEDERS = """
    from sqlalchemy import text
    from sqlalchemy.orm import Session
    from pytest_seeddb import seeder

    @seeder
    def first(session: Session):
        session.execute(text("INSERT INTO shop (name) VALUES ('first')"))

    @seeder(tier="demo", after=[first])
    def shops(session: Session, shops: int = 3):
        for number in range(shops):
            session.execute(text("INSERT INTO shop (name) VALUES (:name)"), {"name": f"shop {number}"})
"""


class Project:
    """Files of a project, and runs of pytest in it."""

    def __init__(self, pytester):
        self.pytester = pytester
        self.path = pytester.path
        self.write("pyproject.toml", TABLE)
        self.write("db/001_shop.sql", SCHEMA)
        self.write("seeds/shops.sql", ROWS)

    def write(self, name, text):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def table(self, text):
        self.write("pyproject.toml", TABLE + textwrap.indent(textwrap.dedent(text), "    "))

    def seeders(self, profiles=""):
        """Seeders in Python in place of the SQL file."""
        self.write("little/__init__.py", "")
        self.write("little/seeds.py", SEEDERS)
        table = TABLE.replace('["seeds/*.sql"]', '["little.seeds"]')
        self.write("pyproject.toml", table + textwrap.indent(textwrap.dedent(profiles), "    "))

    def test(self, text, *options, name="test_it.py"):
        """Write a test module and run it."""
        self.write(name, text)
        return self.run(*options)

    def run(self, *options, enabled=True):
        plugins = (*QUICK, "-p", "no:asyncio", "-p", "no:django", "-W", "error")
        return self.pytester.runpytest_subprocess(*plugins, *(["--seed-db"] if enabled else []), *options)


@pytest.fixture
def project(pytester):
    return Project(pytester)


@pytest.fixture
def seeddb(project):
    """The command in the project, whose template is nobody else's: they are found by what made them."""
    project.write("db/000_own.sql", f"SELECT '{uuid.uuid4()}';")
    return Command(project.path)


@pytest.fixture(scope="session")
def repository():
    return Path(__file__).parents[2]
