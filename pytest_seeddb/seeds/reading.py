"""Read a module's seeders from its source, without importing it.

Importing an application to learn the names of its seeders costs more than a whole warm run. What is
read here is only what cannot mean anything else: decorated functions at the top level of a module,
with literal arguments. In any doubt `Doubt` is raised, and the module is imported instead. A build
imports the modules anyway and compares: see `pytest_seeddb.seeds.loading`.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from pytest_seeddb.application.resources import is_resource
from pytest_seeddb.seeds.annotations import ImportedHint, Unreadable, hint_of
from pytest_seeddb.seeds.declaration import TIERS, Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Doubt", "Outline", "ReadFunction", "ReadParameter", "ReadSeeder", "outline"]

SEEDER_PATHS: Final = frozenset(
    {"pytest_seeddb.seeder", "pytest_seeddb.seeds.seeder", "pytest_seeddb.seeds.declaration.seeder"}
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Doubt(Exception):  # noqa: N818  # it is no error: importing will tell
    """The source can be read in more than one way, or not without running it."""


@dataclass(frozen=True)
class ReadParameter:
    """A parameter as it stands in the source.

    Attributes:
        name: Its name.
        hint: The type that its annotation stands for.
        default: The default as Python writes it; ``None`` where there is none, empty where it is
            not a literal.
        is_database: Whether it asks for the database; else it is a profile's to set.
    """

    name: str
    hint: object
    default: str | None
    is_database: bool


@dataclass(frozen=True)
class ReadFunction:
    """A function as it stands in the source, seeder or not."""

    name: str
    line: int
    parameters: tuple[ReadParameter, ...]
    is_async: bool


@dataclass(frozen=True)
class ReadSeeder:
    """A seeder as it stands in the source.

    Attributes:
        name: What it is called.
        function: The function.
        tier: Its tier.
        idempotent: Whether it may run again where its rows are.
        after: What it names: text as it is; a function of this module as ``:roles``; an imported one
            as its dotted path, ``shop.base.roles``.
    """

    name: str
    function: ReadFunction
    tier: Tier
    after: tuple[str | Imported, ...]
    idempotent: bool = False


@dataclass(frozen=True)
class Imported:
    """Something that another module holds, by its dotted path; ``.roles`` is this module's own."""

    path: str


@dataclass(frozen=True)
class Outline:
    """What a module's source says: its seeders, its other functions, its imports."""

    seeders: tuple[ReadSeeder, ...]
    functions: dict[str, ReadFunction]
    imports: dict[str, str]


def outline(source: str, package: str, *, is_ours: Callable[[str], bool]) -> Outline:
    """Read a module.

    Args:
        source: Its text.
        package: The package that relative imports start from.
        is_ours: Whether a top-level package belongs to the project. A decorator that does may be a
            seeder in disguise.

    Raises:
        Doubt: The source does not say it all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the user's string escapes; the import says so
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # what parsing can end in
        raise Doubt from error
    return _Reading(tree, package, is_ours).outline()


class _Reading:
    def __init__(self, tree: ast.Module, package: str, is_ours: Callable[[str], bool]) -> None:
        self._tree = tree
        self._is_ours = is_ours
        self._bound = Counter(_bindings(tree))
        imports = list(_imports(tree, package))
        if any(self._bound[name] > 1 for name, path in imports if path.partition(".")[0] == "pytest_seeddb"):
            raise Doubt  # which of them is meant?
        self._imports = {name: path for name, path in imports if self._bound[name] == 1}
        self._functions = {
            node.name: node for node in tree.body if isinstance(node, Function) and self._bound[node.name] == 1
        }

    def outline(self) -> Outline:
        self._refuse_hidden()
        decorated = [(node, mark) for node in self._top_level() if (mark := self._mark(node)) is not None]
        self._refuse_other_uses([mark for _, mark in decorated])
        seeders = tuple(self._seeder(node, mark) for node, mark in decorated)
        return Outline(seeders, self._plain_functions(), self._imports)

    def _top_level(self) -> Iterator[Function]:
        return (node for node in self._tree.body if isinstance(node, Function))

    def _mark(self, node: Function) -> ast.expr | None:
        marks = [each for each in node.decorator_list if self._is_seeder(_called(each))]
        if not marks:
            return None
        if len(node.decorator_list) > 1:
            raise Doubt  # another decorator may change what the function asks for
        return marks[0]

    def _is_seeder(self, node: ast.expr) -> bool:
        return self.path(node) in SEEDER_PATHS

    def path(self, node: ast.expr) -> str | None:
        """The dotted path that a name or attribute stands for, through the module's imports."""
        if isinstance(node, ast.Name):
            return self._imports.get(node.id)
        if isinstance(node, ast.Attribute) and (of := self.path(node.value)) is not None:
            return f"{of}.{node.attr}"
        return None

    def _refuse_hidden(self) -> None:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.ImportFrom) and any(each.name == "*" for each in node.names):
                raise Doubt
            if isinstance(node, ast.Import | ast.ImportFrom) and node not in self._tree.body:
                _refuse_conditional(node)
            if isinstance(node, Function | ast.ClassDef):
                self._refuse_disguised(node)

    def _refuse_disguised(self, node: Function | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            path = self.path(_called(decorator))
            if path is not None and path not in SEEDER_PATHS and self._is_ours(path.partition(".")[0]):
                raise Doubt

    def _refuse_other_uses(self, marks: list[ast.expr]) -> None:
        expected = {id(_called(each)) for each in marks}
        for node in ast.walk(self._tree):
            used = isinstance(node, ast.Name | ast.Attribute) and self._is_seeder(node)
            if used and id(node) not in expected:
                raise Doubt  # in a loop, under a condition, under another name ...

    def _seeder(self, node: Function, mark: ast.expr) -> ReadSeeder:
        given = _keywords(mark) if isinstance(mark, ast.Call) else {}
        name = _text(given.get("name"), node.name)
        tier = _text(given.get("tier"), "essential")
        if tier not in TIERS or not name:
            raise Doubt  # the decorator itself says what is wrong
        after = self._after(given.get("after"))
        return ReadSeeder(name, self._function(node), cast("Tier", tier), after, _flag(given.get("idempotent")))

    def _after(self, node: ast.expr | None) -> tuple[str | Imported, ...]:
        if node is None:
            return ()
        listed = node.elts if isinstance(node, ast.List | ast.Tuple) else [node]
        return tuple(self._one_after(each) for each in listed)

    def _one_after(self, node: ast.expr) -> str | Imported:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.Name) and node.id in self._functions:
            return Imported(f".{node.id}")
        path = self.path(node)
        if path is None or "." not in path:
            raise Doubt
        return Imported(path)

    def _plain_functions(self) -> dict[str, ReadFunction]:
        found = {}
        for name, node in self._functions.items():
            try:
                found[name] = self._function(node)
            except Doubt:
                continue
        return found

    def _function(self, node: Function) -> ReadFunction:
        # The line that Python itself gives the function: that of its first decorator.
        line = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        parameters = tuple(self._parameter(each, default) for each, default in _parameters(node.args))
        return ReadFunction(node.name, line, parameters, isinstance(node, ast.AsyncFunctionDef))

    def _parameter(self, node: ast.arg, default: ast.expr | None) -> ReadParameter:
        try:
            hint = hint_of(node.annotation, self.path, self._bound)
        except Unreadable as error:
            raise Doubt from error
        path = hint.path if isinstance(hint, ImportedHint) else ""
        is_database = is_resource(node.arg, path)
        if path and not is_database:
            raise Doubt
        return ReadParameter(node.arg, hint, None if default is None else _literal(default), is_database)


def _bindings(tree: ast.Module) -> Iterator[str]:
    """Every name that the module's own level binds, once for each time."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (each.asname or each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        waiting.extend(ast.iter_child_nodes(node))


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Import):
            for each in node.names:
                top = each.name.partition(".")[0]
                yield (each.asname, each.name) if each.asname else (top, top)
        elif isinstance(node, ast.ImportFrom):
            start = _start(node, package)
            yield from ((each.asname or each.name, f"{start}.{each.name}") for each in node.names)


def _start(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    kept = parents[: len(parents) - node.level + 1]
    if not package or not kept:
        raise Doubt  # outside of a package; the import itself says what is wrong
    return ".".join([*kept, *([node.module] if node.module else [])])


def _refuse_conditional(node: ast.Import | ast.ImportFrom) -> None:
    """A conditional or local import of the decorator: what it stands for cannot be told."""
    module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
    names = [module, *(each.name for each in node.names)]
    if any(name.partition(".")[0] == "pytest_seeddb" for name in names):
        raise Doubt


def _called(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    given = {each.arg: each.value for each in call.keywords if each.arg}
    if call.args or len(given) != len(call.keywords) or set(given) - {"tier", "after", "name", "idempotent"}:
        raise Doubt
    return given


def _flag(node: ast.expr | None) -> bool:
    if node is None:
        return False
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return node.value
    raise Doubt


def _text(node: ast.expr | None, default: str) -> str:
    if node is None:
        return default
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise Doubt


def _parameters(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = len(positional) - len(arguments.defaults)
    yield from zip(positional, [None] * missing + list(arguments.defaults), strict=True)
    yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)


def _literal(node: ast.expr) -> str:
    try:
        return repr(ast.literal_eval(node))
    except (ValueError, TypeError):
        return ""
