"""The platform's tables: its own, and those whose rows belong to one store each."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The base of all models."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class OrderStatus(StrEnum):
    """Where an order stands."""

    PLACED = "placed"
    CANCELLED = "cancelled"


# -- the platform's own ----------------------------------------------------------------------------


class PlatformSetting(Base):
    """What operators change while the platform runs."""

    __tablename__ = "platform_settings"

    key: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    value: Mapped[str] = mapped_column(sa.Text)


class Role(Base):
    """What a user may do in a store."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(sa.String(30), primary_key=True)
    permissions: Mapped[list[str]] = mapped_column(sa.ARRAY(sa.Text))


class User(Base):
    """A person who works for the platform or for stores. A user without a password cannot log in."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(sa.String(200), unique=True)
    name: Mapped[str] = mapped_column(sa.String(100))
    password: Mapped[str | None] = mapped_column(sa.String(200))
    is_admin: Mapped[bool] = mapped_column(server_default=sa.false())


class Store(Base):
    """One shop."""

    __tablename__ = "stores"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(sa.String(50), unique=True)
    name: Mapped[str] = mapped_column(sa.String(100))
    last_order_number: Mapped[int] = mapped_column(server_default=sa.text("0"))

    theme: Mapped["Theme"] = relationship(cascade="all, delete-orphan")
    domains: Mapped[list["Domain"]] = relationship(cascade="all, delete-orphan")


class Theme(Base):
    """How a store looks."""

    __tablename__ = "themes"

    store_id: Mapped[int] = mapped_column(sa.ForeignKey("stores.id", ondelete="CASCADE"), primary_key=True)
    color: Mapped[str] = mapped_column(sa.String(7))
    font: Mapped[str] = mapped_column(sa.String(50))


class Domain(Base):
    """An address of a store. One of its domains is the primary one."""

    __tablename__ = "domains"
    __table_args__ = (sa.Index("uq_domains_primary", "store_id", unique=True, postgresql_where=sa.text("is_primary")),)

    host: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    store_id: Mapped[int] = mapped_column(sa.ForeignKey("stores.id", ondelete="CASCADE"))
    is_primary: Mapped[bool] = mapped_column(server_default=sa.false())


class Member(Base):
    """A user's role in a store."""

    __tablename__ = "members"

    store_id: Mapped[int] = mapped_column(sa.ForeignKey("stores.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    role_name: Mapped[str] = mapped_column(sa.ForeignKey("roles.name"))

    user: Mapped[User] = relationship()
    role: Mapped[Role] = relationship()


# -- each store's ----------------------------------------------------------------------------------


class OfStore:
    """A row that belongs to one store; see `store_platform.db.store_session`.

    References between such rows hold the store, too, so that none can lead to another store's.
    """

    store_id: Mapped[int] = mapped_column(sa.ForeignKey("stores.id", ondelete="CASCADE"), index=True)


class Customer(OfStore, Base):
    """Somebody who buys in a store; who buys in two is a customer of each."""

    __tablename__ = "customers"
    __table_args__ = (sa.UniqueConstraint("store_id", "email"), sa.UniqueConstraint("store_id", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(sa.String(200))
    name: Mapped[str] = mapped_column(sa.String(100))

    addresses: Mapped[list["Address"]] = relationship(cascade="all, delete-orphan")


class Address(OfStore, Base):
    """Where a customer's parcels go."""

    __tablename__ = "addresses"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["store_id", "customer_id"], ["customers.store_id", "customers.id"], ondelete="CASCADE"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int]
    street: Mapped[str] = mapped_column(sa.String(200))
    city: Mapped[str] = mapped_column(sa.String(100))
    postcode: Mapped[str] = mapped_column(sa.String(20))


class Product(OfStore, Base):
    """Something that a store sells."""

    __tablename__ = "products"
    __table_args__ = (
        sa.UniqueConstraint("store_id", "sku"),
        sa.UniqueConstraint("store_id", "id"),
        sa.CheckConstraint("price >= 0", name="price_not_negative"),
        sa.CheckConstraint("stock >= 0", name="stock_not_negative"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str] = mapped_column(sa.String(100))
    price: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2))
    stock: Mapped[int]


class Order(OfStore, Base):
    """What a customer bought at one go. Each store numbers its own."""

    __tablename__ = "orders"
    __table_args__ = (
        sa.UniqueConstraint("store_id", "number"),
        sa.UniqueConstraint("store_id", "id"),
        sa.ForeignKeyConstraint(["store_id", "customer_id"], ["customers.store_id", "customers.id"]),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    customer_id: Mapped[int]
    status: Mapped[OrderStatus] = mapped_column(
        sa.Enum(OrderStatus, name="order_status", values_callable=lambda statuses: [each.value for each in statuses]),
        server_default=OrderStatus.PLACED.value,
    )
    placed_at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())

    customer: Mapped[Customer] = relationship()
    lines: Mapped[list["OrderLine"]] = relationship(cascade="all, delete-orphan")


class OrderLine(OfStore, Base):
    """So many of one product, at the price of that day."""

    __tablename__ = "order_lines"
    __table_args__ = (
        sa.CheckConstraint("quantity > 0", name="quantity_positive"),
        sa.ForeignKeyConstraint(["store_id", "order_id"], ["orders.store_id", "orders.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["store_id", "product_id"], ["products.store_id", "products.id"]),
    )

    order_id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(primary_key=True)
    quantity: Mapped[int]
    price: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2))

    product: Mapped[Product] = relationship(overlaps="lines")  # both hold the store
