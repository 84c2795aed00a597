"""What the shop's database holds before the first customer comes in.

Essential seeds are what the shop cannot run without. Demo seeds are for tests and for looking at.
"""

import random
from itertools import cycle, islice

from sqlalchemy import select
from sqlalchemy.orm import Session

from pytest_seeddb import seeder
from shop.factories import (
    CustomerFactory,
    OrderFactory,
    OrderLineFactory,
    ProductFactory,
    StaffUserFactory,
    StoreFactory,
)
from shop.models import Category, Customer, Order, OrderStatus, Payment, Product, Role, StockLevel, Store

WARES = [
    ("tools", "Claw hammer"),
    ("garden", "Border spade"),
    ("kitchen", "Copper kettle"),
    ("toys", "Jigsaw puzzle"),
    ("tools", "Hand saw"),
    ("garden", "Watering can"),
    ("kitchen", "Pepper mill"),
    ("toys", "Rocking horse"),
    ("tools", "Spirit level"),
    ("garden", "Bird feeder"),
    ("kitchen", "Salad bowl"),
    ("toys", "Spinning top"),
]


@seeder
def roles(session: Session) -> None:
    session.add_all(Role(name=name) for name in ("owner", "clerk", "auditor"))


@seeder
def categories(session: Session) -> None:
    names = {"tools": "Tools", "garden": "Garden", "kitchen": "Kitchen", "toys": "Toys"}
    session.add_all(Category(slug=slug, name=name) for slug, name in names.items())


@seeder(tier="demo", after=[roles])
def staff(session: Session) -> None:
    for role in session.scalars(select(Role).order_by(Role.id)):
        session.add(StaffUserFactory.build(role=role))


@seeder(tier="demo", after=[categories])
def products(session: Session, products: int = 12) -> None:
    shelves = {category.slug: category for category in session.scalars(select(Category))}
    for slug, name in islice(cycle(WARES), products):
        session.add(ProductFactory.build(category=shelves[slug], name=name))


@seeder(tier="demo", after=[products])
def stores(session: Session, stores: int = 3, stock: int = 20) -> None:
    catalogue = session.scalars(select(Product).order_by(Product.id)).all()
    for store in StoreFactory.build_batch(stores):
        store.stock = [StockLevel(product=product, quantity=stock) for product in catalogue]
        session.add(store)


@seeder(tier="demo")
def customers(session: Session, customers: int = 15) -> None:
    session.add_all(CustomerFactory.build_batch(customers))


@seeder(tier="demo", after=[stores, customers])
def orders(session: Session, orders: int = 30) -> None:
    """Make orders; two of three are paid."""
    buyers = session.scalars(select(Customer).order_by(Customer.id)).all()
    sellers = session.scalars(select(Store).order_by(Store.id)).all()
    catalogue = session.scalars(select(Product).order_by(Product.id)).all()
    for order in OrderFactory.build_batch(orders):
        order.customer, order.store = random.choice(buyers), random.choice(sellers)
        order.lines = [OrderLineFactory.build(product=product) for product in random.sample(catalogue, k=3)]
        session.add(order)
        session.flush()
        if order.number % 3:
            _pay(order)


def _pay(order: Order) -> None:
    order.status = OrderStatus.PAID
    order.payments = [Payment(amount=order.total, paid_at=order.placed_at)]
