"""What the hospital says of patients, orders and reports, and studies that can be found by it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
OPEN: dict[str, Any] = {"sqlite_where": sa.text("closed IS 0"), "postgresql_where": sa.text("closed IS false")}
LISTED: dict[str, Any] = {
    "sqlite_where": sa.text("disagrees IS 1 AND seen_at IS NULL"),
    "postgresql_where": sa.text("disagrees IS true AND seen_at IS NULL"),
}


def upgrade() -> None:
    """What is known of a study so far came with its films."""
    op.add_column("studies", sa.Column("accession_number", sa.Text))
    op.add_column("studies", sa.Column("patient_id", sa.Text))
    op.add_column("studies", sa.Column("order_urgency", sa.Integer, nullable=False, server_default="0"))
    op.add_column("studies", sa.Column("rank", sa.Integer, nullable=False, server_default="0"))
    key = "context ->> '{}'" if op.get_bind().dialect.name == "postgresql" else "json_extract(context, '$.{}')"
    for name in ("accession_number", "patient_id"):
        op.execute(f"UPDATE studies SET {name} = nullif({key.format(name)}, '')")  # noqa: S608  names of our own
    op.execute("UPDATE studies SET rank = urgency")
    op.create_index("ix_studies_accession", "studies", ["accession_number"])
    op.create_index("ix_studies_patient", "studies", ["patient_id"])
    op.drop_index("ix_studies_worklist", "studies")
    op.create_index("ix_studies_worklist", "studies", [sa.text("rank DESC"), "received_at", "id"], **OPEN)
    op.create_table(
        "messages",
        sa.Column("id", ID, primary_key=True),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("control_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
    )
    op.create_index("uq_messages_message", "messages", ["sender", "control_id"], unique=True)
    op.create_index("ix_messages_age", "messages", ["received_at"])
    op.create_table(
        "orders",
        sa.Column("id", ID, primary_key=True),
        sa.Column("accession_number", sa.Text, nullable=False),
        sa.Column("placer_number", sa.Text, nullable=False),
        sa.Column("filler_number", sa.Text, nullable=False),
        sa.Column("urgency", sa.Integer, nullable=False),
        sa.Column("cancelled", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("patient_id", sa.Text, nullable=False),
        sa.Column("said_at", TIME, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
    )
    for name in ("accession", "placer", "filler"):
        op.create_index(f"ix_orders_{name}", "orders", [f"{name}_number"])
    op.create_table(
        "patients",
        sa.Column("id", ID, primary_key=True),
        sa.Column("patient_id", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("birth_date", sa.Text, nullable=False),
        sa.Column("sex", sa.Text, nullable=False),
        sa.Column("said_at", TIME),
        sa.Column("merged_into", sa.Text),
        sa.Column("merged_into_issuer", sa.Text),
        sa.Column("merged_at", TIME),
    )
    op.create_index("uq_patients_identifier", "patients", ["patient_id", "issuer"], unique=True)
    op.create_table(
        "reports",
        sa.Column("id", ID, primary_key=True),
        sa.Column("study_id", ID, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("report_id", sa.Text, nullable=False),
        sa.Column("corrected", sa.Boolean, nullable=False),
        sa.Column("verdict", sa.Text),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("findings", JSON, nullable=False),
        sa.Column("said_at", TIME, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("model_verdict", sa.Text),
        sa.Column("model_words", JSON, nullable=False),
        sa.Column("disagrees", sa.Boolean, nullable=False),
        sa.Column("seen_at", TIME),
    )
    op.create_index("uq_reports_study", "reports", ["study_id"], unique=True)
    op.create_index("ix_reports_second_look", "reports", ["said_at", "id"], **LISTED)


def downgrade() -> None:
    """Without them again."""
    for table in ("reports", "patients", "orders", "messages"):
        op.drop_table(table)
    op.drop_index("ix_studies_worklist", "studies")
    op.create_index("ix_studies_worklist", "studies", [sa.text("urgency DESC"), "received_at", "id"], **OPEN)
    op.drop_index("ix_studies_patient", "studies")
    op.drop_index("ix_studies_accession", "studies")
    for name in ("rank", "order_urgency", "patient_id", "accession_number"):
        op.drop_column("studies", name)
