"""Providers.

Revision ID: 0001
Revises:
Create Date: 2024-11-04 10:02:11
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "providers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("licence", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_providers"),
        sa.UniqueConstraint("licence", name="uq_providers_licence"),
    )


def downgrade() -> None:
    op.drop_table("providers")
