"""What version 0.1.0 noted in a database, this one knows: by whole files, and with secrets as they were then."""

from __future__ import annotations

import hashlib
import sys

import pytest

from pytest_seeddb.seeds.planning import plan_of
from pytest_seeddb.settings.settings import load_settings

FILES = {
    "seeddb.toml": """
name = "noted"
migrations = "shop.db:migrate"
seeds = ["shop.seeds", {command = "load", inputs = ["secrets/key.txt"]}]
profile = "demo"
[profiles.demo]
stores = 2
admin_password = "hunter2"
replica = "postgresql://app:hunter3@elsewhere/x"
""",
    "shop/__init__.py": "",
    "shop/db.py": "from shop import other\nLIB = 'lib'\ndef migrate(url): ...\n",
    "shop/other.py": "import os, sys\nsys.path.append(os.path.dirname(__file__) + '/lib')\nimport deep\n",
    "shop/lib/deep.py": "",
    "shop/seeds.py": """
from pytest_seeddb import seeder
@seeder
def stores(session, stores: int = 1, admin_password: str = "", replica: str = ""): ...
""",
    "secrets/key.txt": "123456",
}


def content(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def chained(previous, name, parts):
    """The digest that ledgers hold: this must never change."""
    hashed = hashlib.sha256()
    for word in ["1", previous, name, *(word for part in sorted(parts.items()) for word in part)]:
        hashed.update(b"%d:%b" % (len(word.encode()), word.encode()))
    return hashed.hexdigest()


PYTHON = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def files(*names):
    return {name: content(FILES[name]) for name in names}


SCHEMA = {**PYTHON, **files("shop/__init__.py", "shop/db.py", "shop/other.py"), "package deep": "not installed"}
COUNTED = {**files("shop/seeds.py"), "random seed": "0", "parameter stores": "2"}
REPLICA = "'postgresql://app:hunter3@elsewhere/x'"
COMMAND = {"command": content("load"), **files("secrets/key.txt")}


@pytest.fixture
def plan(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return plan_of(load_settings(tmp_path))


def test_each_step_knows_the_version_that_was_noted_for_the_same_inputs(plan):
    expected = {
        "schema shop.db:migrate": chained("", "schema shop.db:migrate", SCHEMA),
        "seed shop.seeds:stores": chained("", "shop.seeds:stores", {**COUNTED, "parameter replica": REPLICA}),
        "seed load": chained("", "seed load", COMMAND),
    }
    assert {step.name: step.versions[-1] for step in plan.steps} == expected
    now = {step.name: step.version_now for step in plan.steps}
    assert now["seed shop.seeds:stores"] == chained("", "shop.seeds:stores", {**COUNTED, "parameter replica": "set"})


def test_a_plan_knows_the_fingerprint_that_was_noted_for_it(plan):
    (version,) = (part.digest for step in plan.steps for part in step.parts if part.name == "package pytest-seeddb")
    password = content("shop.seeds:stores admin_password 'hunter2'")
    seeder = {
        "seeder": "shop.seeds:stores", **COUNTED, **files("shop/__init__.py"), **PYTHON,
        "package pytest-seeddb": version,
        "parameter replica": REPLICA, "parameter admin_password": password,
    }  # fmt: skip
    steps = {"schema shop.db:migrate": SCHEMA, "seed shop.seeds:stores": seeder, "seed load": COMMAND}
    print_ = chained("", "base", {})
    for step in plan.steps:
        print_ = chained(print_, step.name, steps[step.name])
    assert plan.noted_fingerprints[1] == print_
