"""The application's own functions, which commit for real."""

import pytest
from shop.service import (
    OrderClosedError,
    OutOfStockError,
    cancel_order,
    pay_order,
    place_order,
    restock,
    sales_report,
    stock_of,
)
from sqlalchemy import text

pytestmark = pytest.mark.seeded

ALICE = "customer1@mail.example"


def test_an_order_takes_its_goods_off_the_shelf():
    place_order(ALICE, "S01", {"SKU-001": 2, "SKU-002": 1})

    assert stock_of("S01", "SKU-001") == 18
    assert stock_of("S01", "SKU-002") == 19


def test_a_shelf_is_as_full_as_the_seeds_left_it():
    assert stock_of("S01", "SKU-001") == 20


@pytest.mark.parametrize("_again", range(3))
def test_the_next_order_number_is_always_the_same(_again):
    assert place_order(ALICE, "S01", {"SKU-001": 1}) == 1030


def test_an_order_that_cannot_be_served_changes_nothing():
    with pytest.raises(OutOfStockError, match="S01 has 20 of SKU-002, not 21"):
        place_order(ALICE, "S01", {"SKU-001": 5, "SKU-002": 21})

    assert stock_of("S01", "SKU-001") == 20


def test_a_cancelled_order_puts_its_goods_back():
    number = place_order(ALICE, "S02", {"SKU-003": 4})

    cancel_order(number)

    assert stock_of("S02", "SKU-003") == 20


def test_a_paid_order_cannot_be_cancelled():
    number = place_order(ALICE, "S02", {"SKU-003": 4})
    pay_order(number)

    with pytest.raises(OrderClosedError, match=f"order {number} is paid"):
        cancel_order(number)


def test_a_payment_shows_in_the_report():
    before = sum(sales.revenue for sales in sales_report())

    paid = pay_order(place_order(ALICE, "S01", {"SKU-001": 1, "SKU-004": 3}))

    assert sum(sales.revenue for sales in sales_report()) == before + paid


def test_a_test_can_prepare_its_own_rows(seeded_session):
    seeded_session.execute(text("UPDATE stock_levels SET quantity = 0"))
    seeded_session.commit()

    assert restock("S03", "SKU-005", 7) == 7
