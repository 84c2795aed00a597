"""Read a module's seeders from its source, without importing it.

Importing an application costs more than a whole warm run, and may need packages that are not there. Only what cannot
mean anything else is read here; any doubt raises `Doubt`, and the module is imported instead. A build imports the
modules anyway and compares: see `pytest_seeddb.seeds.discovery`.
"""

from __future__ import annotations

import ast
import builtins
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Optional, TypeVar, Union, cast
from uuid import UUID

from pytest_seeddb.application.resources import is_resource
from pytest_seeddb.seeds.declaration import TIERS, Param, Tier
from pytest_seeddb.seeds.hints import ANYTHING
from pytest_seeddb.seeds.kinds import Declaration, Parameter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SEEDER_PATHS: Final = frozenset(
    {"pytest_seeddb.seeder", "pytest_seeddb.seeds.seeder", "pytest_seeddb.seeds.declaration.seeder"}
)
_PARAM_PATHS: Final = frozenset({"pytest_seeddb.Param", "pytest_seeddb.seeds.declaration.Param"})

_BUILTINS: Final = {kind.__name__: kind for kind in (bool, int, float, str, list, dict, tuple, set, frozenset)}
_KNOWN: Final[Mapping[str, Any]] = {
    **{f"{kind.__module__}.{kind.__name__}": kind for kind in (Decimal, date, datetime, time, timedelta, UUID)},
    **{f"typing.{kind.__name__.capitalize()}": kind for kind in (list, dict, tuple, set)},
    "pathlib.Path": Path,
    "typing.Any": ANYTHING,
    "typing.Literal": Literal,
    "typing.Optional": Optional,
    "typing.Union": Union,
}
# Packages whose types a function can ask for; which of them are known is not decided here.
_FRAMEWORKS: Final = frozenset({"sqlalchemy", "sqlmodel", "psycopg", "asyncpg"})

Function = ast.FunctionDef | ast.AsyncFunctionDef
T = TypeVar("T", str, bool)


class Doubt(Exception):  # noqa: N818  # not an error: importing will tell
    """The source can be read in more than one way, or not without running it."""


@dataclass(frozen=True)
class _Imported:
    """A type of a third-party package, by its dotted path: ``sqlalchemy.orm.Session``."""

    path: str


@dataclass(frozen=True)
class Outline:
    """A module's seeders, its functions by name, seeders among them, and the dotted paths of its imports."""

    seeders: tuple[Declaration, ...]
    functions: dict[str, Declaration]
    imports: dict[str, str]


class Reader:
    """Reads the text of one module, whose relative imports start from ``package``.

    ``is_ours`` tells whether a top-level package belongs to the project: its decorators may be a seeder in disguise.
    ``identity`` gives that of a seeder of another module, by its dotted path, or raises `Doubt`.
    """

    def __init__(
        self, module: str, package: str, file: str, is_ours: Callable[[str], bool], identity: Callable[[str], str]
    ) -> None:
        self._module = module
        self._package = package
        self._file = file
        self._is_ours = is_ours
        self._identity = identity
        self._seeders: list[tuple[Function, dict[str, ast.expr]]] = []

    def outline(self, source: str) -> Outline:
        """What the text says of the module; raises `Doubt` where it does not say it all."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the user's string escapes; the import says so
                self._tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # what parsing can end in
            raise Doubt from error
        self._bound = Counter(_bindings(self._tree))
        imports = list(_imports(self._tree, self._package))
        if any(self._bound[name] > 1 and path.partition(".")[0] == "pytest_seeddb" for name, path in imports):
            raise Doubt  # which of them is meant?
        self._imports = {name: path for name, path in imports if self._bound[name] == 1}
        marks = set()
        nodes = [node for node in self._tree.body if isinstance(node, Function)]
        for node in nodes:
            for mark in node.decorator_list:
                if self._path(_callee(mark)) in SEEDER_PATHS:
                    if len(node.decorator_list) > 1:
                        raise Doubt  # another decorator may change what the function asks for
                    marks.add(id(_callee(mark)))
                    self._seeders.append((node, _keywords(mark)))
        self._refuse_disguises(marks)
        functions = {}
        for node in nodes:
            if self._bound[node.name] == 1:
                with suppress(Doubt):
                    functions[node.name] = self._function(node, is_seeder=False)
        return Outline(tuple(self._seeder(node, given) for node, given in self._seeders), functions, self._imports)

    def _refuse_disguises(self, marks: set[int]) -> None:
        """Other uses of the decorator, imports that may hide it, and the project's own decorators, which may be it."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name | ast.Attribute):
                if id(node) not in marks and self._path(node) in SEEDER_PATHS:
                    raise Doubt  # in a loop, under a condition, under another name ...
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names]
                modules = [node.module or "", *names] if isinstance(node, ast.ImportFrom) else names
                is_ours = any(name.partition(".")[0] == "pytest_seeddb" for name in modules)
                if "*" in names or (is_ours and node not in self._tree.body):
                    raise Doubt
            for decorator in node.decorator_list if isinstance(node, Function | ast.ClassDef) else ():
                path = self._path(_callee(decorator))
                if path and path not in SEEDER_PATHS and self._is_ours(path.partition(".")[0]):
                    raise Doubt

    def _path(self, node: ast.expr) -> str | None:
        """The dotted path that a name or attribute stands for, through the module's imports."""
        if isinstance(node, ast.Name):
            return self._imports.get(node.id)
        if isinstance(node, ast.Attribute) and (of := self._path(node.value)) is not None:
            return f"{of}.{node.attr}"
        return None

    def _seeder(self, node: Function, given: dict[str, ast.expr]) -> Declaration:
        name = _constant(given.get("name"), node.name)
        tier = _constant(given.get("tier"), "essential")
        if tier not in TIERS or not name:
            raise Doubt  # the decorator itself says what is wrong
        after = given.get("after")
        nodes = after.elts if isinstance(after, ast.List | ast.Tuple) else [after] if after else []
        return replace(
            self._function(node, is_seeder=True),
            name=name,
            tier=cast("Tier", tier),
            after=tuple(map(self._earlier, nodes)),
            idempotent=_constant(given.get("idempotent"), default=False),
        )

    def _earlier(self, node: ast.expr) -> str:
        """The identity or name of the seeder that an element of ``after`` stands for."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.Name) and self._bound[node.id] == 1 and node.id not in self._imports:
            names = [_constant(given.get("name"), own.name) for own, given in self._seeders if own.name == node.id]
            if len(names) != 1:
                raise Doubt
            return f"{self._module}:{names[0]}"
        path = self._path(node)
        if path is None or "." not in path:
            raise Doubt
        return self._identity(path)

    def _function(self, node: Function, *, is_seeder: bool) -> Declaration:
        # The line that Python itself gives the function: that of its first decorator.
        line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        positional, keywords = [*node.args.posonlyargs, *node.args.args], node.args.kwonlyargs
        missing = len(positional) - len(node.args.defaults)
        defaults = [*[None] * missing, *node.args.defaults, *node.args.kw_defaults]
        parameters = []
        for argument, default in zip([*positional, *keywords], defaults, strict=True):
            try:
                hint = ANYTHING if argument.annotation is None else self._hint(argument.annotation)
            except (TypeError, ValueError, SyntaxError) as error:
                raise Doubt from error
            path = hint.path if isinstance(hint, _Imported) else ""
            if is_resource(argument.arg, path):
                continue
            if path:
                raise Doubt
            parameters.append(Parameter(argument.arg, hint, None if default is None else _literal(default)))
        return Declaration(node.name, self._module, node.name, tuple(parameters), self._file, line, is_seeder=is_seeder)

    def _hint(self, node: ast.expr) -> Any:  # noqa: ANN401  # a type, or something made of types
        while isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode="eval").body
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Name(id=name) if not self._bound.get(name) and hasattr(builtins, name):
                if name in _BUILTINS:
                    return _BUILTINS[name]
            case ast.Name() | ast.Attribute():
                path = self._path(node) or ""
                if path in _KNOWN:
                    return _KNOWN[path]
                if path.partition(".")[0] in _FRAMEWORKS:
                    return _Imported(path)
            case ast.BinOp(op=ast.BitOr()):
                return Union[self._plain_hint(node.left), self._plain_hint(node.right)]  # noqa: UP007  # computed
            case ast.Subscript():
                return self._subscript(node)
        raise Doubt

    def _plain_hint(self, node: ast.expr) -> Any:  # noqa: ANN401  # as above
        """A hint inside another, where the meaning of a framework's type cannot be told."""
        hint = self._hint(node)
        if isinstance(hint, _Imported):
            raise Doubt
        return hint

    def _subscript(self, node: ast.Subscript) -> Any:  # noqa: ANN401  # as above
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if self._path(node.value) == "typing.Annotated":
            return Annotated[(self._plain_hint(inside[0]), *map(self._param, inside[1:]))]
        outer = self._hint(node.value)
        if isinstance(outer, _Imported):
            return outer  # Connection[Any] is a Connection
        if outer is Literal:
            return Literal[tuple(map(ast.literal_eval, inside))]
        arguments = tuple(
            ... if isinstance(item, ast.Constant) and item.value is Ellipsis else self._plain_hint(item)
            for item in inside
        )
        return outer[arguments[0] if len(arguments) == 1 else arguments]  # Optional takes no tuple, not even of one

    def _param(self, node: ast.expr) -> Param:
        """``Param(secret=True)``; only its own package knows what another note means."""
        if not isinstance(node, ast.Call) or node.args or self._path(node.func) not in _PARAM_PATHS:
            raise Doubt
        return Param(**{str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords})


def _bindings(tree: ast.Module) -> Iterator[str]:
    """Every name that the module's own level binds, once for each time."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        if isinstance(node, ast.Lambda | ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        waiting.extend(ast.iter_child_nodes(node))


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                parents = package.split(".")
                kept = parents[: len(parents) - node.level + 1]
                if not package or not kept:
                    raise Doubt  # outside of a package; the import itself says what is wrong
                start = ".".join([*kept, *([node.module] if node.module else [])])
            yield from ((alias.asname or alias.name, f"{start}.{alias.name}") for alias in node.names)


def _callee(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _keywords(decorator: ast.expr) -> dict[str, ast.expr]:
    if not isinstance(decorator, ast.Call):
        return {}
    given = {keyword.arg: keyword.value for keyword in decorator.keywords if keyword.arg}
    unknown = set(given) - {"tier", "after", "name", "idempotent"}
    if decorator.args or len(given) != len(decorator.keywords) or unknown:
        raise Doubt
    return given


def _constant(node: ast.expr | None, default: T) -> T:
    if node is None:
        return default
    if isinstance(node, ast.Constant) and isinstance(node.value, type(default)):
        return node.value
    raise Doubt


def _literal(node: ast.expr) -> str:
    try:
        return repr(ast.literal_eval(node))
    except (ValueError, TypeError):
        return ""
