"""Specialties; every provider so far is a general practitioner.

Revision ID: 0003
Revises: 0002
Create Date: 2024-11-18 16:20:05
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    specialties = op.create_table(
        "specialties",
        sa.Column("code", sa.String(20), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.PrimaryKeyConstraint("code", name="pk_specialties"),
    )
    op.bulk_insert(specialties, [{"code": "gp", "name": "General practice"}])
    op.add_column("providers", sa.Column("specialty_code", sa.String(20), server_default="gp", nullable=False))
    op.alter_column("providers", "specialty_code", server_default=None)
    op.create_foreign_key(
        "fk_providers_specialty_code_specialties", "providers", "specialties", ["specialty_code"], ["code"]
    )


def downgrade() -> None:
    op.drop_column("providers", "specialty_code")
    op.drop_table("specialties")
