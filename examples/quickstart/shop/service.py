"""What the shop does. Each function is one transaction of its own, committed when it returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shop.db import SessionLocal
from shop.models import (
    Category,
    Customer,
    Order,
    OrderLine,
    OrderStatus,
    Payment,
    Product,
    StockLevel,
    Store,
)


class OutOfStockError(Exception):
    """The store has fewer of the product than were asked for."""


class OrderClosedError(Exception):
    """The order is paid or cancelled already."""


@dataclass(frozen=True)
class CategorySales:
    """What one category brought in."""

    category: str
    sold: int
    revenue: Decimal


def place_order(email: str, store_code: str, basket: Mapping[str, int]) -> int:
    """Take the basket (quantities by SKU) off the store's shelves and return the order's number.

    Raises:
        OutOfStockError: The store has too few; nothing is ordered then.
    """
    with SessionLocal.begin() as session:
        order = Order(
            customer=session.scalars(select(Customer).filter_by(email=email)).one(),
            store=session.scalars(select(Store).filter_by(code=store_code)).one(),
        )
        session.add(order)
        for sku, quantity in sorted(basket.items()):  # one locking order for everybody: no deadlocks
            product = _take(session, store_code, sku, quantity)
            order.lines.append(OrderLine(product=product, quantity=quantity, unit_price=product.price))
        session.flush()
        return order.number


def pay_order(number: int) -> Decimal:
    """Receive the whole amount of an order and return it.

    Raises:
        OrderClosedError: It is paid or cancelled already.
    """
    with SessionLocal.begin() as session:
        order = _open_order(session, number)
        order.payments.append(Payment(amount=order.total))
        order.status = OrderStatus.PAID
        return order.total


def cancel_order(number: int) -> None:
    """Cancel an order that is not paid yet and put its goods back on the shelves.

    Raises:
        OrderClosedError: It is paid or cancelled already.
    """
    with SessionLocal.begin() as session:
        order = _open_order(session, number)
        for line in sorted(order.lines, key=lambda line: line.product.sku):
            _stock(session, order.store.code, line.product.sku).quantity += line.quantity
        order.status = OrderStatus.CANCELLED
        order.cancelled_at = func.now()


def restock(store_code: str, sku: str, quantity: int) -> int:
    """Add to a store's shelf and return how many lie there now."""
    with SessionLocal.begin() as session:
        stock = _stock(session, store_code, sku)
        stock.quantity += quantity
        return stock.quantity


def stock_of(store_code: str, sku: str) -> int:
    """How many of the product the store has."""
    with SessionLocal() as session:
        return _stock(session, store_code, sku, lock=False).quantity


def search_products(term: str) -> list[str]:
    """The names of the products that look like ``term``, the best match first."""
    with SessionLocal() as session:
        likeness = func.similarity(Product.name, term)
        # "%" is pg_trgm's operator, served by the trigram index.
        return list(session.scalars(select(Product.name).where(Product.name.op("%")(term)).order_by(likeness.desc())))


def sales_report() -> list[CategorySales]:
    """The paid orders' sales by category, the best first."""
    revenue = func.sum(OrderLine.unit_price * OrderLine.quantity)
    query = (
        select(Category.name, func.sum(OrderLine.quantity), revenue)
        .join_from(OrderLine, Product)
        .join(Category)
        .join(Order, OrderLine.order_id == Order.id)
        .where(Order.status == OrderStatus.PAID)
        .group_by(Category.name)
        .order_by(revenue.desc(), Category.name)
    )
    with SessionLocal() as session:
        return [CategorySales(*row) for row in session.execute(query)]


def _take(session: Session, store_code: str, sku: str, quantity: int) -> Product:
    stock = _stock(session, store_code, sku)
    if stock.quantity < quantity:
        raise OutOfStockError(f"{store_code} has {stock.quantity} of {sku}, not {quantity}")
    stock.quantity -= quantity
    return stock.product


def _stock(session: Session, store_code: str, sku: str, *, lock: bool = True) -> StockLevel:
    """A product's place in a store; while it is locked, nobody else takes from it."""
    query = select(StockLevel).join(Store).join(Product).where(Store.code == store_code, Product.sku == sku)
    return session.scalars(query.with_for_update(of=StockLevel) if lock else query).one()


def _open_order(session: Session, number: int) -> Order:
    order = session.scalars(select(Order).filter_by(number=number).with_for_update()).one()
    if order.status is not OrderStatus.PLACED:
        raise OrderClosedError(f"order {number} is {order.status}")
    return order
