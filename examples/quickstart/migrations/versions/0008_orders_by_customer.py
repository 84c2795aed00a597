"""An index for a customer's list of orders, made without stopping the shop.

Revision ID: 0008
Revises: 0007
Create Date: 2024-09-18 06:30:00
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_orders_customer_id_placed_at",
            "orders",
            ["customer_id", "placed_at"],
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_orders_customer_id_placed_at", "orders", postgresql_concurrently=True)
