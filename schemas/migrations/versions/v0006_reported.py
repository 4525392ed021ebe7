"""When a study was reported, reports that come before its films, and senders that a flag cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Of a study that was reported before, the moment of its withdrawal is the nearest that is known."""
    op.add_column("studies", sa.Column("reported_at", TIME))
    op.execute("UPDATE studies SET reported_at = withdrawn_at WHERE withdrawn = 'reported'")
    op.add_column("outbox", sa.Column("deaths", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "early_reports",
        sa.Column("id", ID, primary_key=True),
        sa.Column("study_uid", sa.Text, nullable=False),
        sa.Column("accession_number", sa.Text, nullable=False),
        sa.Column("patients", JSON, nullable=False),
        sa.Column("report_id", sa.Text, nullable=False),
        sa.Column("corrected", sa.Boolean, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("findings", JSON, nullable=False),
        sa.Column("said_at", TIME, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
    )
    op.create_index("ix_early_reports_study", "early_reports", ["study_uid"])
    op.create_index("ix_early_reports_accession", "early_reports", ["accession_number"])


def downgrade() -> None:
    """Without them again."""
    op.drop_table("early_reports")
    op.drop_column("outbox", "deaths")
    op.drop_column("studies", "reported_at")
