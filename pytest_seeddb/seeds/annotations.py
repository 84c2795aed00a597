"""The types that annotations stand for, read from source without running it."""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Optional, Union
from uuid import UUID

from pytest_seeddb.seeds.declaration import Param
from pytest_seeddb.seeds.hints import ANYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ImportedHint", "Unreadable", "hint_of"]


class Unreadable(Exception):  # noqa: N818  # it is no error: importing will tell
    """The annotation does not say by itself what it stands for."""


@dataclass(frozen=True)
class ImportedHint:
    """A type that a third-party package has, by its dotted path: ``sqlalchemy.orm.Session``."""

    path: str


_BUILTINS: Final = {each.__name__: each for each in (bool, int, float, str, list, dict, tuple, set, frozenset)}

_KNOWN: Final[Mapping[str, Any]] = {
    "decimal.Decimal": Decimal,
    "datetime.date": date,
    "datetime.datetime": datetime,
    "datetime.time": time,
    "datetime.timedelta": timedelta,
    "pathlib.Path": Path,
    "uuid.UUID": UUID,
    "typing.Any": ANYTHING,
    "typing.Literal": Literal,
    "typing.Optional": Optional,
    "typing.Union": Union,
    "typing.List": list,
    "typing.Dict": dict,
    "typing.Tuple": tuple,
    "typing.Set": set,
}

_PARAM_PATHS: Final = frozenset({"pytest_seeddb.Param", "pytest_seeddb.seeds.declaration.Param"})

# Packages whose types a function can ask for; which of them are known is not decided here.
_FRAMEWORKS: Final = frozenset({"sqlalchemy", "sqlmodel", "psycopg", "asyncpg"})


def hint_of(node: ast.expr | None, path: Callable[[ast.expr], str | None], bound: Mapping[str, int]) -> object:
    """The type that an annotation stands for.

    Args:
        node: The annotation; without one anything goes.
        path: The dotted path that an expression stands for, through the module's imports.
        bound: The names that the module itself binds; they hide the builtins.

    Raises:
        Unreadable: It names something of the project's own, or is computed.
    """
    if node is None:
        return ANYTHING
    try:
        return _Annotation(path, bound).read(node)
    except (TypeError, ValueError, SyntaxError) as error:
        raise Unreadable from error


class _Annotation:
    def __init__(self, path: Callable[[ast.expr], str | None], bound: Mapping[str, int]) -> None:
        self._path = path
        self._bound = bound

    def read(self, node: ast.expr) -> Any:  # noqa: ANN401  # a type, or something made of types
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str(text)):
                return self.read(ast.parse(text, mode="eval").body)
            case ast.Name() | ast.Attribute():
                return self._named(node)
            case ast.BinOp(op=ast.BitOr()):
                return Union[self._plain(node.left), self._plain(node.right)]  # noqa: UP007  # computed
            case ast.Subscript():
                return self._subscript(node)
        raise Unreadable

    def _named(self, node: ast.Name | ast.Attribute) -> Any:  # noqa: ANN401  # likewise
        if isinstance(node, ast.Name) and not self._bound.get(node.id) and hasattr(builtins, node.id):
            if node.id in _BUILTINS:
                return _BUILTINS[node.id]
            raise Unreadable
        path = self._path(node) or ""
        if path in _KNOWN:
            return _KNOWN[path]
        if path.partition(".")[0] in _FRAMEWORKS:
            return ImportedHint(path)
        raise Unreadable

    def _plain(self, node: ast.expr) -> Any:  # noqa: ANN401  # likewise
        """A hint inside another: a framework's type means nothing there that could be told."""
        found = self.read(node)
        if isinstance(found, ImportedHint):
            raise Unreadable
        return found

    def _subscript(self, node: ast.Subscript) -> Any:  # noqa: ANN401  # likewise
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if self._path(node.value) == "typing.Annotated":
            return Annotated[(self._plain(inside[0]), *(self._note(each) for each in inside[1:]))]
        outer = self.read(node.value)
        if isinstance(outer, ImportedHint):
            return outer  # Connection[Any] is a Connection
        if outer is Literal:
            return Literal[tuple(ast.literal_eval(each) for each in inside)]
        read = tuple(... if _is_ellipsis(each) else self._plain(each) for each in inside)
        return outer[read[0] if len(read) == 1 else read]  # Optional takes no tuple, not even of one

    def _note(self, node: ast.expr) -> Param:
        """``Param(secret=True)``; what another note means only its own package knows."""
        if not isinstance(node, ast.Call) or node.args or self._path(node.func) not in _PARAM_PATHS:
            raise Unreadable
        return Param(**{str(each.arg): ast.literal_eval(each.value) for each in node.keywords})


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis
