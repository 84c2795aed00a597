"""The Django project that django_suite.py generates and runs: apps, migrations and tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

PYPROJECT: Final = """\
[project]
name = "{name}"
version = "1"

[tool.seeddb]
migrations = "django"
keep = "none"

[tool.pytest.ini_options]
DJANGO_SETTINGS_MODULE = "suite.settings"
pythonpath = ["."]
testpaths = ["tests"]
addopts = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:asyncio"]
"""

MANAGE: Final = """\
import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "suite.settings")
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""

SETTINGS: Final = """\
import os

from psycopg.conninfo import conninfo_to_dict

server = conninfo_to_dict(os.environ["SUITE_SERVER"])
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "NAME": server.pop("dbname", "postgres"),
        "USER": server.pop("user", ""),
        "PASSWORD": server.pop("password", ""),
        "HOST": server.pop("host", ""),
        "PORT": server.pop("port", ""),
        "OPTIONS": server,
        "TEST": {{"NAME": os.environ["SUITE_DATABASE"]}},
    }}
}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.sites",
    *{labels},
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "of a benchmark"
SITE_ID = 1
USE_TZ = True
"""

CONFTEST: Final = """\
import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    if limit := int(os.environ.get("SUITE_LIMIT", "0")):
        items[:] = items[:limit]
"""

TEST_MODULE: Final = """\
import pytest
from {label}.models import Entry, Item


@pytest.mark.django_db
@pytest.mark.parametrize("number", range({atomic}))
def test_atomic(number):
    assert not Item.objects.filter(name__startswith="atomic").exists()
    for each in range(3):
        item = Item.objects.create(name=f"atomic {{each}}")
        Entry.objects.create(item=item, text=f"entry {{each}}")
    assert Item.objects.get(pk=item.pk).name == "atomic 2"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", range({transactional}))
def test_transactional(number):
    assert not Item.objects.filter(name__startswith="transactional").exists()
    for each in range(3):
        item = Item.objects.create(name=f"transactional {{each}}")
        Entry.objects.create(item=item, text=f"entry {{each}}")
    assert Item.objects.filter(name__startswith="transactional").count() == 3
"""

MIGRATION: Final = """\
from django.db import migrations, models


{functions}class Migration(migrations.Migration):
    dependencies = {dependencies}
    operations = [
        {operations}
    ]
"""

ADD_ROWS: Final = """\
def add_rows(apps, schema_editor):
    item = apps.get_model("{label}", "Item")
    item.objects.bulk_create([item(name=f"row {{each}} of {number}") for each in range(20)])


"""

TESTS: Final = ("transactional", "atomic")
KEY: Final = 'models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")'


@dataclass
class Model:
    """A model as it stands after the migrations so far."""

    fields: dict[str, str]
    indexes: list[str] = field(default_factory=list)

    def created(self, name: str) -> str:
        fields = ", ".join(f'("{each}", {kind})' for each, kind in {"id": KEY, **self.fields}.items())
        return f'migrations.CreateModel("{name}", [{fields}]),'

    def source(self, name: str) -> str:
        fields = "".join(f"    {each} = {kind}\n" for each, kind in self.fields.items())
        meta = f"\n    class Meta:\n        indexes = [{', '.join(self.indexes)}]\n" if self.indexes else ""
        return f"class {name}(models.Model):\n{fields}{meta}"


class App:
    """An app that grows, migration by migration."""

    def __init__(self, number: int, name: str) -> None:
        self.number, self.name = number, name
        self.label, self.before = f"app{number:02}", f"app{number - 1:02}"
        self.models: dict[str, Model] = {}
        self.migrations: list[str] = []

    def grow(self) -> None:
        """Add the next migration: the first one makes models, the others take turns."""
        number = len(self.migrations) + 1
        kinds = (self.add_rows, self.add_column, self.add_index, self.add_text, self.add_model)
        lines = kinds[(number - 1) % len(kinds)](number) if number > 1 else self.first()
        needed = [(self.label, f"{number - 1:04}_step")] if number > 1 else []
        if number == 1 and self.number:
            needed = [(self.before, "0001_step")]
        functions = ADD_ROWS.format(label=self.label, number=number) if "RunPython" in lines[0] else ""
        text = MIGRATION.format(functions=functions, dependencies=needed, operations="\n        ".join(lines))
        self.migrations.append(text)

    def first(self) -> list[str]:
        # The name makes the migrations of this run differ from any other's: no other run's template will do.
        self.models["Item"] = Model({"name": f'models.CharField("{self.name}", max_length=60)'})
        self.models["Entry"] = Model({"item": reference(self.label), "text": "models.TextField()"})
        if self.number % 2:
            self.models["Entry"].fields["origin"] = reference(self.before, ", null=True")
        if self.number % 3 == 0:
            self.models["Tag"] = Model({"word": "models.CharField(max_length=30, unique=True)"})
        return [model.created(name) for name, model in self.models.items()]

    def add_rows(self, number: int) -> list[str]:
        """Data in some apps; in the others the column that a data migration often comes with."""
        if self.number % 5 == 0:
            return ["migrations.RunPython(add_rows, migrations.RunPython.noop),"]
        return self.add_column(number)

    def add_column(self, number: int) -> list[str]:
        return self.add_field("Item", f"count_{number}", "models.IntegerField(default=0)")

    def add_text(self, number: int) -> list[str]:
        return self.add_field("Entry", f"note_{number}", 'models.CharField(max_length=40, default="")')

    def add_field(self, model: str, name: str, kind: str) -> list[str]:
        self.models[model].fields[name] = kind
        return [f'migrations.AddField("{model}", "{name}", {kind}),']

    def add_index(self, number: int) -> list[str]:
        index = f'models.Index(fields=["name"], name="{self.label}_name_{number}")'
        self.models["Item"].indexes.append(index)
        return [f'migrations.AddIndex("Item", {index}),']

    def add_model(self, number: int) -> list[str]:
        model = Model({"item": reference(self.label), "amount": "models.IntegerField(default=1)"})
        self.models[f"Extra{number}"] = model
        return [model.created(f"Extra{number}")]

    def files(self) -> dict[str, str]:
        models = "\n\n".join(["from django.db import models\n", *(each.source(n) for n, each in self.models.items())])
        steps = {f"migrations/{number:04}_step.py": text for number, text in enumerate(self.migrations, start=1)}
        found = {"__init__.py": "", "migrations/__init__.py": "", "models.py": models, **steps}
        return {f"{self.label}/{path}": text for path, text in found.items()}


def reference(label: str, more: str = "") -> str:
    return f'models.ForeignKey("{label}.Item", models.CASCADE, related_name="+"{more})'


def write_project(place: Path, name: str, parsed: argparse.Namespace) -> None:
    apps = [App(number, name) for number in range(parsed.apps)]
    for number in range(parsed.migrations):
        apps[number % parsed.apps].grow()
    labels = [each.label for each in apps]
    files = {
        "pyproject.toml": PYPROJECT.format(name=name),
        "manage.py": MANAGE,
        "suite/__init__.py": "",
        "suite/settings.py": SETTINGS.format(labels=labels),
        "tests/conftest.py": CONFTEST,
    }
    for number, app in enumerate(apps):
        files |= app.files()
        files[f"tests/test_{app.label}.py"] = test_module(app.label, number, parsed)
    for path, text in files.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text)


def test_module(label: str, number: int, parsed: argparse.Namespace) -> str:
    counts = {each: len(range(number, counted(each, parsed.tests), parsed.apps)) for each in TESTS}
    return TEST_MODULE.format(label=label, **counts)


def counted(kind: str, tests: int) -> int:
    """How many of the tests are of a kind."""
    return tests // 2 if kind == "transactional" else tests - tests // 2
