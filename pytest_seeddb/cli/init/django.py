"""A Django project: which of its applications gets the seeds, and what seeds it already."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.init.seeds_module import SeedsModule, free_name

if TYPE_CHECKING:
    from pytest_seeddb.cli.init.files import Files

_MODEL: Final = re.compile(rb"^class (\w+)\((?:\w+\.)?\w*Model\w*", re.MULTILINE)
_SEEDING: Final = re.compile(r"(?:^|_)(?:seed|populate|demo|fill)(?:s|ers|ing)?(?:_|$)")
_BEGINNING: Final = 100_000
_SHOWN: Final = 6

_TEXT: Final = '''\
"""What the database holds before the first test.

Essential seeds are what the application cannot run without. Demo seeds are for tests and for looking at.
Each runs in a transaction of Django's, against the database that is being built.
"""

from pytest_seeddb import seeder

{models}

@seeder
def essential() -> None:
    """Rows that the application cannot run without."""
    # {first}.objects.create(...)


@seeder(tier="demo", after=[essential])
def demo(rows: int = 3) -> None:
    """Rows to look at and to test with; a profile may say how many."""
    # {second}.objects.bulk_create({second}(...) for number in range(rows))
'''


def seeds_module_of(files: Files) -> SeedsModule:
    """A module in the application that has the most models; at the root where none has any."""
    models = {app: found for app in _applications(files) if (found := _models(files, app))}
    app = max(models, key=lambda each: len(models[each]), default="")
    names = models.get(app, ["Model"])
    imports = f"# from {app}.models import {', '.join(names[:_SHOWN])}\n" if app else ""
    module, file = free_name(files, app)
    return SeedsModule(module, file, _TEXT.format(models=imports, first=names[0], second=names[-1]))


def _applications(files: Files) -> list[str]:
    """Packages with a ``models`` module."""
    return [module.removesuffix(".models") for module in files.modules if module.endswith(".models")]


def _models(files: Files, app: str) -> list[str]:
    source = files.beginning(files.modules[f"{app}.models"], _BEGINNING)
    return [name.decode() for name in _MODEL.findall(source)]


def seeding_commands(files: Files) -> list[str]:
    """Management commands that are called as if they seeded."""
    inside = [module for module in files.modules if ".management.commands." in module]
    return [name for module in inside if _SEEDING.search(name := module.rpartition(".")[2])]


def fixtures(files: Files) -> list[str]:
    """Files that ``loaddata`` finds."""
    found = files.ending(".json", ".yaml", ".yml", ".xml", ".jsonl")
    return [each.rpartition("/")[2] for each in found if "/fixtures/" in f"/{each}"]
