"""Fictional stores and their contents, the same every time."""

from datetime import UTC, datetime, timedelta

import factory
from factory.alchemy import SQLAlchemyModelFactory

from store_platform.models import Address, Customer, Domain, Member, Order, OrderLine, Product, Store, Theme, User

LOCALE = "en_GB"
OPENING = datetime(2025, 3, 3, 9, 0, tzinfo=UTC)


class ThemeFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Theme

    color = factory.Faker("hex_color")
    font = factory.Faker("random_element", elements=["Inter", "Lora", "Source Sans"])


class StoreFactory(SQLAlchemyModelFactory):
    """Stores with a theme, a domain on the platform, and one of their own."""

    class Meta:
        model = Store

    slug = factory.Sequence(lambda n: f"store{n + 1}")
    name = factory.Faker("company", locale=LOCALE)
    theme = factory.SubFactory(ThemeFactory)
    domains = factory.LazyAttribute(
        lambda store: [
            Domain(host=f"{store.slug}.platform.example", is_primary=True),
            Domain(host=f"www.{store.slug}.example", is_primary=False),
        ]
    )


class UserFactory(SQLAlchemyModelFactory):
    class Meta:
        model = User

    email = factory.Sequence(lambda n: f"user{n + 1}@platform.example")
    name = factory.Faker("name", locale=LOCALE)


class MemberFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Member

    user = factory.SubFactory(UserFactory)


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
    addresses = factory.List([factory.SubFactory(AddressFactory)])


class ProductFactory(SQLAlchemyModelFactory):
    class Meta:
        model = Product

    name = factory.Faker("catch_phrase", locale=LOCALE)
    price = factory.Faker("pydecimal", min_value=1, max_value=200, right_digits=2)
    stock = 20


class OrderLineFactory(SQLAlchemyModelFactory):
    class Meta:
        model = OrderLine

    quantity = factory.Faker("random_int", min=1, max=3)
    price = factory.SelfAttribute("product.price")


class OrderFactory(SQLAlchemyModelFactory):
    """One order each hour."""

    class Meta:
        model = Order

    placed_at = factory.Sequence(lambda n: OPENING + timedelta(hours=n))
