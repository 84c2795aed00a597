"""What `Diff` is equal to, what it says of a difference, and what it refuses to compare."""

from __future__ import annotations

import copy
import pickle
from datetime import date, datetime
from decimal import Decimal

import pytest

from pytest_seeddb.clones.diff import Diff
from pytest_seeddb.errors import SeedDbError

NOW = datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001 - as a timestamp without time zone
COLUMNS = {"orders": ("id", "customer_id", "total", "placed"), "items": ("id", "name"), "s.u": ("v",)}


def order(number, customer=1, total="25.00"):
    return {"id": number, "customer_id": customer, "total": Decimal(total), "placed": NOW}


def diff(rows, **more):
    return Diff(rows, columns=COLUMNS, **more)


ONE = diff({"orders": {"inserted": [order(7)]}})
TWO = diff({"orders": {"inserted": [order(7), order(8, customer=2)]}})
UPDATED = diff({"items": {"updated": [{"old": {"id": 1, "name": "a"}, "new": {"id": 1, "name": "b"}}]}})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (diff({}), {}),
        (ONE, {"orders": {"inserted": [{"customer_id": 1, "total": 25}]}}),
        (ONE, {"public.orders": {"inserted": [{"id": int, "placed": lambda value: value.year > 2000}]}}),
        (ONE, {"orders": {"inserted": 1}}),
        (ONE, {"orders": {"inserted": [{}], "deleted": []}}),
        (TWO, {"orders": {"inserted": [{"customer_id": 2}, {"customer_id": 1}]}}),
        # The first row that fits would take the second one's place.
        (TWO, {"orders": {"inserted": [{"id": int}, {"id": 7}]}}),
        (UPDATED, {"items": {"updated": [{"old": {"name": "a"}, "new": {"id": 1, "name": "b"}}]}}),
        (UPDATED, {"items": {"updated": [{"new": {"name": str}}]}}),
        (diff({"orders": {"inserted": 9000}}), {"orders": {"inserted": 9000}}),
        (diff({"s.u": {"deleted": [{"v": None}]}}), {"s.u": {"deleted": [{"v": None}]}}),
    ],
)
def test_it_is_equal_to_what_names_the_same_rows(found, expected):
    assert found == expected
    assert expected == found
    assert (found != expected) is False


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        (ONE, {}, "orders, inserted: not expected id=7"),
        (ONE, {"orders": {"inserted": []}}, "orders, inserted: not expected id=7"),
        (ONE, {"orders": {"inserted": [{"id": 8}]}}, "orders, inserted: no row has id=8\n  the closest one has id=7"),
        (ONE, {"orders": {"inserted": [{"id": 7}, {"id": 7}]}}, "orders, inserted: no row has id=7"),
        (ONE, {"orders": {"inserted": 2}}, "orders, inserted: 1 rows, expected were 2"),
        (ONE, {"orders": {"inserted": [{"id": 7}]}, "items": {"deleted": [{}]}}, "items, deleted: no row has "),
        (TWO, {"orders": {"inserted": [{"id": 7}]}}, "orders, inserted: not expected id=8"),
        (UPDATED, {"items": {"updated": [{"new": {"name": "c"}}]}}, "the closest one has new name='b'"),
        (UPDATED, {"items": {"inserted": [{}], "updated": [{}]}}, "items, inserted: no row has "),
        (diff({}, beyond_rows=True), {}, "more changed than rows"),
    ],
)
def test_a_difference_is_told_by_table_kind_row_and_column(found, expected, told):
    assert found != expected
    assert told in "\n".join(found.differences(expected))


def test_with_whole_rows_an_expectation_names_every_column():
    found = Diff({"items": {"inserted": [{"id": 1, "name": "a"}]}}, columns=COLUMNS, whole=True)
    assert found == {"items": {"inserted": [{"id": 1, "name": str}]}}
    assert found != {"items": {"inserted": [{"id": 1}]}}


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        (ONE, {"order": {"inserted": []}}, "no table 'order'.*Did you mean 'orders'"),
        (ONE, {"orders": {"insert": []}}, "no kind of change 'insert'.*Did you mean 'inserted'"),
        (ONE, {"orders": {"inserted": [{"totl": 1}]}}, "no column of orders 'totl'.*Did you mean 'total'"),
        (ONE, {"items": {"deleted": [{"nam": 1}]}}, "no column of items 'nam'"),
        (UPDATED, {"items": {"updated": [{"name": "b"}]}}, "no state of an updated row 'name'"),
        (UPDATED, {"items": {"updated": [{"new": {"nam": "b"}}]}}, "no column of items 'nam'"),
        (TWO, {"orders": {"inserted": [{"id": 7}, {"total": 25}]}}, "do not name the same columns"),
        (diff({"orders": {"inserted": 9000}}), {"orders": {"inserted": [{}]}}, r"diff\(tables=\['orders'\]\)"),
    ],
)
def test_what_can_never_be_equal_is_an_error(found, expected, told):
    with pytest.raises(SeedDbError, match=f"(?s){told}"):
        assert found == expected


def test_it_prints_as_a_list_without_secrets():
    found = diff(
        {
            "orders": {"inserted": [order(number) for number in range(7)]},
            "items": {
                "updated": [
                    {"old": {"id": 1, "name": "a", "password": "x"}, "new": {"id": 1, "name": "b", "password": "y"}}
                ],
                "deleted": [{"id": 2, "name": "long " * 100}],
            },
        },
        beyond_rows=True,
    )
    lines = str(found).splitlines()
    assert lines[0:2] == [
        "orders",
        "  + id=0, customer_id=1, total=Decimal('25.00'), placed=datetime.datetime(2026, 1, 2, 3, 4)",
    ]
    assert lines[6:9] == ["  + and 2 more", "items", "  ~ id=1, name='a' -> 'b', password=*** -> ***"]
    assert lines[9].startswith("  - id=2, name='long long")
    assert len(lines[9]) < 90
    assert lines[10].startswith("more changed than rows")
    assert str(diff({})) == "no row was changed"


def test_it_is_plain_data_that_can_be_copied_and_kept():
    assert type(ONE.to_dict()) is dict
    assert ONE.to_dict() == {"orders": {"inserted": [order(7)]}}
    assert repr(ONE) == repr(ONE.to_dict())
    for other in (copy.deepcopy(ONE), pickle.loads(pickle.dumps(ONE))):
        assert other == ONE
        assert other == {"orders": {"inserted": [{"placed": date}]}}
    assert not diff({})
    assert diff({}, beyond_rows=True)


def test_thousands_of_equal_rows_are_compared_without_deep_recursion():
    rows = [{"id": 1, "name": "a"}] * 1500
    assert diff({"items": {"inserted": rows}}) == {"items": {"inserted": [{"id": int}] * 1500}}
