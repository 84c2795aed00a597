"""From what a project has to the settings that fit it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_seeddb.cli.init import django, schema
from pytest_seeddb.cli.init.code import Code
from pytest_seeddb.cli.init.connections import engines, hidden_engines, variables
from pytest_seeddb.cli.init.files import Files
from pytest_seeddb.cli.init.models import models_of
from pytest_seeddb.cli.init.seeds_module import seeding_modules, seeds_module
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.fingerprint.sources import Sources
from pytest_seeddb.migrations.sources import DJANGO, stages
from pytest_seeddb.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_seeddb.cli.init.connections import Engine, Variable
    from pytest_seeddb.cli.init.models import Models
    from pytest_seeddb.cli.init.seeds_module import SeedsModule


@dataclass(frozen=True)
class Found:
    """Something that was recognised, and where."""

    what: str
    where: str


@dataclass
class Proposal:
    """Settings for a project, and what they were read from.

    Attributes:
        found: What was recognised.
        notes: What a person should know or look at.
        lines: The table's lines, without its heading.
        seeds: A seeds module to begin with; ``None`` where the project has seeds.
    """

    found: list[Found] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    seeds: SeedsModule | None = None

    def see(self, what: str, where: str) -> None:
        """Take note of something that was recognised."""
        self.found.append(Found(what, where))

    def set(self, key: str, value: str | Sequence[str]) -> None:
        """Add a setting."""
        self.lines.append(f"{key} = {_toml(value)}")

    def suggest(self, key: str, value: str, why: str) -> None:
        """Add a setting as a comment, for somebody to decide."""
        self.lines.append(f"# {key} = {_toml(value)}  # {why}")


@dataclass(frozen=True)
class _Project:
    """What there is in a project."""

    files: Files
    engines: Sequence[Engine]
    hidden: Sequence[str]
    variables: Sequence[Variable]
    models: Models | None
    seeding: Sequence[str]


def propose(root: Path) -> Proposal:
    """Look at the project in ``root``. Reads files, imports and runs nothing of the project's.

    Raises:
        SeedDbError: Nothing there makes a schema that this version can build.
    """
    project = _look(Files.of(root))
    proposal = Proposal()
    _schema(project, proposal)
    _seeds(project, proposal)
    _connections(project, proposal)
    for dump in schema.dumps(project.files):
        proposal.see("dump", dump)
        proposal.suggest("dump", dump, "restored first; then only the migrations that it lacks run")
    for place in project.files.unreachable:
        proposal.notes.append(
            f"the modules in {place} cannot be imported from here; if the application is there: seeddb init -C {place}"
        )
    return proposal


def _look(files: Files) -> _Project:
    code = Code(files)
    sources = list(code.interesting())
    return _Project(
        files,
        engines(sources),
        hidden_engines(sources),
        variables(sources),
        models_of(code, files.modules, sources, Sources(files.root)),
        seeding_modules(sources),
    )


# -- the schema ----------------------------------------------------------------------------------


def _schema(project: _Project, proposal: Proposal) -> None:
    """The first of these that is there; the others are told."""
    ways = (_django, _alembic, _flask_migrate, _sql_directory, _metadata)
    if not any(way(project, proposal) for way in ways):
        raise _nothing_found(project)


def _django(project: _Project, proposal: Proposal) -> bool:
    by = schema.django(project.files)
    if by:
        proposal.see("Django", by)
        proposal.set("migrations", DJANGO)
    return bool(by)


def _alembic(project: _Project, proposal: Proposal) -> bool:
    for name in schema.alembic(project.files):
        try:
            stages(Settings(project.files.root, migrations=name))
        except SeedDbError as error:
            proposal.notes.append(f"{name} is passed over: {error.what}. {error.saw}")
            continue
        proposal.see("Alembic", name)
        proposal.set("migrations", name)
        return True
    return False


def _flask_migrate(project: _Project, proposal: Proposal) -> bool:
    """Flask-Migrate needs its own command, which migrates the database that the variable names and no other."""
    place = schema.flask_migrate(project.files)
    if not place:
        return False
    proposal.see("Flask-Migrate", place)
    if not project.variables:
        proposal.notes.append(
            f"{place} needs `flask db upgrade`, and the database's URL is read from no environment variable: "
            "let the configuration read DATABASE_URL"
        )
        return False
    command = f'{{command = "flask db upgrade", inputs = [{_toml(f"{place}/**/*.py")}]}}'
    proposal.lines.append(f"migrations = {command}")
    return True


def _sql_directory(project: _Project, proposal: Proposal) -> bool:
    found = schema.sql_directory(project.files)
    if found is None:
        return False
    marks = f", with {found.tool}'s marks" if found.tool else ""
    files = "1 file" if found.files == 1 else f"{found.files} files"
    proposal.see("SQL migrations", f"{found.name}: {files}{marks}")
    proposal.set("migrations", found.name)
    return True


def _metadata(project: _Project, proposal: Proposal) -> bool:
    if project.models is None or not project.models.path:
        return False
    proposal.see("SQLAlchemy models without migrations", project.models.path)
    proposal.set("migrations", project.models.path)
    if project.models.missing:
        proposal.notes.append(
            f"importing {project.models.path.partition(':')[0]} leaves out {', '.join(project.models.missing)}: "
            "name a module that imports all models"
        )
    return True


def _nothing_found(project: _Project) -> SeedDbError:
    root = project.files.root
    return SeedDbError(
        "Nothing in this project says how its schema is made",
        saw="no manage.py, no alembic.ini, no [tool.alembic], no directory of *.sql migrations, no SQLAlchemy models",
        source=str(root),
        remedy="begin in the project's own directory (-C DIR), or write [tool.seeddb] by hand: migrations = "
        '"package.module:function" runs any function of yours',
    )


# -- seeds and connections -----------------------------------------------------------------------


def _seeds(project: _Project, proposal: Proposal) -> None:
    there = [*project.seeding, *schema.sql_seeds(project.files)]
    if there:
        proposal.see("seeds", ", ".join(there))
        proposal.set("seeds", there)
        return
    if schema.django(project.files):
        _django_seeds(project, proposal)
        return
    models = project.models.models if project.models else ()
    near = [*(each.module for each in models), *(each.path.partition(":")[0] for each in project.engines)]
    is_async = bool(project.engines) and all(each.is_async for each in project.engines)
    proposal.seeds = seeds_module(project.files, near, models, is_async=is_async)
    proposal.set("seeds", [proposal.seeds.module])


def _django_seeds(project: _Project, proposal: Proposal) -> None:
    proposal.seeds = django.seeds_module_of(project.files)
    proposal.set("seeds", [proposal.seeds.module])
    commands, fixtures = django.seeding_commands(project.files), django.fixtures(project.files)
    there = [f'{{django = {_toml(name)}, tier = "demo"}}' for name in commands]
    there += [f"{{django = {_toml(f'loaddata {name}')}}}" for name in fixtures]
    for name in (*commands, *fixtures):
        proposal.see("fixture" if name in fixtures else "management command", name)
    if there:
        every = ", ".join([_toml(proposal.seeds.module), *there])
        proposal.lines.append(f"# seeds = [{every}]  # with what the project has already")


def _connections(project: _Project, proposal: Proposal) -> None:
    for engine in project.engines:
        proposal.see("asynchronous engine" if engine.is_async else "engine", engine.path)
    if project.engines:
        proposal.set("engines", [each.path for each in project.engines])
    elif project.hidden:
        proposal.see("engine made in a function", ", ".join(project.hidden))
        proposal.suggest("engines", "all", "during a seeded test every engine of the process goes to its database")
    if not schema.django(project.files):  # Django's connections are pointed at the database by themselves
        _variables(project, proposal)


def _variables(project: _Project, proposal: Proposal) -> None:
    """Variables whose URL must name a driver are for a person to decide: a clone's URL names none."""
    plain = [each.name for each in project.variables if not each.has_driver or not project.engines]
    for each in project.variables:
        proposal.see("environment variable", f"{each.name}, read in {each.file}")
    if plain:
        proposal.set("env", plain[0] if len(plain) == 1 else plain)
    for each in project.variables:
        if each.name not in plain:
            why = "a seeded test's URL names a driver only where the variable is set and names one"
            proposal.suggest("env", each.name, why)


def _toml(value: str | Sequence[str]) -> str:
    """A string, or a list of them. JSON's strings are TOML's, but for one character that no name has."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return f"[{', '.join(_toml(each) for each in value)}]"
