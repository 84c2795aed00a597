"""Orders, through the application's own functions, which open connections and commit for real."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update
from store_platform.models import Customer, Domain, Member, PlatformSetting, User
from store_platform.service import RefusedError, cancel_order, place_order, stock

HOST = "store1.platform.example"
ALICE = "customer1@mail.example"

pytestmark = pytest.mark.seeded


def test_an_order_takes_its_goods_off_the_shelf():
    assert place_order(HOST, ALICE, {"SKU-001": 2, "SKU-002": 1}) == 31

    assert (stock(HOST)["SKU-001"], stock(HOST)["SKU-002"]) == (18, 19)


def test_an_order_that_cannot_be_served_changes_nothing():
    with pytest.raises(RefusedError, match="there are 20 of SKU-002, not 21"):
        place_order(HOST, ALICE, {"SKU-001": 1, "SKU-002": 21})

    assert stock(HOST)["SKU-001"] == 20
    assert place_order(HOST, ALICE, {"SKU-001": 1}) == 31


def test_of_orders_at_the_same_time_none_shares_a_number_and_none_sells_what_is_gone():
    def order(_):
        try:
            return place_order(HOST, ALICE, {"SKU-001": 3})
        except RefusedError:
            return None

    with ThreadPoolExecutor(4) as pool:
        numbers = sorted(number for number in pool.map(order, range(8)) if number)

    assert numbers == [31, 32, 33, 34, 35, 36]
    assert stock(HOST)["SKU-001"] == 2


def staff(session, role):
    """Whoever has the role in the store."""
    query = select(User.email).join(Member).join(Domain, Domain.store_id == Member.store_id)
    return session.scalars(query.where(Domain.host == HOST, Member.role_name == role)).one()


@pytest.mark.parametrize("role", ["owner", "manager"])
def test_whoever_may_cancel_puts_the_goods_back(seeded_session, role):
    number = place_order(HOST, ALICE, {"SKU-005": 4})

    cancel_order(HOST, number, by=staff(seeded_session, role))

    assert stock(HOST)["SKU-005"] == 20
    with pytest.raises(RefusedError, match="cancelled already"):
        cancel_order(HOST, number, by=staff(seeded_session, role))


def test_a_clerk_may_not_cancel(seeded_session):
    with pytest.raises(RefusedError, match="may not cancel orders"):
        cancel_order(HOST, 1, by=staff(seeded_session, "clerk"))


def test_a_closed_platform_takes_no_orders(seeded_session):
    seeded_session.execute(update(PlatformSetting).filter_by(key="orders").values(value="closed"))
    seeded_session.commit()

    with pytest.raises(RefusedError, match="takes no orders now"):
        place_order(HOST, ALICE, {"SKU-001": 1})


@pytest.mark.seeded("minimal")
def test_the_smallest_shop_sells_as_well(seeded_session):
    assert len(seeded_session.scalars(select(Customer)).all()) == 2
    assert place_order(HOST, ALICE, {"SKU-003": 20}) == 2
