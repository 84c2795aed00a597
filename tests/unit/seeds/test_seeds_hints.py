"""Values of seeder parameters, held against type hints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import pytest

from pytest_seeddb.seeds.hints import convert, describe
from pytest_seeddb.settings.converters import NotAllowed


class Color(Enum):
    RED = "r"
    BLUE = 2


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3),
        (True, bool, True),
        (3, float, 3.0),
        ("x", str, "x"),
        ("0.10", Decimal, Decimal("0.10")),
        (3, Decimal, Decimal(3)),
        ("a/b", Path, Path("a/b")),
        ("2026-01-31", date, date(2026, 1, 31)),
        ("2026-01-31T12:00:00+00:00", datetime, datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("12:30", time, time(12, 30)),
        (90, timedelta, timedelta(seconds=90)),
        ("12345678123456781234567812345678", UUID, UUID("12345678123456781234567812345678")),
        ("RED", Color, Color.RED),
        ("r", Color, Color.RED),
        (2, Color, Color.BLUE),
        (Color.RED, Color, Color.RED),
        ("a", Literal["a", 1], "a"),
        ([1, 2], list[int], [1, 2]),
        ((1, 2), list[int], [1, 2]),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, "a"], tuple[int, str], (1, "a")),
        ([1, 1], set[int], {1}),
        (["1.5"], Sequence[Decimal], [Decimal("1.5")]),
        ([1], list, [1]),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"a": 1}, Mapping[str, int], {"a": 1}),
        ({"a": 1}, dict, {"a": 1}),
        (None, Optional[int], None),  # noqa: UP045 - users write it
        (3, int | None, 3),
        ("3", Union[Decimal, str], "3"),  # noqa: UP007 - likewise
        ("2026-01-31", date | int, date(2026, 1, 31)),
        (3, Annotated[int, "positive"], 3),
        (object, Any, object),
        (3, object, 3),
        (None, None, None),
    ],
)
def test_a_value_becomes_what_the_hint_wants(value, hint, expected):
    found = convert(value, hint)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        (True, int, "a whole number"),
        (1, bool, "true or false"),
        ("3", int, "a whole number"),
        (3.5, int, "a whole number"),
        (True, float, "a number"),
        (3, str, "text"),
        (0.1, Decimal, 'a decimal number in quotes ("0.10") or a whole number'),
        ("ten", Decimal, 'a decimal number in quotes ("0.10") or a whole number'),
        ("tomorrow", date, "a date (2026-01-31)"),
        (datetime(2026, 1, 31, tzinfo=UTC), date, "a date (2026-01-31)"),
        ("GREEN", Color, "one of 'RED', 'BLUE'"),
        (True, Literal[1, "a"], "one of 1, 'a'"),
        ("abc", list[str], "a list (each item: text)"),
        ([1, "a"], list[int], "a list (each item: a whole number)"),
        ([1], tuple[int, str], "a list (each item: a whole number)"),
        ({"a": "b"}, dict[str, int], "a table (each value: a whole number)"),
        ("a", int | None, "a whole number or nothing (the parameter's default)"),
        (3, Path, "a path"),
        (10**400, timedelta, "a number of seconds"),
        (3, ValueError, "a ValueError"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_what_is_allowed_is_said(value, hint, words):
    with pytest.raises(NotAllowed):
        convert(value, hint)
    assert describe(hint) == words
