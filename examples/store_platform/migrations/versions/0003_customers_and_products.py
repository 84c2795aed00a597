"""Customers, their addresses, and products.

Revision ID: 0003
Revises: 0002
Create Date: 2025-01-20 09:12:33
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _store() -> sa.Column:
    reference = sa.ForeignKey("stores.id", ondelete="CASCADE")
    return sa.Column("store_id", sa.Integer, reference, nullable=False, index=True)


def upgrade() -> None:
    op.create_table(
        "customers",
        sa.Column("id", sa.Integer, primary_key=True),
        _store(),
        sa.Column("email", sa.String(200), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.UniqueConstraint("store_id", "email"),
        sa.UniqueConstraint("store_id", "id"),
    )
    customer = ["customers.store_id", "customers.id"]
    op.create_table(
        "addresses",
        sa.Column("id", sa.Integer, primary_key=True),
        _store(),
        sa.Column("customer_id", sa.Integer, nullable=False),
        sa.Column("street", sa.String(200), nullable=False),
        sa.Column("city", sa.String(100), nullable=False),
        sa.Column("postcode", sa.String(20), nullable=False),
        sa.ForeignKeyConstraint(["store_id", "customer_id"], customer, ondelete="CASCADE"),
    )
    op.create_table(
        "products",
        sa.Column("id", sa.Integer, primary_key=True),
        _store(),
        sa.Column("sku", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("price", sa.Numeric(10, 2), nullable=False),
        sa.UniqueConstraint("store_id", "sku"),
        sa.UniqueConstraint("store_id", "id"),
        sa.CheckConstraint("price >= 0", name="price_not_negative"),
    )


def downgrade() -> None:
    for table in ("products", "addresses", "customers"):
        op.drop_table(table)
