"""Stores share tables, and see nothing of each other."""

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, NoResultFound
from store_platform.db import UnknownStoreError, store_session
from store_platform.models import Address, Customer, Domain, Order, OrderLine, Product, Store
from store_platform.service import place_order, stock

ONE, TWO = "store1.platform.example", "www.store2.example"

pytestmark = pytest.mark.seeded


@pytest.mark.parametrize("model", [Customer, Address, Product, Order, OrderLine])
def test_a_query_that_names_no_store_finds_only_the_sessions(model, seeded_session):
    store_id = seeded_session.get_one(Domain, TWO).store_id
    all_of_it = seeded_session.scalars(select(model).filter_by(store_id=store_id)).all()

    with store_session(TWO) as session:
        found = session.scalars(select(model)).all()
        assert {each.store_id for each in found} == {store_id}
        assert len(found) == len(all_of_it)


def test_nothing_is_found_by_the_key_of_another_stores_row(seeded_session):
    foreign = seeded_session.scalars(select(Product.id).join(Store).where(Store.slug == "store2")).first()

    with store_session(ONE) as session:
        assert session.get(Product, foreign) is None


def test_an_order_leaves_the_same_sku_of_other_stores_alone():
    place_order(ONE, "customer1@mail.example", {"SKU-001": 5})

    assert (stock(ONE)["SKU-001"], stock(TWO)["SKU-001"]) == (15, 20)


def test_a_customer_of_another_store_is_none_here():
    with pytest.raises(NoResultFound):
        place_order(TWO, "customer1@mail.example", {"SKU-001": 1})


def test_the_database_refuses_an_order_for_another_stores_customer(seeded_session):
    store = seeded_session.scalars(select(Store).filter_by(slug="store2")).one()
    customer = seeded_session.scalars(select(Customer).filter_by(email="customer1@mail.example")).one()
    seeded_session.add(Order(store_id=store.id, customer_id=customer.id, number=500))

    with pytest.raises(IntegrityError, match="fk_orders_store_id_customer_id_customers"):
        seeded_session.commit()


def test_who_has_no_domain_is_no_store():
    with pytest.raises(UnknownStoreError), store_session("elsewhere.example"):
        pass


@pytest.mark.seeded("minimal", stores=12)
def test_each_of_a_dozen_stores_sells_its_own(seeded_session):
    hosts = seeded_session.scalars(select(Domain.host).filter_by(is_primary=True)).all()

    assert len(hosts) == 12
    assert {tuple(stock(host)) for host in hosts} == {("SKU-001", "SKU-002", "SKU-003")}
