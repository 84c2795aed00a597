"""Search products by names that are nearly right.

Revision ID: 0007
Revises: 0006
Create Date: 2024-06-03 13:17:44
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.create_index(
        "ix_products_name_trgm",
        "products",
        ["name"],
        postgresql_using="gin",
        postgresql_ops={"name": "gin_trgm_ops"},
    )


def downgrade() -> None:
    op.drop_index("ix_products_name_trgm", "products")
    op.execute("DROP EXTENSION IF EXISTS pg_trgm")
