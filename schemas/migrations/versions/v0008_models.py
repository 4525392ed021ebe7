"""Which models there are, which of them reads, what became of each, and what a candidate says in silence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """None yet: the first reader enters the configured one as live."""
    op.create_table(
        "models",
        sa.Column("model_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("bundle", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("card", JSON, nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
    )
    for state in ("live", "shadow"):
        only = sa.text(f"state = '{state}'")
        op.create_index(
            f"uq_models_{state}", "models", ["state"], unique=True, sqlite_where=only, postgresql_where=only
        )
    op.create_table(
        "model_events",
        sa.Column("id", ID, primary_key=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.model_id"), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("from_state", sa.Text),
        sa.Column("to_state", sa.Text),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("checks", JSON, nullable=False),
    )
    op.create_index("ix_model_events_model", "model_events", ["model_id", "id"])
    op.create_index("ix_model_events_to", "model_events", ["to_state", "at"])
    op.create_table(
        "model_readers",
        sa.Column("reader", sa.Text, primary_key=True),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("shadow_id", sa.Text),
        sa.Column("fault", sa.Text, nullable=False),
        sa.Column("dropped", sa.BigInteger, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
    )
    op.create_table(
        "shadow_predictions",
        sa.Column("job_id", ID, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("model_id", sa.Text, sa.ForeignKey("models.model_id"), primary_key=True),
        sa.Column("binary", sa.Double, nullable=False),
        sa.Column("findings", JSON, nullable=False),
        sa.Column("thresholds", JSON, nullable=False),
        sa.Column("urgency", sa.Integer, nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("live_model_id", sa.Text, nullable=False),
        sa.Column("live_urgency", sa.Integer, nullable=False),
        sa.Column("live_reasons", JSON, nullable=False),
        sa.Column("at", TIME, nullable=False),
    )
    op.create_index("ix_shadow_predictions_at", "shadow_predictions", ["model_id", "at"])


def downgrade() -> None:
    """Without them again."""
    for table in ("shadow_predictions", "model_readers", "model_events", "models"):
        op.drop_table(table)
