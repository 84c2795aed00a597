"""Type hints of seeder parameters: what they allow, and values made to fit them.

The hints understood are those that a TOML file or a marker can give a value for. Anything else is
passed on as it is: the seeder itself will say if it minds.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin
from uuid import UUID

__all__ = ["ANYTHING", "NotFitting", "allowed", "bare", "fitted"]

ANYTHING: Final[Any] = Any
"""The hint of a parameter without one, or with one that cannot be read."""


class NotFitting(ValueError):  # noqa: N818  # read as "the value is not fitting"
    """The value is not what the hint allows."""


def fitted(value: object, hint: object) -> object:
    """``value`` as ``hint`` wants it.

    A value is converted where no information is lost and no other reading exists: ``3`` for a
    float, ``"0.10"`` for a `Decimal`, ``"2026-01-31"`` for a date, a member's name or value for an
    Enum, a list for a tuple or set. A bool is never an int, nor text a number.

    Raises:
        NotFitting: The hint does not allow it.
    """
    hint = bare(hint)
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        return _any_of(value, get_args(hint))
    if origin is Literal:
        return _literal(value, get_args(hint))
    if isinstance(origin, type):
        return _collection(value, origin, get_args(hint))
    if isinstance(hint, type):
        return _plain(value, hint)
    return value


def allowed(hint: object) -> str:
    """The values that the hint allows, in words."""
    hint = bare(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        return " or ".join(dict.fromkeys(allowed(each) for each in arguments))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a table (each value: {allowed(arguments[1])})" if len(arguments) == 2 else "a table"  # noqa: PLR2004  # key, value
    if isinstance(origin, type):
        return f"a list (each item: {allowed(arguments[0])})" if arguments else "a list"
    return _plain_words(hint)


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
    list: "a list",
    tuple: "a list",
    set: "a list",
    frozenset: "a list",
    type(None): "nothing (the parameter's default)",
}


def _plain_words(hint: object) -> str:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(repr(each.name) for each in hint)}"
    return _WORDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"


def bare(hint: object) -> object:
    """The hint without ``Annotated``'s notes; ``None`` as a type."""
    hint = type(None) if hint is None else hint
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _any_of(value: object, hints: Iterable[object]) -> object:
    hints = tuple(hints)
    # A member of the union that takes the value as it is goes before one that converts it: for
    # "Decimal | str" a text stays a text.
    for exact in (True, False):
        for hint in hints:
            try:
                found = fitted(value, hint)
            except NotFitting:
                continue
            if not exact or (found == value and type(found) is type(value)):
                return found
    raise NotFitting


def _literal(value: object, members: Iterable[object]) -> object:
    for member in members:
        # 1 == True, but they are not the same literal.
        if member == value and type(member) is type(value):
            return member
    raise NotFitting


def _collection(value: object, origin: type, arguments: tuple[Any, ...]) -> object:
    if issubclass(origin, Mapping):
        return _table(value, arguments)
    if not isinstance(value, list | tuple | set | frozenset):
        raise NotFitting
    make = origin if origin in {tuple, set, frozenset} else list
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(arguments) != len(value):
            raise NotFitting
        return tuple(fitted(each, hint) for each, hint in zip(value, arguments, strict=True))
    item = arguments[0] if arguments else ANYTHING
    return make(fitted(each, item) for each in value)


def _table(value: object, arguments: tuple[Any, ...]) -> object:
    if not isinstance(value, Mapping):
        raise NotFitting
    key, item = arguments or (ANYTHING, ANYTHING)
    return {fitted(name, key): fitted(each, item) for name, each in value.items()}


def _plain(value: object, hint: type) -> object:
    if hint in {object, ANYTHING} or (isinstance(value, hint) and not _disguised(value, hint)):
        return value
    if issubclass(hint, Enum):
        return _member(value, hint)
    if hint in {list, tuple, set, frozenset, dict, Sequence, Mapping, Iterable}:
        return _collection(value, hint, ())
    converter = _CONVERTERS.get(hint)
    if converter is None:
        raise NotFitting
    return _converted(value, converter)


def _disguised(value: object, hint: type) -> bool:
    # In Python a bool is an int and a datetime is a date; in a table neither was meant.
    return (isinstance(value, bool) and hint is int) or (isinstance(value, datetime) and hint is date)


def _member(value: object, enum: type[Enum]) -> object:
    if isinstance(value, str) and value in enum.__members__:
        return enum[value]
    for member in enum:
        if member.value == value and type(member.value) is type(value):
            return member
    raise NotFitting


def _converted(value: object, converter: tuple[tuple[type, ...], Callable[[Any], object]]) -> object:
    kinds, convert = converter
    if type(value) not in kinds:
        raise NotFitting
    try:
        return convert(value)
    except (ValueError, InvalidOperation, OverflowError):
        raise NotFitting from None


# What each hint takes beside its own values. Exact types, so that a bool never passes for an int.
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
