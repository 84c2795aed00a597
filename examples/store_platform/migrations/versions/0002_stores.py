"""Stores, their themes, domains and members.

Revision ID: 0002
Revises: 0001
Create Date: 2025-01-14 16:40:51
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _store(**options: bool) -> sa.Column:
    return sa.Column("store_id", sa.Integer, sa.ForeignKey("stores.id", ondelete="CASCADE"), nullable=False, **options)


def upgrade() -> None:
    op.create_table(
        "stores",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("slug", sa.String(50), nullable=False, unique=True),
        sa.Column("name", sa.String(100), nullable=False),
    )
    op.create_table(
        "themes",
        _store(primary_key=True, autoincrement=False),
        sa.Column("color", sa.String(7), nullable=False),
        sa.Column("font", sa.String(50), nullable=False),
    )
    op.create_table(
        "domains",
        sa.Column("host", sa.String(200), primary_key=True),
        _store(),
        sa.Column("is_primary", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    where = sa.text("is_primary")
    op.create_index("uq_domains_primary", "domains", ["store_id"], unique=True, postgresql_where=where)
    op.create_table(
        "members",
        _store(primary_key=True, autoincrement=False),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id"), primary_key=True, autoincrement=False),
        sa.Column("role_name", sa.String(30), sa.ForeignKey("roles.name"), nullable=False),
    )


def downgrade() -> None:
    for table in ("members", "domains", "themes", "stores"):
        op.drop_table(table)
