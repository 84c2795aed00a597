"""Orders, numbered by each store for itself.

Revision ID: 0004
Revises: 0003
Create Date: 2025-02-03 14:25:08
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _store() -> sa.Column:
    reference = sa.ForeignKey("stores.id", ondelete="CASCADE")
    return sa.Column("store_id", sa.Integer, reference, nullable=False, index=True)


def upgrade() -> None:
    op.add_column("stores", sa.Column("last_order_number", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        _store(),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("customer_id", sa.Integer, nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.UniqueConstraint("store_id", "number"),
        sa.UniqueConstraint("store_id", "id"),
        sa.ForeignKeyConstraint(["store_id", "customer_id"], ["customers.store_id", "customers.id"]),
    )
    op.create_table(
        "order_lines",
        _store(),
        sa.Column("order_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("product_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("price", sa.Numeric(10, 2), nullable=False),
        sa.CheckConstraint("quantity > 0", name="quantity_positive"),
        sa.ForeignKeyConstraint(["store_id", "order_id"], ["orders.store_id", "orders.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["store_id", "product_id"], ["products.store_id", "products.id"]),
    )


def downgrade() -> None:
    op.drop_table("order_lines")
    op.drop_table("orders")
    op.drop_column("stores", "last_order_number")
