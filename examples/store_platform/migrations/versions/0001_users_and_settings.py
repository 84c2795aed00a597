"""Users, roles, and settings of the platform.

Revision ID: 0001
Revises:
Create Date: 2025-01-13 10:02:15
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "platform_settings",
        sa.Column("key", sa.String(50), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "roles",
        sa.Column("name", sa.String(30), primary_key=True),
        sa.Column("permissions", sa.ARRAY(sa.Text), nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("email", sa.String(200), nullable=False, unique=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("password", sa.String(200)),
        sa.Column("is_admin", sa.Boolean, nullable=False, server_default=sa.false()),
    )


def downgrade() -> None:
    for table in ("users", "roles", "platform_settings"):
        op.drop_table(table)
