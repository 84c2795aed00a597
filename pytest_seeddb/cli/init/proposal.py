"""From a project's files to the settings and the first seeds module that fit it."""

from __future__ import annotations

import json
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.cli.init.code import Code
from pytest_seeddb.cli.init.files import Files, alembic, dumps, sql_migrations, sql_seeds
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.migrations.sources import DJANGO, stages
from pytest_seeddb.settings.files import FILE_NAME
from pytest_seeddb.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

_DJANGO_MODEL: Final = re.compile(rb"^class (\w+)\((?:\w+\.)?\w*Model\w*", re.MULTILINE)
_DJANGO_COMMAND: Final = re.compile(
    r".*\.management\.commands\.(?:.*\.)?((?:\w+_)?(?:seed|populate|demo|fill)(?:s|ers|ing)?(?:_\w+)?)"
)
_TEXT: Final = '''\
"""The rows that the database holds before the first test.

Essential seeds are rows that the application needs to run. Demo seeds are rows for tests and for trying it out.
Each seeder runs in a transaction of its own.
"""

{library}from pytest_seeddb import seeder{models}


@seeder
{define} essential({session}) -> None:
    """Add the rows that the application needs to run."""
    # {add}


@seeder(tier="demo", after=[essential])
{define} demo({rows}) -> None:
    """Add rows for tests and for trying the application out; a profile can set their number."""
    # {add_all}
'''

# JSON's strings and lists are TOML's, but for one character that no name has.
_toml: Final = partial(json.dumps, ensure_ascii=False)


@dataclass(frozen=True)
class Finding:
    """Something that was recognised, and where."""

    what: str
    where: str


@dataclass(frozen=True)
class Written:
    """A file that was written, or would be: its path from the project's directory, and the text that was added."""

    file: str
    action: Literal["append", "create"]
    text: str


class Proposal:
    """The settings for a project, and a seeds module if it has none. Its files are read; its code is not run."""

    def __init__(self, root: Path) -> None:
        self.found: list[Finding] = []
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.seeds: Written | None = None
        self.root = root
        files = Files(root)
        code = Code(files)
        self.lines.append(f"migrations = {self._migrations(files, code)}")
        self._add_seeds(files, code)
        self._add_connections(files, code)
        for dump in dumps(files):
            self.found.append(Finding("dump", dump))
            self.lines.append(f"# dump = {_toml(dump)}  # restored first; then only the migrations that it lacks run")
        inner = {*files.ending("/__init__.py")} - {*files.modules.values()}
        for place in sorted({name.partition("/")[0] for name in inner if name.count("/") > 1}):
            advice = f"if the application is there, run: seeddb init -C {place}"
            self.notes.append(f"the modules in {place} cannot be imported from here; {advice}")

    def files(self) -> tuple[Written, ...]:
        """The table goes to ``pyproject.toml``, unless that cannot take another table, as with ``tool = {...}``."""
        text = "\n".join(self.lines)
        table = Written(FILE_NAME, "create", f"{text}\n")
        project = self.root / "pyproject.toml"
        if project.exists():
            before = project.read_bytes().decode()  # with the line ends that it has
            gap = "" if not before.strip() else "\n" if before.endswith("\n") else "\n\n"
            added = f"{gap}[tool.seeddb]\n{text}\n".replace("\n", "\r\n" if "\r\n" in before else "\n")
            with suppress(tomllib.TOMLDecodeError):
                after = tomllib.loads(before + added)
                del after["tool"]["seeddb"]
                if after == {"tool": {}, **tomllib.loads(before)}:
                    table = Written(project.name, "append", added)
        return (self.seeds, table) if self.seeds else (table,)

    def _migrations(self, files: Files, code: Code) -> str:
        """The first source of a schema that is known, as TOML."""
        if files.django:
            self.found.append(Finding("Django", files.django))
            return _toml(DJANGO)
        configurations, flask = alembic(files)
        for name in configurations:
            try:
                stages(Settings(files.root, migrations=name))
            except SeedDbError as error:
                self.notes.append(f"{name} was skipped: {error.what}. {error.saw}")
            else:
                self.found.append(Finding("Alembic", name))
                return _toml(name)
        if flask:
            self.found.append(Finding("Flask-Migrate", flask))
            if code.variables:
                return f'{{command = "flask db upgrade", inputs = [{_toml(f"{flask}/**/*.py")}]}}'
            # It migrates the database that the application is configured for, and no other.
            self.notes.append(
                f"{flask} needs `flask db upgrade`, and the database's URL is read from no environment variable: "
                "let the configuration read DATABASE_URL"
            )
        directory, description = sql_migrations(files)
        if directory:
            self.found.append(Finding("SQL migrations", description))
            return _toml(directory)
        path, missing = code.metadata()
        if not path:
            raise SeedDbError(
                "The project has no migrations or models that seeddb recognises",
                saw="no manage.py, no alembic.ini, no [tool.alembic], no directory of *.sql migrations, "
                "no SQLAlchemy models",
                source=str(files.root),
                remedy="start in the project's own directory (-C DIR), or write [tool.seeddb] by hand: migrations = "
                '"package.module:function" runs any function',
            )
        self.found.append(Finding("SQLAlchemy models without migrations", path))
        if missing:
            module, files_with_models = path.partition(":")[0], ", ".join(missing)
            self.notes.append(
                f"importing {module} leaves out {files_with_models}: name a module that imports all models"
            )
        return _toml(path)

    def _add_seeds(self, files: Files, code: Code) -> None:
        """The seeds that are there; else a new module, and in a comment what seeds a Django project in other ways."""
        if seeds := [*code.seeding, *sql_seeds(files)]:
            self.found.append(Finding("seeds", ", ".join(seeds)))
            self.lines.append(f"seeds = {_toml(seeds)}")
            return
        module, self.seeds = _seeds_module(files, code)
        self.lines.append(f"seeds = {_toml([module])}")
        entries = [_toml(module)]
        for command in filter(None, map(_DJANGO_COMMAND.fullmatch, files.modules if files.django else ())):
            self.found.append(Finding("management command", command[1]))
            entries.append(f'{{django = {_toml(command[1])}, tier = "demo"}}')
        for path in files.ending(".json", ".yaml", ".yml", ".xml", ".jsonl"):
            if files.django and "/fixtures/" in f"/{path}":
                name = path.rpartition("/")[2]
                self.found.append(Finding("fixture", name))
                entries.append(f"{{django = {_toml(f'loaddata {name}')}}}")
        if len(entries) > 1:
            self.lines.append(f"# seeds = [{', '.join(entries)}]  # with what the project has already")

    def _add_connections(self, files: Files, code: Code) -> None:
        for path, is_async in code.engines.items():
            self.found.append(Finding("asynchronous engine" if is_async else "engine", path))
        if code.engines:
            self.lines.append(f"engines = {_toml(list(code.engines))}")
        elif code.hidden_engines:
            self.found.append(Finding("engine made in a function", ", ".join(code.hidden_engines)))
            self.lines.append('# engines = "all"  # in a seeded test every engine of the process goes to its database')
        # Django's connections are pointed at the database without a variable.
        variables = {} if files.django else code.variables
        for name, (file, _) in variables.items():
            self.found.append(Finding("environment variable", f"{name}, read in {file}"))
        # A clone's URL names no driver, so a variable whose URL must name one is for a person to decide.
        doubtful = [name for name, (_, has_driver) in variables.items() if has_driver and code.engines]
        plain = [name for name in variables if name not in doubtful]
        if plain:
            self.lines.append(f"env = {_toml(plain if plain[1:] else plain[0])}")
        why = "a seeded test's URL names a driver only where the variable is set and names one"
        self.lines += [f"# env = {_toml(name)}  # {why}" for name in doubtful]


def _seeds_module(files: Files, code: Code) -> tuple[str, Written]:
    """A module in the application's package, or at the root where there is none; its name is free."""
    if files.django:  # the application with the most models
        apps = {
            module.removesuffix(".models"): [f"{module}.{name.decode()}" for name in names]
            for module, file in files.modules.items()
            if module.endswith(".models") and (names := _DJANGO_MODEL.findall(files.beginning(file)))
        }
        package = max(apps, key=lambda app: len(apps[app]), default="")
        models = apps.get(package, [])
        library, session, rows = "", "", "rows: int = 3"
        add, add_all = "{0}.objects.create(...)", "{0}.objects.bulk_create({0}(...) for number in range(rows))"
    else:
        models = code.classes
        near = [model.rpartition(".")[0] for model in code.models] + [path.partition(":")[0] for path in code.engines]
        packages = [module for module, file in files.modules.items() if file.endswith(f"{module}/__init__.py")]
        tops = [module.partition(".")[0] for module in near if "." in module or module in packages]
        package = [*tops, *packages, ""][0]
        session, library = "session: Session", "from sqlalchemy.orm import Session\n\n"
        if code.engines and all(code.engines.values()):
            session, library = "session: AsyncSession", "from sqlalchemy.ext.asyncio import AsyncSession\n\n"
        rows = f"{session}, rows: int = 3"
        add, add_all = "session.add({0}(...))", "session.add_all({0}(...) for number in range(rows))"
    place = f"{package.replace('.', '/')}/".lstrip("/")
    place = f"src/{place}" if package and f"src/{place}__init__.py" in files.names else place
    taken = {name.removeprefix(place).partition("/")[0] for name in files.names if name.startswith(place)}
    name = next((name for name in ("seeds", "seeders") if not {name, f"{name}.py"} & taken), "seeddb_seeds")
    pairs = [model.rpartition(".")[::2] for model in models[:6]]
    imports = [f"# from {home} import {', '.join(name for at, name in pairs if at == home)}" for home in dict(pairs)]
    names = [name for _, name in pairs[:2]] or ["Model"]
    text = _TEXT.format(
        library=library,
        models="\n".join(["\n", *imports]) if imports else "",
        define="async def" if "Async" in session else "def",
        session=session,
        rows=rows,
        add=add.format(names[0]),
        add_all=add_all.format(names[-1]),
    )
    return ".".join(filter(None, [package, name])), Written(f"{place}{name}.py", "create", text)
