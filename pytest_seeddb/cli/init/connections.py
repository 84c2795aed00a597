"""How an application reaches its database: engines that it makes, variables that it reads."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_seeddb.cli.init.code import targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_seeddb.cli.init.code import Source

_MAKERS: Final = {"create_engine": False, "create_async_engine": True}
_LIBRARIES: Final = frozenset({"sqlalchemy", "sqlmodel"})
_CACHES: Final = frozenset({"functools.cache", "functools.lru_cache"})
_OTHER_DATABASES: Final = ("sqlite", "mysql", "mariadb", "oracle", "mssql")
_VARIABLE: Final = re.compile(r"[A-Z0-9_]*(?:DATABASE|DB|POSTGRES|POSTGRESQL|PG|SQL)[A-Z0-9_]*_?(?:URL|URI|DSN)")
_FIELD: Final = re.compile(_VARIABLE.pattern, re.IGNORECASE)
_DRIVER: Final = re.compile(r"postgres(?:ql)?\+\w+://", re.IGNORECASE)
_ALIASES: Final = ("validation_alias", "alias", "env")


@dataclass(frozen=True)
class Engine:
    """An engine that a module makes when it is imported.

    Attributes:
        path: As the setting spells it: ``shop.db:engine``, or a function that gives the same one each time.
        is_async: Whether it is an asynchronous one.
    """

    path: str
    is_async: bool


@dataclass(frozen=True)
class Variable:
    """An environment variable that holds the database's URL.

    Attributes:
        name: The variable.
        file: Where it is read.
        has_driver: Whether the URL names a SQLAlchemy driver where the variable is not set, so that the
            code may not work with a URL that names none.
    """

    name: str
    file: str
    has_driver: bool = False


def engines(sources: Iterable[Source]) -> list[Engine]:
    """The engines of modules that can be imported."""
    return [engine for source in sources for engine in _engines(source)]


def hidden_engines(sources: Iterable[Source]) -> list[str]:
    """The files that make engines inside functions only: no setting can name those one by one."""
    return [each.file for each in sources if _kinds(each, each.nodes) and not list(_engines(each))]


def _engines(source: Source) -> Iterator[Engine]:
    for statement in source.statements:
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if value and (kinds := _kinds(source, ast.walk(value))):
            yield from (Engine(f"{source.module}:{name}", kinds[0]) for name in targets(statement))
        elif isinstance(statement, ast.FunctionDef) and _is_made_once(source, statement):
            yield from (
                Engine(f"{source.module}:{statement.name}", kind) for kind in _kinds(source, ast.walk(statement))[:1]
            )


def _kinds(source: Source, nodes: Iterable[ast.AST]) -> list[bool]:
    """Whether the engines that a piece of code makes are asynchronous, one for each."""
    calls = (each for each in nodes if isinstance(each, ast.Call))
    return [kind for call in calls if (kind := _maker(source, call)) is not None]


def _is_made_once(source: Source, function: ast.FunctionDef) -> bool:
    """Whether a function gives the same each time and asks for nothing, as ``@lru_cache`` does."""
    paths = [source.path(each.func if isinstance(each, ast.Call) else each) for each in function.decorator_list]
    arguments = function.args
    return not (arguments.args or arguments.kwonlyargs) and any(path in _CACHES for path in paths)


def _maker(source: Source, call: ast.Call) -> bool | None:
    """Whether a call makes an asynchronous engine; ``None`` where it makes none for PostgreSQL."""
    library, _, name = source.path(call.func).partition(".")
    kind = _MAKERS.get(name.rpartition(".")[2])
    return None if library not in _LIBRARIES or _text(call.args[:1]).startswith(_OTHER_DATABASES) else kind


def variables(sources: Iterable[Source]) -> list[Variable]:
    """The variables, each once; those for tests do not count."""
    found: dict[str, Variable] = {}
    for source in sources:
        for each in (*_read(source), *_settings(source)):
            if "TEST" not in each.name and (each.name not in found or each.has_driver):
                found[each.name] = each
    return list(found.values())


def _read(source: Source) -> Iterator[Variable]:
    """``os.environ["DATABASE_URL"]``, ``os.getenv(...)``, ``config("DATABASE_URL")`` and the like."""
    for node in source.nodes:
        if isinstance(node, ast.Subscript) and source.path(node.value) == "os.environ":
            name, default = _text([node.slice]), ""
        elif isinstance(node, ast.Call):
            defaults = [*node.args[1:2], *(each.value for each in node.keywords if each.arg == "default")]
            name, default = _text(node.args[:1]), _text(defaults[:1])
        else:
            continue
        if _VARIABLE.fullmatch(name):
            yield Variable(name, source.file, bool(_DRIVER.match(default)))


def _settings(source: Source) -> Iterator[Variable]:
    """The fields of pydantic's settings classes."""
    for node in source.nodes:
        if isinstance(node, ast.ClassDef) and any(source.path(base).endswith("Settings") for base in node.bases):
            prefix = _prefix(node)
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield from _field(field.target.id, field, prefix, source.file)


def _field(name: str, field: ast.AnnAssign, prefix: str, file: str) -> Iterator[Variable]:
    if not (_FIELD.fullmatch(name) or "PostgresDsn" in ast.unparse(field.annotation)):
        return
    value = field.value
    default = _text([value] if value else [])
    variable = (prefix + name).upper()
    if isinstance(value, ast.Call):
        given = {each.arg: each.value for each in value.keywords}
        default = _text([*value.args[:1], *([given["default"]] if "default" in given else [])])
        variable = next((text for alias in _ALIASES if alias in given and (text := _text([given[alias]]))), variable)
    yield Variable(variable.upper(), file, bool(_DRIVER.match(default)))


def _prefix(settings: ast.ClassDef) -> str:
    """``env_prefix``, in ``model_config`` or in a class ``Config``."""
    for node in ast.walk(settings):
        if isinstance(node, ast.keyword) and node.arg == "env_prefix":
            return _text([node.value])
        if isinstance(node, ast.Assign) and targets(node) == ["env_prefix"]:
            return _text([node.value])
    return ""


def _text(nodes: list[ast.expr]) -> str:
    """The text that the first of the nodes is; empty where it is none."""
    value = nodes[0].value if nodes and isinstance(nodes[0], ast.Constant) else ""
    return value if isinstance(value, str) else ""
