"""What a film was made with, when flags were paused, how each scanner's films were; and what is counted by the hour."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
INDEXES = (
    ("ix_jobs_concluded", "jobs", "concluded_at"),
    ("ix_revisions_decided", "revisions", "decided_at"),
    ("ix_outbox_created", "outbox", "created_at"),
)


def upgrade() -> None:
    """Nothing is paused; of films that are here nobody kept what they were made with."""
    op.add_column("jobs", sa.Column("scanner", JSON))
    for name, table, column in INDEXES:
        op.create_index(name, table, [column])
    op.create_table(
        "pauses",
        sa.Column("id", ID, primary_key=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
    op.create_table(
        "baselines",
        sa.Column("id", ID, primary_key=True),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("scanner", JSON, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("sample", JSON),
        sa.Column("made_at", TIME),
        sa.Column("ended_at", TIME),
        sa.Column("ended_by", sa.Text),
    )
    op.create_index("ix_baselines_model", "baselines", ["model_id", "id"])
    op.create_table(
        "drift_alarms",
        sa.Column("id", ID, primary_key=True),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("scanner", JSON, nullable=False),
        sa.Column("measure", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("limit", sa.Double, nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("told_at", TIME),
        sa.Column("over_told_at", TIME),
    )
    op.create_index("ix_drift_alarms_began", "drift_alarms", ["began_at"])


def downgrade() -> None:
    """Without them again."""
    for table in ("drift_alarms", "baselines", "pauses"):
        op.drop_table(table)
    for name, table, _ in INDEXES:
        op.drop_index(name, table)
    op.drop_column("jobs", "scanner")
