"""What the platform does. Each function is one transaction, committed when it returns."""

from collections.abc import Mapping

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store_platform.db import SessionLocal, store_session
from store_platform.models import Customer, Member, Order, OrderLine, OrderStatus, PlatformSetting, Product, Store, User
from store_platform.passwords import fits
from store_platform.settings import settings


class RefusedError(Exception):
    """The platform does not do this; the text says why."""


def place_order(host: str, email: str, basket: Mapping[str, int]) -> int:
    """Take the basket (quantities by SKU) off the store's shelf and return the order's number.

    Raises:
        RefusedError: Too many at once, too few on the shelf, or the platform is closed. Nothing is ordered then.
    """
    if sum(basket.values()) > settings.largest_order:
        raise RefusedError(f"nobody gets more than {settings.largest_order} things at once")
    with store_session(host) as session:
        if session.get_one(PlatformSetting, "orders").value != "open":
            raise RefusedError("the platform takes no orders now")
        customer = session.scalars(select(Customer).filter_by(email=email)).one()
        order = Order(customer=customer, number=_next_number(session))
        session.add(order)
        for sku, quantity in sorted(basket.items()):  # one locking order for everybody: no deadlocks
            product = _take(session, sku, quantity)
            order.lines.append(OrderLine(product=product, quantity=quantity, price=product.price))
        return order.number


def cancel_order(host: str, number: int, by: str) -> None:
    """Cancel an order and put its goods back on the shelf.

    Raises:
        RefusedError: The user ``by`` may not, or it is cancelled already.
    """
    with store_session(host) as session:
        if not _may(session, by, "orders.cancel"):
            raise RefusedError(f"{by} may not cancel orders")
        order = session.scalars(select(Order).filter_by(number=number).with_for_update()).one()
        if order.status is OrderStatus.CANCELLED:
            raise RefusedError(f"order {number} is cancelled already")
        for line in sorted(order.lines, key=lambda line: line.product.sku):
            line.product.stock = Product.stock + line.quantity
        order.status = OrderStatus.CANCELLED


def stock(host: str) -> dict[str, int]:
    """How many of each product the store has. Note that the query does not say which store."""
    with store_session(host) as session:
        return {product.sku: product.stock for product in session.scalars(select(Product).order_by(Product.sku))}


def log_in(email: str, password: str) -> bool:
    """Whether this is the user's password."""
    with SessionLocal() as session:
        kept = session.scalar(select(User.password).filter_by(email=email))
        return kept is not None and fits(password, kept)


def _next_number(session: Session) -> int:
    """The store's next order number; its next order waits for this one, so none is left out."""
    return session.execute(
        update(Store)
        .where(Store.id == session.info["store_id"])
        .values(last_order_number=Store.last_order_number + 1)
        .returning(Store.last_order_number)
    ).scalar_one()


def _take(session: Session, sku: str, quantity: int) -> Product:
    product = session.scalars(select(Product).filter_by(sku=sku).with_for_update()).one()
    if product.stock < quantity:
        raise RefusedError(f"there are {product.stock} of {sku}, not {quantity}")
    product.stock -= quantity
    return product


def _may(session: Session, email: str, permission: str) -> bool:
    query = select(Member).join(Member.user).where(User.email == email, Member.store_id == session.info["store_id"])
    member = session.scalars(query).one_or_none()
    return member is not None and permission in member.role.permissions
