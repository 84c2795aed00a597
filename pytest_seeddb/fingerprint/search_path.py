"""Directories that a file puts on ``sys.path``, read from its text: none of the user's code runs.

The usual spellings are understood: strings, ``__file__``, ``os.path`` and ``pathlib``, through variables of the file.
What is spelled otherwise is known from what the process loads, see `pytest_seeddb.fingerprint.recording`.
"""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WORDS: Final = (b"sys", b"addsitedir")
"""A file without these words changes no path."""

_FILE: Final = "@"
"""Begins a path that leads from the file itself; the others lead from the working directory."""
_UP: Final = "/.."
_SAME: Final = frozenset({"abspath", "realpath", "normpath", "fspath", "expanduser", "str", "resolve", "absolute"})
_PATHS: Final = frozenset({"Path", "PurePath", "PosixPath", "join", "joinpath"})
_CHOICES: Final = 16
"""How many values of one expression are tried."""


@dataclass(frozen=True)
class Search:
    """Directories in front of ``sys.path`` and at its end."""

    front: tuple[str, ...] = ()
    end: tuple[str, ...] = ()

    def __or__(self, other: Search) -> Search:
        return Search(tuple(dict.fromkeys(self.front + other.front)), tuple(dict.fromkeys(self.end + other.end)))

    @classmethod
    def of(cls, texts: Iterable[str], file: str, root: str) -> Search:
        """What `path_changes` gave, for a file of a project."""
        front: list[str] = []
        end: list[str] = []
        for text in texts:
            place = unquote(text[1:])
            base, place = (file, place[1:].lstrip("/")) if place.startswith(_FILE) else (root, place)
            directory = os.path.normpath(os.path.join(base, place))  # noqa: PTH118 - strings, as `Modules` has them
            (front if text[0] == "<" else end).append(directory)
        return cls(tuple(dict.fromkeys(front)), tuple(dict.fromkeys(end)))


def may_add(data: bytes) -> bool:
    """Whether a file with these bytes may put anything on ``sys.path``."""
    return b"addsitedir" in data or (b"sys" in data and b"path" in data)


def path_changes(tree: ast.AST) -> tuple[str, ...]:
    """The directories that the file adds: ``<`` those in front, ``>`` those at the end; quoted, each one word."""
    return tuple(dict.fromkeys(mark + quote(path, safe="/@.") for mark, path in _Changes(tree).all()))


class _Changes:
    def __init__(self, tree: ast.AST) -> None:
        self._values: dict[str, list[ast.expr]] = {}
        self._lists = {"sys.path"}
        self._nodes = [*ast.walk(tree)]
        for node in self._nodes:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self._values.setdefault(name, []).append(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self._values.setdefault(name, []).append(value)
                case ast.NamedExpr(target=ast.Name(id=name), value=value):
                    self._values.setdefault(name, []).append(value)
                case (
                    ast.For(target=ast.Name(id=name), iter=values)
                    | ast.comprehension(target=ast.Name(id=name), iter=values)
                ):
                    self._values.setdefault(name, []).extend(self._items(values))
                case ast.Import(names=names):
                    self._lists |= {f"{one.asname}.path" for one in names if one.name == "sys" and one.asname}
                case ast.ImportFrom(module="sys", names=names):
                    self._lists |= {one.asname or one.name for one in names if one.name == "path"}

    def all(self) -> Iterator[tuple[str, str]]:
        for node in self._nodes:
            match node:
                case ast.Call(func=ast.Attribute(attr="insert", value=path), args=[_, value]) if self._is_path(path):
                    yield from (("<", text) for text in self._texts(value))
                case ast.Call(func=ast.Attribute(attr="append", value=path), args=[value]) if self._is_path(path):
                    yield from ((">", text) for text in self._texts(value))
                case ast.Call(func=ast.Attribute(attr="addsitedir") | ast.Name(id="addsitedir"), args=[value, *_]):
                    yield from ((">", text) for text in self._texts(value))
                case (
                    ast.Call(func=ast.Attribute(attr="extend", value=path), args=[values])
                    | ast.AugAssign(target=path, value=values)
                ) if self._is_path(path):
                    yield from ((">", text) for item in self._items(values) for text in self._texts(item))
                case ast.Assign(targets=[ast.Subscript(value=path) | path], value=values) if self._is_path(path):
                    yield from (("<", text) for item in self._items(values) for text in self._texts(item))

    def _is_path(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in self._lists

    def _items(self, node: ast.expr) -> Iterator[ast.expr]:
        """The expressions that a list is made of."""
        match node:
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                yield from (item.value if isinstance(item, ast.Starred) else item for item in items)
            case ast.ListComp(elt=item) | ast.GeneratorExp(elt=item):
                yield item
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                yield from (*self._items(left), *self._items(right))
            case ast.Call(func=ast.Name(id="map" | "list" | "tuple" | "reversed"), args=[*_, values]):
                yield from self._items(values)
            case ast.Name(id=name):
                for value in self._values.get(name, ()):
                    if isinstance(value, ast.List | ast.Tuple):
                        yield from value.elts

    def _texts(self, node: ast.expr, above: tuple[str, ...] = ()) -> list[str]:
        """The paths that an expression may be; none where that cannot be told."""
        return [*islice(self._path_of(node, above), _CHOICES)]

    def _path_of(self, node: ast.expr, above: tuple[str, ...]) -> Iterator[str]:
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.Name(id="__file__"):
                yield _FILE
            case ast.Name(id=name) if name not in above:
                for value in self._values.get(name, ()):
                    yield from self._path_of(value, (*above, name))
            case ast.Attribute() | ast.Subscript():
                yield from self._above(node, above)
            case ast.BinOp(op=ast.Div(), left=left, right=right):
                yield from self._joined((left, right), above)
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                yield from map("".join, product(self._texts(left, above), self._texts(right, above)))
            case ast.JoinedStr(values=values):
                parts = [value.value if isinstance(value, ast.FormattedValue) else value for value in values]
                yield from map("".join, product(*(self._texts(part, above) for part in parts)))
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
                yield from self._result(name, node, above)

    def _above(self, node: ast.Attribute | ast.Subscript, above: tuple[str, ...]) -> Iterator[str]:
        match node:
            case ast.Attribute(attr="parent", value=path):
                yield from (text + _UP for text in self._texts(path, above))
            case ast.Attribute(attr="pardir"):
                yield ".."
            case ast.Subscript(value=ast.Attribute(attr="parents", value=path), slice=ast.Constant(value=int(number))):
                yield from (text + _UP * (number + 1) for text in self._texts(path, above))

    def _result(self, name: str, call: ast.Call, above: tuple[str, ...]) -> Iterator[str]:
        own = [call.func.value] if isinstance(call.func, ast.Attribute) else []
        if name == "dirname":
            yield from (text + _UP for argument in call.args for text in self._texts(argument, above))
        elif name in {"getcwd", "cwd"}:
            yield "."
        elif name in _SAME:
            yield from (text for value in call.args or own for text in self._texts(value, above))
        elif name in _PATHS:
            yield from self._joined((*(own if name == "joinpath" else ()), *call.args), above)

    def _joined(self, nodes: Iterable[ast.expr], above: tuple[str, ...]) -> Iterator[str]:
        for texts in product(*(self._texts(node, above) for node in nodes)):
            path = ""
            for text in texts:
                path = text if not path or text.startswith((_FILE, "/")) else f"{path}/{text}"
            yield path
