"""The calendar of training runs, who carries them out, and the reports that they leave."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Nothing is asked for yet; runs of before keep their report in their folder."""
    op.create_table(
        "training_reports",
        sa.Column("run_id", ID, sa.ForeignKey("training_runs.id"), primary_key=True),
        sa.Column("html", sa.Text, nullable=False),
    )
    op.create_table(
        "retrainings",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("cron", sa.Text, nullable=False),
        sa.Column("preset", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("last_run", ID, sa.ForeignKey("training_runs.id")),
    )
    op.create_index("ix_retrainings_next", "retrainings", ["next_at"])
    op.create_table(
        "trainers",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("presets", JSON, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
    )


def downgrade() -> None:
    """Without them again."""
    for table in ("trainers", "retrainings", "training_reports"):
        op.drop_table(table)
