"""Training runs as rows: requested by the worker's page or command, carried out by a trainer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Spelled out, not taken from `schemas.tables`: a step stays what it was when the tables move on.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """One table more; nothing of the others is touched."""
    op.create_table(
        "training_runs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("preset", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("requested_at", TIME, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("finished_at", TIME),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", TIME),
        sa.Column("cancel_asked", sa.Boolean, nullable=False),
        sa.Column("progress", JSON, nullable=False),
        sa.Column("result", JSON),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_training_runs_queue", "training_runs", ["state", "requested_at", "id"])


def downgrade() -> None:
    """Without training runs; their folders on the trainers' disks stay."""
    op.drop_table("training_runs")
