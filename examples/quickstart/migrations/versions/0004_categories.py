"""Categories; the products that are there already go under "Everything else".

Revision ID: 0004
Revises: 0003
Create Date: 2024-04-02 10:25:50
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    categories = op.create_table(
        "categories",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("slug", sa.String(50), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_categories"),
        sa.UniqueConstraint("slug", name="uq_categories_slug"),
    )
    op.bulk_insert(categories, [{"slug": "other", "name": "Everything else"}])
    op.add_column("products", sa.Column("category_id", sa.Integer(), nullable=True))
    op.execute("UPDATE products SET category_id = (SELECT id FROM categories WHERE slug = 'other')")
    op.alter_column("products", "category_id", nullable=False)
    op.create_foreign_key("fk_products_category_id_categories", "products", "categories", ["category_id"], ["id"])
    op.create_index("ix_products_category_id", "products", ["category_id"])


def downgrade() -> None:
    op.drop_column("products", "category_id")
    op.drop_table("categories")
