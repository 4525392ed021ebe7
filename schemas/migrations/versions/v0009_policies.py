"""The site's policies by number, and which of them decided a film."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """None yet: the configuration's is in force. Which policy decided earlier films is not known."""
    op.create_table(
        "policies",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("effective_at", TIME),
        sa.Column("enacted_by", sa.Text),
        sa.Column("enacted_because", sa.Text),
        sa.Column("followed", sa.Integer),
    )
    op.create_index("uq_policies_followed", "policies", ["followed"], unique=True)
    op.add_column("predictions", sa.Column("policy", sa.Integer))


def downgrade() -> None:
    """Without them again."""
    op.drop_column("predictions", "policy")
    op.drop_index("uq_policies_followed", "policies")
    op.drop_table("policies")
