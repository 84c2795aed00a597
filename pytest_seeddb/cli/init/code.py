"""A project's Python code, read without importing it: its engines, the variables it reads, its models and seeders."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from pytest_seeddb.errors import SeedDbError
from pytest_seeddb.fingerprint.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_seeddb.cli.init.files import Files

_HOPS: Final = 10  # modules through which a name is followed, and bases above a class
_CANDIDATES: Final = 200  # modules to try before a project's models are said to be in no single one
_SQLMODEL: Final = "sqlmodel.SQLModel"
# A module without any of these words has nothing to recognise.
_WORDS: Final = re.compile(
    r"create_(?:async_)?engine|environ|getenv|_UR[LI]\b|_DSN\b|Settings\b|MetaData|declarative_base|DeclarativeBase"
    r"|generate_base|SQLModel|SQLAlchemy|__tablename__|\bModel\b|\bTable\(|\bseeder\b|relationship|mapped_column"
    r"|AdvancedAlchemy|__main__|\.command\(|dj_database_url|\benv\.(?:db|dj_db)"
)
# The dotted paths of what is called, derived from and decorated with.
_SEEDER: Final = re.compile(r"pytest_seeddb\.(?:.*\.)?seeder")
_ENGINE: Final = re.compile(r"(?:sqlalchemy|sqlmodel)\.(?:.*\.)?create_(async_)?engine")
_BASE: Final = re.compile(r"sqlalchemy\.(?:.*\.)?DeclarativeBase(?:NoMeta)?")
_MADE: Final = re.compile(
    r"(?:sqlalchemy|sqlmodel|flask_sqlalchemy)\.(?:.*\.)?(?:declarative_base|SQLAlchemy|(MetaData))|.*\.generate_base"
)
_CONFIGURATION: Final = re.compile(r"advanced_alchemy\.(?:.*\.)?SQLAlchemy(?:Async|Sync)Config")
_PLUGIN: Final = re.compile(r"advanced_alchemy\.(?:.*\.)?(?:SQLAlchemy(?:Init)?Plugin|AdvancedAlchemy)")
# Functions that fill a database, and what they do where they only make its tables.
_SEEDS: Final = re.compile(
    r"_?(?:init(?:iali[sz]e)?|setup|set_up|bootstrap|prepare|fill)_(?:the_)?(?:db|database|data|tables)"
    r"|(?:init|load|create|add|insert|make|import|run)_(?:\w+_)?(?:seeds?|data|fixtures|rows)|(?:\w+_)?(?:seed|populate)(?:_\w+)?"
)
_MAKES_TABLES: Final = re.compile(r"\.create_all\b")
_ADDS_ROWS: Final = re.compile(
    r"\.(?:add|add_all|merge|bulk_\w+|execute|exec|create\w*|insert\w*|save)\(|\binsert\(|\bcreate_\w+\("
)
# Pieces of code, as `ast.unparse` writes them: without comments and line breaks, and in single quotes.
_OTHER_DATABASE: Final = re.compile(r"[\w.]+\('(?:sqlite|mysql|mariadb|oracle|mssql)")
_VARIABLE: Final = re.compile(r"[A-Z0-9_]*(?:DATABASE|DB|POSTGRES|POSTGRESQL|PG|SQL)[A-Z0-9_]*_?(?:URL|URI|DSN)")
_DEFAULT_VARIABLE: Final = ("dj_database_url.config", ".env.db", ".env.db_url", ".env.dj_db_url")
_FIELD: Final = re.compile(rf"((?i:{_VARIABLE.pattern})|\w+(?=: [^=]*PostgresDsn)): ")
_PREFIX: Final = re.compile(r"\benv_prefix\W+(\w*)'")
_ALIAS: Final = re.compile(r"\b(?:validation_alias|alias|env)='(\w+)'")
_DRIVER: Final = re.compile(r"'postgres(?:ql)?\+\w+://", re.IGNORECASE)
_SQLMODEL_TABLE: Final = re.compile(r"^class .*\btable=True", re.MULTILINE)
_TABLE: Final = re.compile(
    r"(?s)\A(?!.*\b__abstract__\b).*(?:\b__table(?:name)?__\b|\b(?:mapped_c|C)olumn\(|\bMapped\[)"
)


class Source:
    """One module: the names that it defines or imports when it is imported, and what it does with them."""

    def __init__(self, module: str, file: str, tree: ast.Module) -> None:
        self.module = module
        self.file = file
        self.nodes = tuple(ast.walk(tree))
        self.definitions: list[tuple[str, ast.AST]] = []
        self.imports: dict[str, str] = {}
        self.stars: list[str] = []
        statements: list[ast.AST] = [tree]
        for node in statements:  # grows by those in `if` and `try`, which run at the import, too
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = ast.iter_child_nodes(node)
                statements += [child for child in inner if isinstance(child, ast.stmt | ast.excepthandler)]
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    self.definitions.append((node.name, node))
                case ast.Assign(targets=targets):
                    self.definitions += [(target.id, node) for target in targets if isinstance(target, ast.Name)]
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                    self.definitions.append((name, node))
                case ast.ImportFrom(names=aliases):
                    levels = node.level - file.endswith("__init__.py")
                    parents = module.split(".")[: -levels or None] if node.level else []
                    start = ".".join([*parents, *filter(None, [node.module])])
                    self.imports |= {alias.asname or alias.name: f"{start}.{alias.name}" for alias in aliases}
                    self.stars += [start] if self.imports.pop("*", "") else []
                case ast.Import(names=aliases):
                    tops = {alias: alias.name if alias.asname else alias.name.partition(".")[0] for alias in aliases}
                    self.imports |= {alias.asname or top: top for alias, top in tops.items()}
        self.defined = dict(self.definitions)
        self.decorators = [self.path(mark) for node in self.nodes for mark in getattr(node, "decorator_list", ())]

    def path(self, node: ast.AST) -> str:
        """The dotted path that a name, an attribute, or a call of one stands for."""
        node = node.func if isinstance(node, ast.Call) else node
        rest = ""
        while isinstance(node, ast.Attribute):
            rest, node = f".{node.attr}{rest}", node.value
        head = self.imports.get(node.id, f"{self.module}.{node.id}") if isinstance(node, ast.Name) else ""
        return head + rest

    def engines(self) -> dict[str, bool]:
        """The engines that a setting can name, as it spells them, and whether each is asynchronous."""
        engines: dict[str, bool] = {}
        for name, node in self.definitions:
            is_made_once = isinstance(node, ast.Assign | ast.AnnAssign) or (
                isinstance(node, ast.FunctionDef)
                and not (node.args.args or node.args.kwonlyargs)
                and any(self.path(mark) in {"functools.cache", "functools.lru_cache"} for mark in node.decorator_list)
            )
            if is_made_once and (kinds := self.engine_kinds(ast.walk(node))):
                engines[f"{self.module}:{name}"] = kinds[0]
        return engines

    def engine_kinds(self, nodes: Iterable[ast.AST]) -> list[bool]:
        """Whether the engines for PostgreSQL that a piece of code makes are asynchronous, one for each."""
        calls = [(node, _ENGINE.fullmatch(self.path(node))) for node in nodes if isinstance(node, ast.Call)]
        return [bool(maker[1]) for call, maker in calls if maker and not _OTHER_DATABASE.match(ast.unparse(call))]

    def variables(self) -> Iterator[tuple[str, bool]]:
        """``os.environ["DATABASE_URL"]``, any call with such a name, and the fields of pydantic's settings."""
        for node in self.nodes:
            match node:
                case (
                    ast.Call(func=value, args=[ast.Constant(value=str(name)), *_])
                    | ast.Subscript(value=value, slice=ast.Constant(value=str(name)))
                ) if _VARIABLE.fullmatch(name):
                    if isinstance(node, ast.Call) or self.path(value) == "os.environ":
                        yield name, bool(_DRIVER.search(ast.unparse(node)))
                case ast.Call(args=[]) if self.path(node).endswith(_DEFAULT_VARIABLE):
                    yield "DATABASE_URL", False
                case ast.ClassDef(bases=bases) if any(self.path(base).endswith("Settings") for base in bases):
                    prefix = _PREFIX.search(ast.unparse(node))
                    for code in (ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign)):
                        if field := _FIELD.match(code):
                            alias = _ALIAS.search(code)
                            name = alias[1] if alias else f"{prefix[1] if prefix else ''}{field[1]}"
                            yield name.upper(), bool(_DRIVER.search(code))


@dataclass(frozen=True)
class Function:
    """A function that fills the database when a script of the project calls it: its path, and the script's file."""

    path: str
    script: str
    makes_tables: bool
    """Whether it does that and nothing else."""
    command: str
    """The name of the command that it is for a command line; calling it would read that."""


class Code:
    """A project's modules, each read when it is first asked for, and what is recognised in them."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._read: dict[str, Source | None] = {}
        alembics = tuple(name.removesuffix("script.py.mako") for name in files.ending("/script.py.mako") if "/" in name)
        sources = [
            source
            for module, file in files.modules.items()
            if not file.startswith(alembics)
            and _WORDS.search(files.beginning(file).decode(errors="replace"))
            and (source := self._source(module))
        ]
        self.seeding = [source.module for source in sources if any(map(_SEEDER.fullmatch, source.decorators))]
        self.engines = {path: is_async for source in sources for path, is_async in source.engines().items()}
        self.configurations = list(dict.fromkeys(path for source in sources for path in self._configurations(source)))
        # No setting can name the engines of files that make them inside functions only.
        self.hidden_engines = [
            source.file for source in sources if source.engine_kinds(source.nodes) and not source.engines()
        ]
        # The environment variables with the database's URL: where each is read, and whether its default names a driver.
        self.variables: dict[str, tuple[str, bool]] = {}
        for source in sources:
            for name, has_driver in source.variables():
                if "TEST" not in name and (name not in self.variables or has_driver):
                    self.variables[name] = source.file, has_driver
        self.functions = self._functions(sources)
        models = {path: self._metadata(path) for source in sources for path in self._tables(source)}
        self._of_models = [*Counter(models.values()).most_common(1), ("", 0)][0][0]
        self.models = [path for path, metadata in models.items() if metadata == self._of_models]
        self.classes = [path for path in self.models if isinstance(self._definition(path)[2], ast.ClassDef)]

    def _configurations(self, source: Source) -> Iterator[str]:
        """Advanced Alchemy's configurations that a module makes, or gives to a framework's plugin."""
        for node in source.nodes:
            if isinstance(node, ast.Call) and _PLUGIN.fullmatch(source.path(node)):
                given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "config")]
                for argument in [part for value in given for part in getattr(value, "elts", [value])]:
                    path, home, statement = self._definition(source.path(argument))
                    if home and isinstance(statement, ast.Assign | ast.AnnAssign):
                        yield f"{home.module}:{path.rpartition('.')[2]}"
        for name, node in source.definitions:
            if isinstance(value := getattr(node, "value", None), ast.Call) and _CONFIGURATION.fullmatch(
                source.path(value)
            ):
                yield f"{source.module}:{name}"

    def _functions(self, sources: Iterable[Source]) -> list[Function]:
        """The functions that scripts call: what runs under ``__main__``, as a command, or as a script in pyproject."""
        called: dict[str, str] = {}
        for entry in self._files.scripts:
            called[entry.replace(":", ".")] = "pyproject.toml"
        for source in sources:
            commands = [name for name, node in source.definitions if self._command_of(source, node)]
            is_script = commands or any(
                isinstance(node, ast.If) and "'__main__'" in ast.unparse(node.test) for node in source.nodes
            )
            if is_script or source.module in map(_parent, called):
                paths = [source.path(node) for node in source.nodes if isinstance(node, ast.Call)]
                called |= dict.fromkeys([*paths, *(f"{source.module}.{name}" for name in commands)], source.file)
        functions: dict[str, Function] = {}
        for call, script in called.items():
            _, home, node = self._definition(call)
            if home and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _SEEDS.fullmatch(node.name):
                code = ast.unparse(node)
                only_tables = bool(_MAKES_TABLES.search(code)) and not _ADDS_ROWS.search(_MAKES_TABLES.sub("", code))
                setting = f"{home.module}:{node.name}"
                functions[setting] = Function(setting, script, only_tables, self._command_of(home, node))
        return list(functions.values())

    @staticmethod
    def _command_of(source: Source, node: ast.AST) -> str:
        """The name of the command that a decorator makes of a function; empty where none does."""
        for mark in getattr(node, "decorator_list", ()):
            if isinstance(mark, ast.Call) and source.path(mark).rpartition(".")[2] == "command":
                names = [argument.value for argument in mark.args if isinstance(argument, ast.Constant)]
                return str(names[0] if names else getattr(node, "name", "")).replace("_", "-")
        return ""

    def metadata(self) -> tuple[str, list[str]]:
        """A path to the models' ``MetaData``, in the module that imports most of them; the files of the others."""
        base = self._of_models.removesuffix(".metadata")
        homes = list(dict.fromkeys(map(_parent, self.models)))
        # The likely modules first: where the models are, or around them, and where the base is.
        likely = [*(homes if len(homes) == 1 else map(_parent, homes)), _parent(base), _parent(_parent(base)), *homes]
        candidates = map(self._source, dict.fromkeys([*likely, *self._files.modules] if self.models else []))
        wanted = {self._files.modules[module] for module in homes}
        best, missing = "", wanted
        reading = Sources(self._files.root)
        for source in islice(filter(None, candidates), _CANDIDATES):
            paths = (f"{source.module}.{name}" for name in (*source.imports, *source.defined))
            origins = {path: self._definition(path)[0] for path in paths if self._metadata(path) == self._of_models}
            path = min(origins, key=lambda path: origins[path] not in {self._of_models, base}, default="")
            lacking = wanted
            with suppress(SeedDbError):
                lacking = wanted - {part.name for part in reading.of_module(source.module)} if path else wanted
            if path and (not best or len(lacking) < len(missing)):
                suffix = "" if origins[path] == self._of_models else ".metadata"
                best, missing = f"{source.module}:{path.rpartition('.')[2]}{suffix}", lacking
            if not missing:
                break
        return best, sorted(missing)

    def _source(self, module: str) -> Source | None:
        """A module; ``None`` where it is not the project's own, or cannot be read."""
        file = self._files.modules.get(module)
        if file and module not in self._read:
            self._read[module] = None
            with suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the user's string escapes
                source = self._read[module] = Source(module, file, ast.parse(self._files.beginning(file)))
                for star, other in ((star, self._source(star)) for star in source.stars):
                    names = [*other.imports, *other.defined] if other else []
                    source.imports |= {
                        name: f"{star}.{name}" for name in names if name not in {*source.imports, *source.defined}
                    }
        return self._read.get(module)

    def _definition(self, path: str, hops: int = _HOPS) -> tuple[str, Source | None, ast.AST | None]:
        """Where the thing that a dotted path leads to is made, following imports: its path, module and statement."""
        parts = path.split(".")
        for end in range(len(parts) - 1, 0, -1):
            if source := self._source(".".join(parts[:end])):
                name, rest = parts[end], parts[end + 1 :]
                if hops and name in source.imports and name not in source.defined:
                    return self._definition(".".join([source.imports[name], *rest]), hops - 1)
                return path, source, None if rest else source.defined.get(name)
        return path, None, None

    def _metadata(self, path: str, hops: int = _HOPS) -> str:
        """The path of the ``MetaData`` that a base, a model, a table or the like leads to; empty for anything else."""
        path, source, statement = self._definition(path)
        if path.removesuffix(".metadata") == _SQLMODEL:
            return f"{_SQLMODEL}.metadata"
        if source is None or not hops:
            return ""
        parents: list[str] = []
        match statement:
            case None if path.endswith((".metadata", ".Model")):  # Flask-SQLAlchemy's models derive from db.Model
                parents = [_parent(path)]
            case ast.ClassDef(bases=bases):
                parents = [source.path(base) for base in bases]
                if any(map(_BASE.fullmatch, parents)):
                    return f"{path}.metadata"
            case ast.Assign(value=ast.Call() as call) | ast.AnnAssign(value=ast.Call() as call):
                if made := _MADE.fullmatch(source.path(call)):
                    return path if made[1] else f"{path}.metadata"
                if source.path(call).endswith(".Table"):
                    parents = [source.path(argument) for argument in call.args[1:2]]
            case ast.Assign(value=ast.Attribute() | ast.Name() as value):  # `Model = db.Model`
                parents = [source.path(value)]
        return next(filter(None, (self._metadata(parent, hops - 1) for parent in parents)), "")

    def _tables(self, source: Source) -> Iterator[str]:
        """The paths of the classes and ``Table`` objects that stand for tables of the database."""
        for name, node in source.defined.items():
            path = f"{source.module}.{name}"
            metadata = self._metadata(path)
            if metadata not in {"", path, f"{path}.metadata"}:  # what has a MetaData of its own is a base
                is_table = _SQLMODEL_TABLE if metadata.startswith(_SQLMODEL) else _TABLE
                if not isinstance(node, ast.ClassDef) or is_table.search(ast.unparse(node)):
                    yield path


def _parent(path: str) -> str:
    return path.rpartition(".")[0]
