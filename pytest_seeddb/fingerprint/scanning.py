"""The imports of a Python file, read from its text: none of the user's code runs."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pytest_seeddb.fingerprint.search_path import WORDS, path_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SCAN: Final = 3
"""The version of `scan`'s results; part of the cache's format."""

OWN_PACKAGE: Final = "."
"""In `Imports.walks`: the package that the file itself is in."""

_LOADERS: Final = frozenset({"import_module", "__import__", "run_module", "find_spec"})
# These name an object in a module: Django's and Werkzeug's, pkgutil's, pydoc's.
_OBJECT_LOADERS: Final = frozenset({"import_string", "resolve_name", "locate"})
# Calls that find modules by looking into directories.
_WALKERS: Final = frozenset({"walk_packages", "spec_from_file_location", "SourceFileLoader"})
_LISTER: Final = "iter_modules"
"""It imports nothing: the package whose ``__path__`` it is given counts, and no other."""
_WORDS: Final = tuple(word.encode() for word in _LOADERS | _OBJECT_LOADERS | _WALKERS | {_LISTER})
_BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")
_OWN_NAMES: Final = frozenset({"__package__", "__name__", "__spec__"})
_DOTTED: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_MODULE: Final = re.compile(r"\.*([^\W\d]\w*(\.\w+)*)?")
_FIELDS: Final = 4


@dataclass(frozen=True)
class Imports:
    """The imports of one file, including those in its functions.

    Attributes:
        names: ``a.b`` (a module), ``a.b:c`` (``from a.b import c``: perhaps a submodule), ``a.b:*``, ``?a.b`` (a string
            in a file that imports by computed names: perhaps a module). Relative ones begin with dots, as in Python.
        exports: The strings in ``__all__``: what ``import *`` from this file may load.
        walks: Packages all of whose modules may be loaded by computed names.
        paths: Directories that the file puts on ``sys.path``, as `path_changes` gives them.
    """

    names: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    walks: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def pack(self) -> str:
        """One line of text for the cache; no name has a space or a ``|`` in it."""
        return "|".join(" ".join(words) for words in (self.names, self.exports, self.walks, self.paths))

    @classmethod
    def unpack(cls, line: object) -> Imports | None:
        """The reverse of `pack`; ``None`` for anything that it never makes."""
        if not isinstance(line, str) or line.count("|") != _FIELDS - 1:
            return None
        return cls(*(tuple(words.split()) for words in line.split("|")))


def scan(source: bytes) -> Imports:
    """Find the imports in a file's bytes, in any encoding that it declares.

    Invalid Python imports nothing: it cannot run either, and its own digest still counts. Imports under
    ``if TYPE_CHECKING`` have no effect at run time and do not count.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the user's string escapes; Python says so elsewhere
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what parsing can end in
        return Imports()
    # Expressions are most of a file, and without these words in it none of them imports anything.
    deep = any(word in source for word in _WORDS)
    imports = _Scan(_nodes([tree], ast.iter_child_nodes if deep else _blocks)).result()
    paths = path_changes(tree) if any(word in source for word in WORDS) else ()
    return replace(imports, paths=paths) if paths else imports


def scan_units(tree: ast.Module) -> dict[str, Imports]:
    """The imports of each function and method of a file, by qualified name, and of its code at module level, by ""."""
    functions: dict[str, list[ast.AST]] = {}

    def below(node: ast.AST, prefix: str = "") -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.setdefault(f"{prefix}{child.name}", []).append(child)
                yield from (*child.decorator_list, child.args)
            else:
                yield child

    def walk(nodes: Iterable[ast.AST], prefix: str) -> Iterator[ast.AST]:
        for node in _nodes(nodes, lambda node: () if isinstance(node, ast.ClassDef) else below(node, prefix)):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from walk(below(node, f"{prefix}{node.name}."), f"{prefix}{node.name}.")

    module = _Scan(walk([tree], ""))
    units = {"": module.result()}
    for name, nodes in functions.items():
        units[name] = _Scan(_nodes(nodes, ast.iter_child_nodes), module.bound).result()
    return units


class _Scan:
    """One pass over the nodes of a syntax tree; calls are judged after it, when all imported names are known."""

    def __init__(self, nodes: Iterable[ast.AST], bound: Mapping[str, str] | None = None) -> None:
        self._names: dict[str, None] = {}
        self._exports: dict[str, None] = {}
        self._walks: dict[str, None] = {}
        self.bound: dict[str, str] = {**(bound or {})}
        self._strings: dict[str, None] = {}
        self._calls: list[ast.Call] = []
        self._paths: list[ast.Attribute] = []
        self._lists = False
        for node in nodes:
            self._visit(node)
        for call in self._calls:
            name = self._dotted_name(call.func).rpartition(".")[2]
            if name in _WALKERS:
                self._walks[OWN_PACKAGE] = None
            elif name == _LISTER:
                self._lists = True
            elif name in _LOADERS or name in _OBJECT_LOADERS:
                self._load(call, is_object=name in _OBJECT_LOADERS)

    def result(self) -> Imports:
        names = list(self._names)
        if self._walks:
            names += [f"?{text}" for text in self._strings]
        if self._walks or self._lists:
            for attribute in self._paths:
                self._walk(self._dotted_name(attribute.value))
        return Imports(tuple(names), tuple(self._exports), tuple(self._walks))

    def _visit(self, node: ast.AST) -> None:
        match node:
            case ast.Import():
                for alias in node.names:
                    self._names[alias.name] = None
                    top = alias.name.partition(".")[0]
                    self.bound[alias.asname or top] = alias.name if alias.asname else top
            case ast.ImportFrom():
                base = "." * node.level + (node.module or "")
                dot = "" if base.endswith(".") else "."
                for alias in node.names:
                    self._names[f"{base}:{alias.name}"] = None
                    self.bound[alias.asname or alias.name] = f"{base}{dot}{alias.name}"
            case ast.Call():
                self._calls.append(node)
            case ast.Attribute(attr="__path__"):
                self._paths.append(node)
            case ast.Constant(value=str(text)) if _DOTTED.fullmatch(text):
                self._strings[text] = None
            case (
                ast.Assign(targets=[ast.Name(id="__all__"), *_], value=value)
                | ast.AugAssign(target=ast.Name(id="__all__"), value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
            ):
                self._export(value)

    def _export(self, value: ast.expr) -> None:
        for node in ast.walk(value):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                self._exports[node.value] = None

    def _load(self, call: ast.Call, *, is_object: bool) -> None:
        argument = call.args[0] if call.args else next((word.value for word in call.keywords), None)
        match argument:
            case ast.Constant(value=str(literal)):
                text = literal
            case (
                ast.JoinedStr(values=[ast.Constant(value=str(start)), *_])
                | ast.BinOp(left=ast.Constant(value=str(start)), op=ast.Add())
            ):
                self._walk(start.rpartition(".")[0])
                return
            case _:
                self._walks[OWN_PACKAGE] = None
                return
        module, colon, name = text.partition(":")
        if is_object and not colon:
            module, _, name = text.rpartition(".")
        if text.startswith("."):
            words = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "package")]
            match words:
                case [ast.Constant(value=str(package))]:
                    level = len(module) - len(module.lstrip("."))
                    parents = package.split(".")
                    module = ".".join([*parents[: len(parents) - level + 1], module[level:]])
                case [ast.Name(id="__package__")]:
                    pass
                case _:
                    self._walks[OWN_PACKAGE] = None
        if module and _MODULE.fullmatch(module):
            self._names[f"{module}:{name}" if name.isidentifier() else module] = None

    def _walk(self, package: str) -> None:
        is_module = package.strip(".") and _MODULE.fullmatch(package)
        self._walks[package if is_module else OWN_PACKAGE] = None

    def _dotted_name(self, node: ast.expr) -> str:
        """``models.base`` with its first name replaced by what an import bound that to; else ""."""
        names = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id not in _OWN_NAMES:
            names.append(self.bound.get(node.id, node.id))
        return ".".join(reversed(names))


def _blocks(node: ast.AST) -> Iterator[ast.AST]:
    """The statements in a statement."""
    for field in _BLOCKS:
        yield from getattr(node, field, ())


def _nodes(first: Iterable[ast.AST], below: Callable[[ast.AST], Iterable[ast.AST]]) -> Iterator[ast.AST]:
    """The nodes that can have an effect at run time, in no particular order."""
    waiting = [*first]
    while waiting:
        node = waiting.pop()
        yield node
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                waiting += node.orelse
            case ast.If(
                test=ast.UnaryOp(
                    op=ast.Not(), operand=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")
                )
            ):
                waiting += node.body
            case _:
                waiting += below(node)
