"""A clone is a whole database: any number of connections, each with transactions of its own."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from shop.models import Payment
from shop.service import OutOfStockError, place_order, stock_of
from sqlalchemy import func, select

ALICE = "customer1@mail.example"
BOB = "customer2@mail.example"


def test_another_connection_sees_what_the_application_committed(seeded_connection):
    number = place_order(ALICE, "S01", {"SKU-001": 1})

    status = seeded_connection.execute("SELECT status FROM orders WHERE number = %s", [number]).fetchone()

    assert status == ("placed",)


def test_nobody_sees_what_is_not_committed(seeded_connection, seeded_session):
    seeded_connection.execute("DELETE FROM payments")

    assert seeded_session.scalar(select(func.count()).select_from(Payment)) == 20


@pytest.mark.seeded
def test_the_last_pieces_go_to_one_customer_only():
    def buy(customer):
        try:
            return place_order(customer, "S01", {"SKU-001": 20})
        except OutOfStockError:
            return None

    with ThreadPoolExecutor(2) as shop_windows:
        numbers = list(shop_windows.map(buy, [ALICE, BOB]))

    assert numbers.count(None) == 1
    assert stock_of("S01", "SKU-001") == 0


def test_a_locked_row_makes_others_wait(seeded_db):
    with seeded_db.connect() as clerk, seeded_db.connect() as impatient:
        clerk.execute("SELECT * FROM orders WHERE number = 1000 FOR UPDATE")

        with pytest.raises(psycopg.errors.LockNotAvailable):
            impatient.execute("SELECT * FROM orders WHERE number = 1000 FOR UPDATE NOWAIT")


@pytest.fixture(scope="module")
def left_open():
    connections = []
    yield connections
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("_again", range(2))
def test_a_connection_may_be_left_open(seeded_url, left_open, _again):
    connection = psycopg.connect(seeded_url)
    left_open.append(connection)

    assert connection.execute("UPDATE stores SET city = 'Nowhere' WHERE city <> 'Nowhere'").rowcount == 3
