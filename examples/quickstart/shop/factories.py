"""Made-up customers, products and orders, the same ones each time."""

from datetime import UTC, date, datetime, timedelta

import factory
from factory.alchemy import SQLAlchemyModelFactory

from shop.models import Address, Customer, Order, OrderLine, Product, StaffUser, Store

LOCALE = "en_GB"
OPENING = datetime(2024, 3, 4, 9, 0, tzinfo=UTC)


class StaffUserFactory(SQLAlchemyModelFactory):
    class Meta:
        model = StaffUser

    email = factory.Sequence(lambda n: f"staff{n + 1}@shop.example")
    name = factory.Faker("name", locale=LOCALE)


class AddressFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Address

    street = factory.Faker("street_address", locale=LOCALE)
    city = factory.Faker("city", locale=LOCALE)
    postcode = factory.Faker("postcode", locale=LOCALE)


class CustomerFactory(SQLAlchemyModelFactory):
    """Customers with one address each."""

    class Meta:
        model = Customer

    email = factory.Sequence(lambda n: f"customer{n + 1}@mail.example")
    name = factory.Faker("name", locale=LOCALE)
    joined_on = factory.Sequence(lambda n: date(2024, 1, 1) + timedelta(days=n))
    addresses = factory.List([factory.SubFactory(AddressFactory)])


class ProductFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Product

    sku = factory.Sequence(lambda n: f"SKU-{n + 1:03}")
    price = factory.Faker("pydecimal", min_value=1, max_value=200, right_digits=2)


class StoreFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Store

    code = factory.Sequence(lambda n: f"S{n + 1:02}")
    city = factory.Faker("city", locale=LOCALE)


class OrderLineFactory(SQLAlchemyModelFactory):
    class Meta:
        model = OrderLine

    quantity = factory.Faker("random_int", min=1, max=3)
    unit_price = factory.LazyAttribute(lambda line: line.product.price)


class OrderFactory(SQLAlchemyModelFactory):
    """Ten orders a day, one each hour."""

    class Meta:
        model = Order

    placed_at = factory.Sequence(lambda n: OPENING + timedelta(days=n // 10, hours=n % 10))
