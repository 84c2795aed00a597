"""Values given as text become what the parameter's hint says, or are refused."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Optional

import pytest

from pytest_seeddb.seeds.declaration import Param
from pytest_seeddb.seeds.hints import ANYTHING, convert_text, hint_for
from pytest_seeddb.settings.converters import NotAllowed


class Size(Enum):
    SMALL = "s"
    LARGE = 2


GOOD = [
    ("3", int, 3),
    ("-3", int, -3),
    ("1.5", float, 1.5),
    ("2", float, 2.0),
    ("true", bool, True),
    ("No", bool, False),
    ("0", bool, False),
    ("text", str, "text"),
    ("3", str, "3"),
    ("", str, ""),
    ("a, b,c", list[str], ["a", "b", "c"]),
    ("1,2", list[int], [1, 2]),
    ("[1, 2]", list[int], [1, 2]),
    ("1,2", tuple[int, ...], (1, 2)),
    ("a,a", set[str], {"a"}),
    ('{"a": 1}', dict[str, int], {"a": 1}),
    ("SMALL", Size, Size.SMALL),
    ("s", Size, Size.SMALL),
    ("2", Size, Size.LARGE),
    ("dark", Literal["dark", "light"], "dark"),
    ("2", Literal[1, 2], 2),
    ("", Optional[int], None),  # noqa: UP045 - people write it so
    ("none", int | None, None),
    ("4", int | None, 4),
    ("none", str | None, None),
    ("x", int | str, "x"),
    ("4", str | int, 4),
    ("0.10", Decimal, Decimal("0.10")),
    ("2026-01-31", date, date(2026, 1, 31)),
    ("3", Annotated[int, Param(secret=True)], 3),
    ("anything", ANYTHING, "anything"),
]
BAD = [
    ("many", int),
    ("1.5", int),
    ("", int),
    ("maybe", bool),
    ("2", bool),
    ("a,b", list[int]),
    ("[1", list[int]),
    ("[1]", dict),
    ("HUGE", Size),
    ("blue", Literal["dark", "light"]),
    ("x", int | None),
    ("31.1.2026", date),
]


@pytest.mark.parametrize(("text", "hint", "value"), GOOD)
def test_a_text_becomes_what_the_hint_says(text, hint, value):
    found = convert_text(text, hint)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("text", "hint"), BAD)
def test_a_text_that_does_not_fit_is_refused(text, hint):
    with pytest.raises(NotAllowed):
        convert_text(text, hint)


@pytest.mark.parametrize(
    ("hint", "default", "value"), [(ANYTHING, "3", 7), (ANYTHING, "'x'", "7"), (ANYTHING, "None", "7"), (str, "3", "7")]
)
def test_without_a_hint_the_default_says_what_is_wanted(hint, default, value):
    assert convert_text("7", hint_for(hint, default)) == value
