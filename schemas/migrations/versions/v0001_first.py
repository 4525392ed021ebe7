"""The first tables: studies, jobs, predictions, revisions, outbox, rejections."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Spelled out, not taken from `schemas.tables`: a step stays what it was when the tables move on.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "studies",
        sa.Column("id", ID, primary_key=True),
        sa.Column("study_uid", sa.Text, nullable=False, unique=True),
        sa.Column("context", JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("urgency", sa.Integer, nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("digest", sa.Text),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("last_received_at", TIME, nullable=False),
        sa.Column("decided_at", TIME),
        sa.Column("closed", sa.Boolean, nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False),
    )
    still_open: dict[str, Any] = {
        "sqlite_where": sa.text("closed IS 0"),
        "postgresql_where": sa.text("closed IS false"),
    }
    op.create_index("ix_studies_worklist", "studies", [sa.text("urgency DESC"), "received_at", "id"], **still_open)
    op.create_index("ix_studies_state", "studies", ["state", "last_received_at"], **still_open)
    op.create_table(
        "jobs",
        sa.Column("id", ID, primary_key=True),
        sa.Column("study_id", ID, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("sop_uid", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("current", sa.Boolean, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("path", sa.Text),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("series_uid", sa.Text, nullable=False),
        sa.Column("sop_class", sa.Text, nullable=False),
        sa.Column("transfer_syntax", sa.Text, nullable=False),
        sa.Column("calling_ae", sa.Text, nullable=False),
        sa.Column("called_ae", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("order_urgency", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", TIME, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", TIME),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("claimed_at", TIME),
        sa.Column("concluded_at", TIME),
        sa.Column("reading", sa.Integer, nullable=False),
        sa.Column("not_analysed", sa.Text),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("uq_jobs_version", "jobs", ["study_id", "sop_uid", "version"], unique=True)
    op.create_index("ix_jobs_path", "jobs", ["path"])
    op.create_index("ix_jobs_queue", "jobs", ["state", sa.text("order_urgency DESC"), "received_at", "id"])
    unsettled = sa.text("concluded_at IS NULL")
    op.create_index("ix_jobs_unsettled", "jobs", ["study_id"], sqlite_where=unsettled, postgresql_where=unsettled)
    op.create_table(
        "predictions",
        sa.Column("job_id", ID, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("reading", sa.Integer, primary_key=True),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("binary", sa.Double, nullable=False),
        sa.Column("findings", JSON, nullable=False),
        sa.Column("thresholds", JSON, nullable=False),
        sa.Column("consistency", sa.Text, nullable=False),
        sa.Column("urgency", sa.Integer, nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("remarks", JSON, nullable=False),
        sa.Column("timings_ms", JSON, nullable=False),
        sa.Column("concluded_at", TIME, nullable=False),
    )
    op.create_table(
        "revisions",
        sa.Column("id", ID, primary_key=True),
        sa.Column("study_id", ID, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("urgency", sa.Integer, nullable=False),
        sa.Column("snapshot", JSON, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("decided_at", TIME, nullable=False),
    )
    op.create_index("uq_revisions_revision", "revisions", ["study_id", "revision"], unique=True)
    op.create_table(
        "outbox",
        sa.Column("id", ID, primary_key=True),
        sa.Column("revision_id", ID, sa.ForeignKey("revisions.id"), nullable=False),
        sa.Column("study_id", ID, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("urgency", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", TIME, nullable=False),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", TIME),
        sa.Column("last_error", sa.Text),
        sa.Column("object_id", sa.Text),
        sa.Column("proof", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
    )
    op.create_index("uq_outbox_delivery", "outbox", ["study_id", "destination", "revision"], unique=True)
    queue: list[Any] = ["state", "destination", sa.text("urgency DESC"), "created_at", "id"]
    op.create_index("ix_outbox_queue", "outbox", queue)
    op.create_table(
        "rejections",
        sa.Column("id", ID, primary_key=True),
        sa.Column("calling_ae", sa.Text, nullable=False),
        sa.Column("called_ae", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("mend", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
    )
    op.create_index("uq_rejections_kind", "rejections", ["calling_ae", "called_ae", "address", "what"], unique=True)


def downgrade() -> None:
    """To an empty database; whatever was recorded is gone."""
    for table in ("rejections", "outbox", "revisions", "predictions", "jobs", "studies"):
        op.drop_table(table)
