"""Appointments; a provider has at most one in each slot.

Revision ID: 0004
Revises: 0003
Create Date: 2024-12-02 11:11:52
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "appointments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("provider_id", sa.Integer(), nullable=False),
        sa.Column("patient_id", sa.Integer(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancelled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_appointments"),
        sa.ForeignKeyConstraint(["provider_id"], ["providers.id"], name="fk_appointments_provider_id_providers"),
        sa.ForeignKeyConstraint(
            ["patient_id"], ["patients.id"], name="fk_appointments_patient_id_patients", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "uq_appointments_provider_slot",
        "appointments",
        ["provider_id", "starts_at"],
        unique=True,
        postgresql_where=sa.text("NOT cancelled"),
    )


def downgrade() -> None:
    op.drop_table("appointments")
