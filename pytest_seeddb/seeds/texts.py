"""Values of parameters that were given as text: in the environment, or on the command line."""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, Final, Literal, Union, get_args, get_origin

from pytest_seeddb.seeds.hints import ANYTHING, NotFitting, bare, fitted

__all__ = ["hint_for", "read_text"]

_WORDS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_NOTHING: Final = frozenset({"", "none", "null"})
_LISTS: Final = (list, tuple, set, frozenset)


def hint_for(hint: object, default: str | None) -> object:
    """The hint to read a text by: that of the default where the parameter has none of its own.

    Args:
        hint: The parameter's.
        default: Its default as Python writes it, where it is a literal.
    """
    if hint is not ANYTHING or not default:
        return hint
    value = ast.literal_eval(default)
    return hint if value is None else type(value)


def read_text(text: str, hint: object) -> object:
    """The value that a text stands for where ``hint`` is wanted.

    Numbers and dates as they are written, ``true`` or ``no`` for a bool, a member's name or value
    for an Enum or a Literal, ``a,b`` or JSON for a list, JSON for a table, and nothing, ``none`` or
    ``null`` for ``None`` where that is allowed.

    Raises:
        NotFitting: The hint does not allow it.
    """
    hint = bare(hint)
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        return _any_of(text, get_args(hint))
    if origin is Literal:
        return _named(text, {str(each): each for each in get_args(hint)})
    kind: Any = origin or hint
    if isinstance(kind, type) and issubclass(kind, _LISTS):
        return fitted(_items(text, (*get_args(hint), ANYTHING)[0]), hint)
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return fitted(_json(text, dict), hint)
    return fitted(_plain(text, kind), hint)


def _any_of(text: str, hints: Iterable[object]) -> object:
    hints = tuple(hints)
    if type(None) in hints and text.strip().lower() in _NOTHING:
        return None
    # Text takes everything, so it comes last.
    for hint in sorted(hints, key=lambda each: each is str):
        if hint is not type(None):
            with suppress(NotFitting):
                return read_text(text, hint)
    raise NotFitting


def _plain(text: str, kind: object) -> object:
    if kind is bool:
        return _named(text.strip().lower(), _WORDS)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _named(text, {str(each.value): each for each in kind} | dict(kind.__members__))
    if kind in {int, float}:
        try:
            return kind(text)
        except ValueError:
            raise NotFitting from None
    return text


def _items(text: str, hint: object) -> list[object]:
    if text.lstrip().startswith("["):
        found: list[object] = _json(text, list)
        return found
    return [read_text(each.strip(), hint) for each in text.split(",") if each.strip()]


def _json(text: str, kind: type) -> Any:  # noqa: ANN401 - JSON
    with suppress(ValueError):
        if isinstance(found := json.loads(text), kind):
            return found
    raise NotFitting


def _named(text: str, members: Mapping[str, object]) -> object:
    if text not in members:
        raise NotFitting
    return members[text]
