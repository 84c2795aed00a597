"""Stock is counted, and orders can be cancelled.

Revision ID: 0005
Revises: 0004
Create Date: 2025-03-17 11:58:40
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

status = postgresql.ENUM("placed", "cancelled", name="order_status", create_type=False)


def upgrade() -> None:
    # Existing products start with a stock of zero. New ones must give their stock.
    op.add_column("products", sa.Column("stock", sa.Integer, nullable=False, server_default=sa.text("0")))
    op.alter_column("products", "stock", server_default=None)
    op.create_check_constraint("stock_not_negative", "products", "stock >= 0")
    status.create(op.get_bind())
    op.add_column("orders", sa.Column("status", status, nullable=False, server_default="placed"))


def downgrade() -> None:
    op.drop_column("orders", "status")
    status.drop(op.get_bind())
    op.drop_column("products", "stock")
