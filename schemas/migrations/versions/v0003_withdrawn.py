"""Flags can be withdrawn, and are proven later than they are sent where a PACS commits to keep them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Columns that are empty for what went before; what was sent then is as proven as it will ever be."""
    op.add_column("studies", sa.Column("withdrawn", sa.Text))
    op.add_column("studies", sa.Column("withdrawn_at", TIME))
    op.add_column("revisions", sa.Column("withdrawn", sa.Text))
    op.add_column("outbox", sa.Column("proven_at", TIME))
    op.create_index("ix_outbox_object", "outbox", ["object_id"])
    op.execute("UPDATE outbox SET proven_at = sent_at WHERE sent_at IS NOT NULL")


def downgrade() -> None:
    """Without them again."""
    op.drop_index("ix_outbox_object", "outbox")
    op.drop_column("outbox", "proven_at")
    op.drop_column("revisions", "withdrawn")
    op.drop_column("studies", "withdrawn_at")
    op.drop_column("studies", "withdrawn")
