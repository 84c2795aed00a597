"""Shops to look at and to test with. Each parameter is a number for the profile or ``SEEDDB_SEED_<NAME>``."""

import random

from sqlalchemy import select
from sqlalchemy.orm import Session

from pytest_seeddb import seeder
from store_platform.factories import (
    CustomerFactory,
    MemberFactory,
    OrderFactory,
    OrderLineFactory,
    ProductFactory,
    StoreFactory,
)
from store_platform.models import Customer, Product, Store
from store_platform.seeds.essential import roles


@seeder(tier="demo")
def stores(session: Session, stores: int = 3) -> None:
    session.add_all(StoreFactory.build_batch(stores))


@seeder(tier="demo", after=[roles, stores])
def users(session: Session, users: int = 3) -> None:
    """Give each store an owner, a manager, and clerks."""
    for store in _stores(session):
        for number in range(users):
            role = ("owner", "manager", "clerk")[min(number, 2)]
            session.add(MemberFactory.build(store_id=store.id, role_name=role))


@seeder(tier="demo", after=[stores])
def customers(session: Session, customers: int = 15) -> None:
    for store in _stores(session):
        session.add_all(CustomerFactory.build_batch(customers, store_id=store.id))


@seeder(tier="demo", after=[stores])
def products(session: Session, products: int = 20) -> None:
    """All stores number their products alike, as stores do."""
    for store in _stores(session):
        for number in range(products):
            session.add(ProductFactory.build(store_id=store.id, sku=f"SKU-{number + 1:03}"))


@seeder(tier="demo", after=[customers, products])
def orders(session: Session, orders: int = 30) -> None:
    for store in _stores(session):
        buyers = session.scalars(select(Customer).filter_by(store_id=store.id).order_by(Customer.id)).all()
        shelf = session.scalars(select(Product).filter_by(store_id=store.id).order_by(Product.id)).all()
        for number in range(1, orders + 1):
            order = OrderFactory.build(customer=random.choice(buyers), number=number)
            order.lines = [OrderLineFactory.build(product=each) for each in random.sample(shelf, k=min(2, len(shelf)))]
            session.add(order)
        store.last_order_number = orders


def _stores(session: Session) -> list[Store]:
    return list(session.scalars(select(Store).order_by(Store.id)))
