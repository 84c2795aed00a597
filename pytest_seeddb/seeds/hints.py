"""Type hints of seeder parameters: which values they allow, and how a value or a text is made to fit."""

from __future__ import annotations

import ast
import json
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

from pytest_seeddb.settings.converters import YES_NO, NotAllowed

ANYTHING: Final[Any] = Any
"""The hint of a parameter without one, or with one that cannot be read."""

_UNIONS: Final = (Union, types.UnionType)
_LISTS: Final = (list, tuple, set, frozenset)
_COLLECTIONS: Final = (*_LISTS, dict, Sequence, Mapping, Iterable)
_NOTHING: Final = frozenset({"", "none", "null"})

_WORDS: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Decimal: 'a decimal number in quotes ("0.10") or a whole number',
    Path: "a path",
    date: "a date (2026-01-31)",
    datetime: "a date with a time (2026-01-31T12:00:00)",
    time: "a time (12:00:00)",
    timedelta: "a number of seconds",
    UUID: "a UUID",
    dict: "a table",
    **dict.fromkeys(_LISTS, "a list"),
    type(None): "nothing (the parameter's default)",
}

# The values that each type takes beside its own. Exact types, so that a bool never passes for an int.
_CONVERTERS: Final[Mapping[type, tuple[tuple[type, ...], Callable[[Any], object]]]] = {
    float: ((int,), float),
    Decimal: ((str, int), Decimal),
    Path: ((str,), Path),
    date: ((str,), date.fromisoformat),
    datetime: ((str,), datetime.fromisoformat),
    time: ((str,), time.fromisoformat),
    timedelta: ((int, float), lambda seconds: timedelta(seconds=seconds)),
    UUID: ((str,), UUID),
}


def hint_for(hint: object, default: str | None) -> object:
    """The parameter's hint, or else the type of its default, given as Python writes it."""
    if hint is not ANYTHING or not default:
        return hint
    value = ast.literal_eval(default)
    return hint if value is None else type(value)


def describe(hint: object) -> str:
    """The values that the hint allows, in words."""
    hint = _bare(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        return " or ".join(dict.fromkeys(map(describe, arguments)))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a table (each value: {describe(arguments[1])})" if len(arguments) == 2 else "a table"  # noqa: PLR2004  # key, value
    if isinstance(origin, type):
        return f"a list (each item: {describe(arguments[0])})" if arguments else "a list"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(repr(member.name) for member in hint)}"
    return _WORDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def convert(value: object, hint: object) -> object:
    """``value`` as ``hint`` wants it, without loss and only where no other reading exists; raises `NotAllowed`.

    ``3`` becomes a float, ``"0.10"`` a `Decimal`, a name or value an Enum's member. A bool is never an int, nor text a
    number.
    """
    hint = _bare(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        # A member of the union that takes the value as it is goes before one that converts it: for
        # "Decimal | str" a text stays a text.
        for exact in (True, False):
            for member in arguments:
                with suppress(NotAllowed):
                    converted = convert(value, member)
                    if not exact or _same(converted, value):
                        return converted
        raise NotAllowed
    if origin is Literal:
        return _first(arguments, lambda member: _same(member, value))
    if isinstance(origin, type):
        return _collection(value, origin, arguments)
    return _plain(value, hint) if isinstance(hint, type) else value


def convert_text(text: str, hint: object) -> object:
    """The value that a text stands for where ``hint`` is wanted; raises `NotAllowed`.

    ``true`` or ``no`` is a bool, ``a,b`` or JSON a list, JSON a table, and nothing, ``none`` or ``null`` is ``None``.
    """
    hint = _bare(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in _UNIONS:
        if type(None) in arguments and text.strip().lower() in _NOTHING:
            return None
        for member in sorted(arguments, key=lambda member: member is str):  # text takes everything, so it comes last
            if member is not type(None):
                with suppress(NotAllowed):
                    return convert_text(text, member)
        raise NotAllowed
    if origin is Literal:
        return _first(arguments, lambda member: str(member) == text)
    value: object = text
    with suppress(ValueError, KeyError):  # `convert` then refuses the text itself
        value = _parse(text, origin or hint, arguments)
    return convert(value, hint)


def _parse(text: str, kind: Any, arguments: tuple[Any, ...]) -> object:  # noqa: ANN401  # any type
    if kind is bool:
        return YES_NO[text.strip().lower()]
    if kind in {int, float}:
        return kind(text)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _member(kind, text, lambda member: str(member.value) == text)
    if isinstance(kind, type) and issubclass(kind, (*_LISTS, Mapping)):
        if text.lstrip().startswith("[") or issubclass(kind, Mapping):
            return json.loads(text)
        item = arguments[0] if arguments else ANYTHING
        return [convert_text(member.strip(), item) for member in text.split(",") if member.strip()]
    return text


def _bare(hint: object) -> object:
    """The hint without ``Annotated``'s notes; ``None`` as a type."""
    hint = type(None) if hint is None else hint
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _same(one: object, other: object) -> bool:
    """Whether they are equal and of one type: ``1 == True``, but they are two literals."""
    return one == other and type(one) is type(other)


def _first(members: Iterable[object], fits: Callable[[Any], bool]) -> object:
    for member in members:
        if fits(member):
            return member
    raise NotAllowed


def _member(kind: type[Enum], name: object, fits: Callable[[Any], bool]) -> object:
    """By its name, which goes before another's value, or by what fits."""
    return kind[name] if isinstance(name, str) and name in kind.__members__ else _first(kind, fits)


def _collection(value: object, kind: type, arguments: tuple[Any, ...]) -> object:
    if issubclass(kind, Mapping):
        if not isinstance(value, Mapping):
            raise NotAllowed
        key, item = arguments or (ANYTHING, ANYTHING)
        return {convert(name, key): convert(member, item) for name, member in value.items()}
    if not isinstance(value, _LISTS):
        raise NotAllowed
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(value):
            raise NotAllowed
        return tuple(convert(member, hint) for member, hint in zip(value, arguments, strict=True))
    item = arguments[0] if arguments else ANYTHING
    return (kind if kind in _LISTS else list)(convert(member, item) for member in value)


def _plain(value: object, kind: type) -> object:
    # In Python a bool is an int and a datetime is a date; in a table neither was meant.
    disguised = (isinstance(value, bool) and kind is int) or (isinstance(value, datetime) and kind is date)
    if kind in {object, ANYTHING} or (isinstance(value, kind) and not disguised):
        return value
    if issubclass(kind, Enum):
        return _member(kind, value, lambda member: _same(member.value, value))
    if kind in _COLLECTIONS:
        return _collection(value, kind, ())
    types_taken, converter = _CONVERTERS.get(kind, ((), None))
    if converter is None or type(value) not in types_taken:
        raise NotAllowed
    try:
        return converter(value)
    except (ValueError, InvalidOperation, OverflowError):
        raise NotAllowed from None
