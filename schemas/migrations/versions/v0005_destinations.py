"""How each destination does, for whoever looks from another process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Nothing is known of any. And films are found by their SOP Instance UID alone, for Storage Commitment."""
    op.create_index("ix_jobs_instance", "jobs", ["sop_uid"])
    op.create_table(
        "destinations",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("next_trial_at", TIME),
        sa.Column("last_error", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Without them again."""
    op.drop_table("destinations")
    op.drop_index("ix_jobs_instance", "jobs")
