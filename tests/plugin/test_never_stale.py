"""Whatever goes into a seeded database and changes, the next run builds it anew and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import uuid
from collections import Counter
from pathlib import Path

import pytest
from command import QUICK
from taking_part import IS_EXACT

from pytest_seeddb.clones.worker import Worker
from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.settings.settings import load_settings

ENV = """
    from alembic import context
    from sqlalchemy import create_engine
    import shop.models

    with create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nowhere").connect() as connection:
        context.configure(connection=connection, target_metadata=shop.models.Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
"""
MIGRATION = """
    revision, down_revision = {revision!r}, {before!r}
    import os
    from alembic import op

    def upgrade():
        with open(os.environ["MARKS"], "a") as marks:
            marks.write("migration " + revision + "\\n")
        op.execute({statement!r})
"""
FILES = {
    "alembic.ini": "[alembic]\nscript_location = migrations\n",
    "migrations/env.py": ENV,
    "migrations/versions/0001_first.py": MIGRATION.format(
        revision="0001", before=None, statement="CREATE TABLE shop (id serial PRIMARY KEY, name text, price text)"
    ),
    "migrations/versions/0002_second.py": MIGRATION.format(
        revision="0002", before="0001", statement="CREATE TABLE role (id serial PRIMARY KEY, name text)"
    ),
    "shop/__init__.py": "",
    "shop/models.py": """
        from sqlalchemy.orm import DeclarativeBase

        class Base(DeclarativeBase):
            pass
    """,
    "shop/marks.py": """
        import os

        def mark(text):
            with open(os.environ["MARKS"], "a") as marks:
                marks.write(text + "\\n")
    """,
    "shop/roles.py": """
        from sqlalchemy import text
        from sqlalchemy.orm import Session
        from pytest_seeddb import seeder
        from shop.marks import mark

        @seeder
        def roles(session: Session):
            mark("seed roles")
            session.execute(text("INSERT INTO role (name) VALUES ('owner')"))
    """,
    "shop/shops.py": """
        from pathlib import Path
        from sqlalchemy import text
        from sqlalchemy.orm import Session
        from pytest_seeddb import seeder
        from shop.factories import ShopFactory
        from shop.marks import mark
        from shop.roles import roles

        @seeder(tier="demo", after=[roles])
        def shops(session: Session, shops: int = 2):
            mark("seed shops")
            price = Path(__file__).with_name("price.txt").read_text()
            for _ in range(shops):
                session.execute(
                    text("INSERT INTO shop (name, price) VALUES (:name, :price)"),
                    {"name": ShopFactory()["name"], "price": price},
                )
    """,
    "shop/factories.py": """
        import factory
        from shop.names import PREFIX

        class ShopFactory(factory.DictFactory):
            name = factory.LazyFunction(lambda: PREFIX + " shop")
    """,
    "shop/names.py": "PREFIX = 'little'\n",
    "shop/price.txt": "3",
    "shop/unrelated.py": "VALUE = 1\n",
    "watched/cities.json": "[]",
    "README.md": "A shop.\n",
    "test_it.py": """
        def test_it(seeded_connection):
            assert seeded_connection.execute("SELECT count(*) FROM shop").fetchone() > (0,)
    """,
}
TABLE = """
    [project]
    name = "stale-{own}"
    [tool.seeddb]
    migrations = "alembic.ini"
    seeds = ["shop.roles", "shop.shops"]
    extensions = ["pg_trgm"]
    watch = ["watched/*.json"]
    profile = "demo"
    random_seed = 1
    [tool.seeddb.profiles.demo]
    shops = 2
"""


class Project:
    def __init__(self, root):
        self.root = root
        self.marks = root.with_name(f"{root.name}.marks")
        # Templates are found by what made them: each project needs a migration of its own.
        self.own = uuid.uuid4().hex[:8]
        for name, text in {**FILES, "pyproject.toml": TABLE.format(own=self.own)}.items():
            self.write(name, text)
        self.edit("migrations/versions/0001_first.py", "import op", f"import op  # {self.own}")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def edit(self, name, old, new):
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def run(self, *options, **environ):
        """Run the tests; the summary's line about the template, and how often each part of the build ran."""
        self.marks.write_text("")
        plugins = (*QUICK, "-p", "no:asyncio", "-p", "no:django", "-W", "error", "--seed-db")
        command = [sys.executable, "-m", "pytest", *plugins, *options]
        variables = {**os.environ, "MARKS": str(self.marks), "PYTHONDONTWRITEBYTECODE": "1", **environ}
        done = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        label = f"seeddb: template stale-{self.own}/"
        (line,) = [each.removeprefix(label) for each in done.stdout.splitlines() if each.startswith(label)]
        return line, Counter(self.marks.read_text().splitlines())


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "shop")


@pytest.fixture(scope="module")
def built(tmp_path_factory, embedded_server):
    """A project whose template stands; tests copy it."""
    project = Project(tmp_path_factory.mktemp("stale") / "shop")
    line, ran = project.run()
    assert line.startswith("demo built in ")
    assert line.endswith(": first build of this plan and profile")
    assert set(ran.values()) == {1}
    return project


@pytest.fixture
def changed(built):
    """The built project, with whatever the test does to it undone at the end."""
    kept = built.root.with_name("kept")
    shutil.copytree(built.root, kept)
    yield built
    shutil.rmtree(built.root)
    kept.rename(built.root)


@pytest.fixture(scope="module")
def look(built, embedded_server):
    """Why the next run would build; empty where it would not. As a run of its own sees it."""
    with Worker(embedded_server) as worker, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])  # working out a plan puts its root there
        patch.setenv("MARKS", str(built.marks))  # the project's code asks for it
        yield lambda: worker.look(plan_of(load_settings(built.root))).reason


def test_nothing_changed_nothing_is_built(built, look):
    assert look() == ""


INPUTS = {
    "a migration": ("migrations/versions/0002_second.py", "import os", "import os, sys", "migrations/versions/0002"),
    "a comment in a migration": ("migrations/versions/0001_first.py", "import os", "import os  # why", "0001_first.py"),
    "env.py": ("migrations/env.py", "import shop.models", "import shop.models  # all", "migrations/env.py changed"),
    "alembic.ini": ("alembic.ini", "migrations", "%(here)s/migrations", "alembic.ini changed"),
    "an essential seeder": ("shop/roles.py", "'owner'", "'boss'", "shop/roles.py changed"),
    "a demo seeder": ("shop/shops.py", "range(shops)", "range(shops + 0)", "shop/shops.py changed"),
    "a factory": ("shop/factories.py", '" shop"', '" store"', "shop/factories.py changed"),
    "a module two steps away": ("shop/names.py", "little", "big", "shop/names.py changed"),
    "the package's own file": ("shop/__init__.py", "", "VERSION = 1\n", "shop/__init__.py changed"),
    "a file that a seeder read": ("shop/price.txt", "3", "4", "shop/price.txt changed (used by the build)"),
    "a watched file": ("watched/cities.json", "[]", "[1]", "watched/cities.json changed"),
    "a profile value": ("pyproject.toml", "shops = 2", "shops = 4", "2 -> 4"),
    "the random seed": ("pyproject.toml", "random_seed = 1", "random_seed = 2", "random seed: 1 -> 2"),
    "an extension": ("pyproject.toml", '["pg_trgm"]', '["pg_trgm", "citext"]', "new extension citext"),
    "an extension less": ("pyproject.toml", 'extensions = ["pg_trgm"]', "", "extension pg_trgm is gone"),
}


EXACT = {
    "a comment in a migration": "",
    "env.py": "",
    "an essential seeder": "shop/roles.py: roles() changed (used by seed shop.roles:roles)",
    "a demo seeder": "shop/shops.py: shops() changed (used by seed shop.shops:shops)",
    "a factory": "shop/factories.py: ShopFactory changed",
    "a module two steps away": "shop/names.py: PREFIX changed",
    "the package's own file": "new shop/__init__.py: VERSION",
}
"""What is said since Python 3.12, where functions and constants are told from each other, and comments from code."""


@pytest.mark.parametrize("change", INPUTS)
def test_an_input_that_changes_is_noticed_and_named_in_one_line(changed, look, change):
    file, old, new, named = INPUTS[change]
    changed.edit(file, old, new)
    reason = look()
    named = EXACT.get(change, named) if IS_EXACT else named
    assert named in reason
    assert bool(named) == bool(reason)
    assert "\n" not in reason
    changed.edit(file, new, old) if old and new else changed.write(file, old)
    if old and new:
        assert look() == "", "changed back, it is what it was"


def test_a_new_watched_file_and_a_new_migration_are_noticed(changed, look):
    changed.write("watched/more.json", "[]")
    assert "new watched/more.json" in look()
    (changed.root / "watched/more.json").unlink()
    changed.write("migrations/versions/0003.py", MIGRATION.format(revision="0003", before="0002", statement="SELECT 1"))
    assert look() == "new migration 0003 (0003.py)"


def test_a_file_that_a_seeder_read_and_that_is_gone_is_noticed(changed, look):
    (changed.root / "shop/price.txt").unlink()
    assert look() == "shop/price.txt is missing"


def test_a_seed_that_is_named_no_more_leads_to_the_layer_without_it(changed, look):
    changed.edit("pyproject.toml", ', "shop.shops"', "")
    changed.edit("pyproject.toml", "shops = 2", "")
    assert look() == ""
    changed.edit("shop/roles.py", "'owner'", "'boss'")
    assert "seed shop.shops:shops is gone" in look()


def test_another_version_of_a_package_that_makes_the_data_is_noticed(changed, look, monkeypatch, tmp_path):
    (tmp_path / "faker-999.1.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "package faker: " in (reason := look())
    assert reason.endswith("-> 999.1")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("test_it.py", "def test_other(seeded_db): pass\n"),
        ("test_more.py", "def test_more(seeded_db): pass\n"),
        ("conftest.py", "VALUE = 1\n"),
        ("README.md", "Another shop.\n"),
        ("shop/unrelated.py", "VALUE = 1  # a comment\n"),
        ("shop/new_and_unrelated.py", "VALUE = 1\n"),
        ("watched/notes.txt", "not watched"),
        ("migrations/README", "Generic single-database configuration."),
        ("tests/test_names.py", "from shop.names import PREFIX\n"),
    ],
)
def test_what_no_build_looks_at_makes_no_difference(changed, look, file, text):
    changed.write(file, text)
    assert look() == ""


def test_the_same_project_in_another_place_and_touched_files_are_the_same(
    built, look, embedded_server, tmp_path, monkeypatch
):
    for file in built.root.rglob("*.py"):
        os.utime(file)
    assert look() == ""
    elsewhere = shutil.copytree(built.root, tmp_path / "elsewhere" / "checkout")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(built.root)])
    with Worker(embedded_server) as worker:
        assert worker.look(plan_of(load_settings(Path(elsewhere)))).reason == ""


# -- end to end ----------------------------------------------------------------------------------


@pytest.mark.long  # eight runs of pytest, one after the other
def test_a_run_builds_what_changed_and_no_more_and_finds_the_old_state_when_it_is_changed_back(project, tmp_path):
    everything = Counter(["migration 0001", "migration 0002", "seed roles", "seed shops"])
    line, ran = project.run()
    assert ran == everything

    project.edit("shop/names.py", "little", "big")
    line, ran = project.run()
    assert "built in" in line
    assert f"shop/names.py{': PREFIX' if IS_EXACT else ''} changed (used by seed shop.shops:shops)" in line
    assert ran == Counter(["seed shops"]), "a demo seeder in its own module re-runs no essential one"

    project.edit("shop/names.py", "big", "little")
    project.write("test_more.py", "def test_more(seeded_db): pass\n")
    project.write("README.md", "Another.\n")
    assert project.run() == ("demo reused", Counter()), "changed back"

    project.edit("shop/roles.py", "'owner'", "'boss'")
    line, ran = project.run()
    assert f"shop/roles.py{': roles()' if IS_EXACT else ''} changed" in line
    assert ran == Counter(["seed roles", "seed shops"]), "a changed seeder runs no migration"

    third = MIGRATION.format(revision="0003", before="0002", statement="CREATE TABLE third ()")
    project.write("migrations/versions/0003.py", third)
    line, ran = project.run()
    assert "new migration 0003" in line
    assert ran == Counter(["migration 0003", "seed roles", "seed shops"]), "one new migration runs one"

    project.write("shop/price.txt", "7")
    line, ran = project.run()
    assert "shop/price.txt" in line
    assert ran == Counter(["seed shops"])

    line, ran = project.run("--seed-db-reseed")
    assert line.endswith(": it was asked for")
    assert ran == everything + Counter(["migration 0003"])

    (tmp_path / "newer" / "faker-999.1.dist-info").mkdir(parents=True)
    line, ran = project.run("-p", "no:faker", PYTHONPATH=str(tmp_path / "newer"))
    assert "package faker: " in line
    assert "-> 999.1" in line
    assert ran == Counter(["seed shops"])
