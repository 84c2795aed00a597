"""From a project's files to the settings and the first seeds module that fit it."""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, Literal

from pytest_seeddb.cli.init.code import Code
from pytest_seeddb.cli.init.files import Files, alembic, changelogs, dumps, sql_migrations, sql_seeds
from pytest_seeddb.cli.init.trial import Trial
from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.migrations.formats import Directory
from pytest_seeddb.migrations.sources import DJANGO, stages
from pytest_seeddb.settings.files import FILE_NAME
from pytest_seeddb.settings.pytest_files import put_on_path, pytest_file
from pytest_seeddb.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    Migrations = str | Mapping[str, object]

_SQL: Final = "SQL migrations"
_MODELS: Final = "SQLAlchemy models without migrations"
_DJANGO_MODEL: Final = re.compile(rb"^class (\w+)\((?:\w+\.)?\w*Model\w*", re.MULTILINE)
_DJANGO_MODELS: Final = re.compile(r"(.+?)\.models(?:\..*)?")
_DJANGO_COMMAND: Final = re.compile(
    r".*\.management\.commands\.(?:.*\.)?((?:\w+_)?(?:seed|populate|demo|fill)(?:s|ers|ing|_?db)?(?:_\w+)?"
    r"|(?:load|create|import|add)_?(?:\w+_)?(?:initial|sample|dummy|fake|demo|test|base)_?\w*)"
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
    """The settings for a project, and a seeds module if it has none.

    Its files are read, and what the settings name is imported in a process of its own, unless ``imports`` is false.
    ``taken`` is the file or directory with the migrations.
    """

    def __init__(self, root: Path, *, imports: bool = True) -> None:
        self.found: list[Finding] = []
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.seeds: Written | None = None
        self.root = root
        put_on_path(root)
        files = self._files = Files(root)
        self._code = Code(files)
        self._imports = imports
        self._variables = () if files.django else tuple(self._code.variables)  # that get a seeded test's URL
        value, self.taken = self._migrations()
        self.lines.append(f"migrations = {_toml_value(value)}")
        self._add_seeds()
        self._add_connections()
        for dump in dumps(files):
            self.found.append(Finding("dump", dump))
            self.lines.append(f"# dump = {_toml(dump)}  # restored first; then only the migrations that it lacks run")
        for place in sorted({name.rpartition("/")[0] for name in files.hidden} - {*files.hidden}):
            advice = f"if the application is there, install it (pip install -e .), or run: seeddb init -C {place}"
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

    def _failures(self, settings: Sequence[tuple[str, object]], variables: Iterable[str] = ()) -> list[str]:
        """Why each of the settings cannot be used; empty where it can."""
        if self._imports and settings:
            return Trial(self.root, variables).failures(settings)
        return [self._failure_to_read(value) if name == "migrations" else "" for name, value in settings]

    def _failure_to_read(self, value: object) -> str:
        with suppress(OSError):
            try:
                if value != DJANGO:
                    stages(Settings(self.root).replace(migrations=value))
            except SeedDbError as error:
                return f"{error.what}. {error.saw}"
        return ""

    def _candidates(self) -> Iterator[tuple[Finding, Migrations]]:
        """What may make the schema, the likeliest first."""
        if self._files.django:
            yield Finding("Django", self._files.django), DJANGO
        migrations = alembic(self._files)
        by_alembic = [(Finding("Alembic", name), name) for name in migrations.configurations]
        by_plugin = [(Finding("Advanced Alchemy", path), path) for path in self._code.configurations]
        if migrations.advanced and not by_plugin:
            self.notes.append(
                f"{migrations.advanced}/env.py runs only with a configuration of Advanced Alchemy, and none was found: "
                'name it, migrations = "package.module:configuration"'
            )
        yield from by_plugin if migrations.advanced else [*by_alembic, *by_plugin]
        for home in migrations.alone:
            self.notes.append(
                f"{home} has Alembic's env.py, and no alembic.ini says so: write one with script_location"
            )
        yield from self._flask(migrations.flask)
        for name in changelogs(self._files):
            self.notes.append(
                f"{name} says which of its changes Liquibase runs, so Liquibase has to run them: migrations = "
                f'{{command = "liquibase update ...", inputs = ["{name.rpartition("/")[0]}/**"]}}'
            )
        for directory, about in sql_migrations(self._files):
            yield Finding(_SQL, about), directory
        if path := self._metadata[0]:
            yield Finding(_MODELS, path), path
        for function in self._code.functions:
            if function.makes_tables and not function.command:
                yield Finding("function that makes the tables", function.path), function.path

    def _flask(self, directory: str) -> Iterator[tuple[Finding, Migrations]]:
        if directory and self._code.variables:
            app = f" --app {self._files.flask_app}" if self._files.flask_app else ""
            inputs = [f"{directory}/**/*.py"]
            yield Finding("Flask-Migrate", directory), {"command": f"flask{app} db upgrade", "inputs": inputs}
        elif directory:  # its engines lead elsewhere only in this process
            for maker in self._files.flask_makers:
                yield Finding("Flask-Migrate", f"{directory}: run with {maker}"), maker
            self.notes.append(
                f"{directory} needs an application, or a variable with the database's URL for `flask db upgrade`"
            )

    @cached_property
    def _metadata(self) -> tuple[str, list[str]]:
        return self._code.metadata()

    def _migrations(self) -> tuple[Migrations, str]:
        """The first source of a schema that can be used, and where it is; notes say why others were not taken."""
        candidates = self._candidates()
        for finding, value in candidates:
            why = self._failures([("migrations", value)], self._variables)[0]
            if why and self._variables and not self._failures([("migrations", value)])[0]:
                self.notes.append(f"{' and '.join(self._variables)} cannot hold a seeded test's URL: {why}")
                self._variables, why = (), ""
            if why and value == DJANGO and self._code.variables:
                variables = " and ".join(self._code.variables)
                if not self._failures([("migrations", value)], self._code.variables)[0]:
                    advice = f"set {variables} to a postgresql:// URL wherever seeddb and pytest run"
                    self.notes.append(f"{advice}; nothing connects to it. Without it: {why}")
                    why = ""
            if why:
                self.notes.append(f"{_place(finding)} was not taken: {why}")
                continue
            self.found.append(finding)
            if finding.what == _MODELS and (missing := self._metadata[1]):
                module, models = finding.where.partition(":")[0], ", ".join(missing)
                self.notes.append(f"importing {module} leaves out {models}: name a module that imports all models")
            for other, _ in candidates:
                if other.what in {"Alembic", "Flask-Migrate", _SQL}:
                    self.notes.append(f"{_place(other)} was not taken: {_place(finding)} was found first")
            return value, _place(finding)
        if self.notes:
            raise SeedDbError(
                "No migrations or models that were found can be used",
                saw="\n".join(self.notes),
                source=str(self.root),
                remedy="run seeddb in the environment where the project's dependencies are installed and the variables "
                "that it needs are set; --no-import writes the settings without importing anything",
            )
        raise SeedDbError(
            "The project has no migrations or models that seeddb recognises",
            saw="no manage.py, no alembic.ini, no [tool.alembic], no directory of *.sql migrations, "
            "no SQLAlchemy models",
            source=str(self.root),
            remedy="start in the project's own directory (-C DIR), or write [tool.seeddb] by hand: migrations = "
            '"package.module:function" runs any function',
        )

    def _usable(self, name: str, paths: Sequence[str]) -> list[str]:
        """Those of the import paths that can be imported; notes say why others were not taken."""
        failures = self._failures([(name, path) for path in paths], self._variables)
        self.notes += [f"{path} was not taken: {why}" for path, why in zip(paths, failures, strict=True) if why]
        return [path for path, why in zip(paths, failures, strict=True) if not why]

    def _add_seeds(self) -> None:
        """The seeds that are there; else a new module, and in a comment what seeds a Django project in other ways."""
        files, code = self._files, self._code
        functions = {} if files.django else {one.path: one for one in code.functions if not one.makes_tables}
        for function in [function for function in functions.values() if function.command]:
            command = f'{{command = "... {function.command}", inputs = ["..."]}}'
            self.notes.append(f"{function.path} was not taken: it is a command. It can be a seed: {command}")
            del functions[function.path]
        paths = self._usable("seeds", [*code.seeding, *functions])
        self.found += [
            Finding("function that seeds", f"{path}, called in {functions[path].script}")
            for path in paths
            if path in functions
        ]
        migrations: set[str] = set()
        if (self.root / self.taken).is_dir():
            with suppress(SeedDbError):
                arranged = Directory(self.root / self.taken, self.root, "").arranged()
                migrations = {f"{self.taken}/{file.name}" for file in arranged.used}
        if seeds := [*paths, *(seed for seed in sql_seeds(files) if seed not in migrations)]:
            self.found.append(Finding("seeds", ", ".join(seeds)))
            self.lines.append(f"seeds = {_toml(seeds)}")
            return
        package = "" if files.django else _package(files, code)
        if package and not self._usable("seeds", [package]):
            package = ""
        module, self.seeds = _seeds_module(files, code, package)
        self.lines.append(f"seeds = {_toml([module])}")
        entries = [_toml(module)]
        for match in filter(None, map(_DJANGO_COMMAND.fullmatch, files.modules if files.django else ())):
            self.found.append(Finding("management command", match[1]))
            entries.append(f'{{django = {_toml(match[1])}, tier = "demo"}}')
        for path in files.ending(".json", ".yaml", ".yml", ".xml", ".jsonl"):
            if files.django and "/fixtures/" in f"/{path}":
                name = path.rpartition("/")[2]
                self.found.append(Finding("fixture", name))
                entries.append(f"{{django = {_toml(f'loaddata {name}')}}}")
        if len(entries) > 1:
            self.lines.append(f"# seeds = [{', '.join(entries)}]  # with what the project has already")

    def _add_connections(self) -> None:
        files, code = self._files, self._code
        kinds = {path: "asynchronous engine" if is_async else "engine" for path, is_async in code.engines.items()}
        kinds |= dict.fromkeys(code.configurations, "configuration with an engine")
        engines = self._usable("engines", [*kinds])
        self.found += [Finding(kinds[path], path) for path in engines]
        if engines:
            self.lines.append(f"engines = {_toml(engines)}")
        elif any(finding.what == "Flask-Migrate" for finding in self.found):
            self.lines.append('engines = "all"')  # there are none but in an application's context
        elif code.hidden_engines:
            self.found.append(Finding("engine made in a function", ", ".join(code.hidden_engines)))
            self.lines.append('# engines = "all"  # in a seeded test every engine of the process goes to its database')
        # Django's connections are pointed at the database without a variable.
        variables = {} if files.django else code.variables
        for name, (file, _) in variables.items():
            self.found.append(Finding("environment variable", f"{name}, read in {file}"))
        # A clone's URL names no driver, so a variable whose URL must name one is for a person to decide.
        doubtful = [name for name, (_, has_driver) in variables.items() if has_driver and engines]
        plain = [name for name in self._variables if name not in doubtful]
        if plain:
            self.lines.append(f"env = {_toml(plain if plain[1:] else plain[0])}")
        why = "a seeded test's URL names a driver only where the variable is set and names one"
        self.lines += [f"# env = {_toml(name)}  # {why}" for name in doubtful]


def _place(finding: Finding) -> str:
    """Where it is, without what follows a directory's name."""
    return finding.where.partition(": ")[0]


def propose(root: Path, *, imports: bool = True) -> Proposal:
    """The proposal for the project in a directory, or for the one below it that its migrations belong to.

    That is where its modules can be imported from, unless pytest is configured above it.
    """
    hidden = Files(root).hidden
    parents = dict.fromkeys(package.rpartition("/")[0] for package in hidden)
    homes = [home for home in parents if home not in hidden and (_has_pytest(root / home) or not _has_pytest(root))]
    try:
        proposal = Proposal(root, imports=imports)
    except SeedDbError as error:
        likelier = error
        for home in homes:
            try:
                return Proposal(root / home, imports=imports)
            except SeedDbError as problem:
                likelier = problem
        raise likelier from None
    for home in homes:
        if f"{proposal.taken}/".startswith(f"{home}/"):
            with suppress(SeedDbError):
                return Proposal(root / home, imports=imports)
    return proposal


def _has_pytest(directory: Path) -> bool:
    """Whether pytest finds its configuration there."""
    path = pytest_file(directory).path
    return path is not None and path.parent == directory


def _toml_value(value: Migrations) -> str:
    if isinstance(value, str):
        return _toml(value)
    return f"{{{', '.join(f'{key} = {_toml(entry)}' for key, entry in value.items())}}}"


def _package(files: Files, code: Code) -> str:
    """The application's package; empty where there is none."""
    near = [model.rpartition(".")[0] for model in code.models] + [path.partition(":")[0] for path in code.engines]
    packages = [module for module, file in files.modules.items() if file.endswith(f"{module}/__init__.py")]
    tops = [module.partition(".")[0] for module in near if "." in module or module in packages]
    return [*tops, *packages, ""][0]


def _seeds_module(files: Files, code: Code, package: str) -> tuple[str, Written]:
    """A module in the application's package, or at the root where there is none; its name is free."""
    if files.django:  # the application with the most models
        apps: dict[str, list[str]] = defaultdict(list)
        for module, file in files.modules.items():
            if match := _DJANGO_MODELS.fullmatch(module):  # a module, or a package of them
                names = _DJANGO_MODEL.findall(files.beginning(file))
                apps[match[1]] += [f"{module}.{name.decode()}" for name in names]
        package = max(apps, key=lambda app: len(apps[app]), default="")
        models = apps.get(package, [])
        library, session, rows = "", "", "rows: int = 3"
        add, add_all = "{0}.objects.create(...)", "{0}.objects.bulk_create({0}(...) for number in range(rows))"
    else:
        models = code.classes
        session, library = "session: Session", "from sqlalchemy.orm import Session\n\n"
        if code.engines and all(code.engines.values()):
            session, library = "session: AsyncSession", "from sqlalchemy.ext.asyncio import AsyncSession\n\n"
        rows = f"{session}, rows: int = 3"
        add, add_all = "session.add({0}(...))", "session.add_all({0}(...) for number in range(rows))"
    place = f"{package.replace('.', '/')}/".lstrip("/")
    if package:  # which may be below `src`, also without an __init__.py
        places = [f"{source}{place}" for source in files.sources]
        place = next((path for path in places if any(name.startswith(path) for name in files.names)), place)
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
