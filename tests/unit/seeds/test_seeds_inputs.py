"""The digest for caches: what files and settings tell, in any checkout, without running anything of the project."""

from __future__ import annotations

import itertools
import shutil
import sys
import textwrap

import pytest

from pytest_seeddb.errors import ConfigError
from pytest_seeddb.seeds.inputs import static_digest
from pytest_seeddb.settings.settings import load_settings

NOTHING_RUNS = "raise SystemExit('nothing of the project may be imported')"
TABLE = """
    name = "shop"
    migrations = "alembic.ini"
    session = "shop.db:Maker"
    engines = ["shop.engines:engine"]
    seeds = ["shop.seeds", "shop.more:init", "sql/*.sql", {command = "load", inputs = ["data/*.csv"]}]
    watch = ["watched.txt"]
    dump = "seed.sql"
    env = ["DATABASE_URL"]
    profile = "demo"
    [profiles.demo]
    stores = 1
    word = "hunter2"
"""
FILES = {
    "seeddb.toml": TABLE,
    "alembic.ini": "[alembic]\nscript_location = migrations\n",
    "migrations/env.py": f"from migrations import own_helper\n{NOTHING_RUNS}",
    "migrations/own_helper.py": NOTHING_RUNS,
    "migrations/versions/1.py": f"import uuid, shop.models\nrevision = str(uuid.uuid4())\n{NOTHING_RUNS}",
    "shop/__init__.py": NOTHING_RUNS,
    "shop/models.py": NOTHING_RUNS,
    "shop/views.py": NOTHING_RUNS,
    "shop/seeds.py": f"""
        import os, sys
        sys.path.append(os.path.join(os.path.dirname(__file__), "lib"))
        import deep
        from typing import Annotated
        from pytest_seeddb import Param, seeder
        {NOTHING_RUNS}
        @seeder
        def seed(session, stores: int = 1, word: Annotated[str, Param(secret=True)] = ""):
            open("read-by-the-build.csv")
    """,
    "shop/lib/deep.py": NOTHING_RUNS,
    "shop/db.py": NOTHING_RUNS,
    "shop/engines.py": NOTHING_RUNS,
    "shop/more.py": f"def init(session): ...\n{NOTHING_RUNS}",
    "sql/a.sql": "\\ir more/included.sql\nSELECT 1",
    "sql/more/included.sql": "SELECT 1",
    "data/a.csv": "1",
    "watched.txt": "",
    "seed.sql": "SELECT 1",
    "read-by-the-build.csv": "1",
    "tests/test_it.py": "",
}


class Checkout:
    def __init__(self, root, files):
        self.root = root
        for name, text in files.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def edit(self, name, old, new):
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    @property
    def digest(self):
        return static_digest(load_settings(self.root))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDDB_SERVER", "postgresql://app:hunter1@no-such-host.invalid/x")
    return Checkout(tmp_path / "one", FILES)


COUNTS = [
    *(
        name
        for name in FILES
        if name not in {"seeddb.toml", "shop/views.py", "read-by-the-build.csv", "tests/test_it.py"}
    ),
    "migrations/versions/2.py",
    "sql/b.sql",
    "data/b.csv",
]


@pytest.mark.parametrize("name", COUNTS)
def test_every_file_that_can_be_told_counts(checkout, name):
    before = checkout.digest
    checkout.write(name, f"{FILES.get(name, '')}\n# another text")
    assert checkout.digest != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stores = 1", "stores = 2"),
        ('profile = "demo"', 'profile = "demo"\nrandom_seed = 7'),
        ('name = "shop"', 'name = "x"'),
        ("db:Maker", "db:Other"),
        ('["shop.engines:engine"]', '"all"'),
    ],
)
def test_settings_that_determine_the_template_count(checkout, old, new):
    before = checkout.digest
    checkout.edit("seeddb.toml", old, new)
    assert checkout.digest != before


def test_what_makes_no_other_template_or_only_a_build_can_tell_does_not_count(checkout, tmp_path, monkeypatch):
    before = checkout.digest
    for name in ("shop/views.py", "read-by-the-build.csv", "tests/test_it.py", "shop/new.py"):
        checkout.write(name, "# another text")
    checkout.edit("seeddb.toml", 'env = ["DATABASE_URL"]', 'env = ["OTHER"]\nscope = "module"')
    checkout.edit("seeddb.toml", "hunter2", "hunter3")
    monkeypatch.setenv("SEEDDB_SEED_WORD", "hunter4")
    monkeypatch.setenv("SEEDDB_SERVER", "postgresql://app:hunter5@another.invalid/x")
    shutil.copytree(checkout.root, tmp_path / "two")
    assert Checkout(tmp_path / "two", {}).digest == checkout.digest == before


def test_a_file_that_is_missing_is_an_error_that_names_it(checkout):
    (checkout.root / "watched.txt").unlink()
    with pytest.raises(ConfigError, match=r"watched\.txt"):
        assert checkout.digest


DJANGO = {
    "seeddb.toml": 'name = "clinic"\nmigrations = "django"\nseeds = [{django = "load 3"}]\n',
    "manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'clinic.settings')",
    "clinic/__init__.py": "",
    "clinic/settings.py": f"from .base import *\n{NOTHING_RUNS}",
    "clinic/base.py": "INSTALLED_APPS = ['django.contrib.auth', 'clinic.patients', 'visits.apps.Visits']",
    "clinic/patients/__init__.py": "",
    "clinic/patients/models.py": NOTHING_RUNS,
    "clinic/patients/views.py": NOTHING_RUNS,
    "clinic/patients/migrations/__init__.py": "",
    "clinic/patients/migrations/0001_initial.py": f"from clinic.helper import x\n{NOTHING_RUNS}",
    "clinic/helper.py": NOTHING_RUNS,
    "visits/__init__.py": "",
    "visits/apps.py": "def ready(): from visits import receivers",
    "visits/receivers.py": NOTHING_RUNS,
    "visits/management/__init__.py": "",
    "visits/management/commands/__init__.py": "",
    "visits/management/commands/load.py": NOTHING_RUNS,
    "visits/management/commands/other.py": NOTHING_RUNS,
}
NOT_COUNTED = {"seeddb.toml", "manage.py", "clinic/patients/views.py", "visits/management/commands/other.py"}


def test_django_is_not_set_up_and_the_files_of_its_apps_count(tmp_path, monkeypatch):
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    checkout = Checkout(tmp_path, DJANGO)
    digests = {"": checkout.digest}
    for name in (*DJANGO, "clinic/patients/migrations/0002_more.py"):
        if name != "seeddb.toml":
            checkout.write(name, f"{DJANGO.get(name, '')}\n# another text")
            digests[name] = checkout.digest
    names = [*digests]
    changed = {name for before, name in itertools.pairwise(names) if digests[before] != digests[name]}
    assert {name for name in names[1:] if name not in changed} == NOT_COUNTED - {"seeddb.toml"}
    assert "clinic.settings" not in sys.modules
