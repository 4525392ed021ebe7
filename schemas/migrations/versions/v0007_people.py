"""Who may look and act, what they did, and what they say of the studies that they read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
OF_STUDIES = (
    ("opened_at", TIME),
    ("claimed_by", sa.Text),
    ("claimed_at", TIME),
    ("read_by", sa.Text),
    ("read_at", TIME),
)


def upgrade() -> None:
    """Nobody yet: the first start invites an administrator."""
    for name, kind in OF_STUDIES:
        op.add_column("studies", sa.Column(name, kind))
    read = sa.text("read_at IS NOT NULL")
    op.create_index("ix_studies_read", "studies", ["read_at"], sqlite_where=read, postgresql_where=read)
    op.create_table(
        "people",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("folded", sa.Text, nullable=False, unique=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("password", sa.Text),
        sa.Column("subject", sa.Text, unique=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_seen_at", TIME),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("wrong", sa.Integer, nullable=False),
        sa.Column("locked_until", TIME),
        sa.Column("view", JSON, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("id", ID, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("person_id", ID, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("locked", sa.Boolean, nullable=False),
    )
    op.create_index("ix_sessions_person", "sessions", ["person_id"])
    op.create_table(
        "invitations",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("person_id", ID, sa.ForeignKey("people.id"), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", ID, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("last_used_at", TIME),
        sa.Column("revoked", sa.Boolean, nullable=False),
    )
    op.create_table(
        "deeds",
        sa.Column("id", ID, primary_key=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("study_uid", sa.Text, nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
    )
    op.create_index("ix_deeds_who", "deeds", ["who", "id"])
    op.create_index("ix_deeds_study", "deeds", ["study_uid", "id"])
    _only_added_to(op.get_bind().dialect.name)
    op.create_table(
        "feedback",
        sa.Column("id", ID, primary_key=True),
        sa.Column("study_id", ID, sa.ForeignKey("studies.id"), nullable=False),
        sa.Column("reader", sa.Text, nullable=False),
        sa.Column("judgement", sa.Text, nullable=False),
        sa.Column("findings", JSON, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("model_id", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("undone_at", TIME),
    )
    op.create_index("ix_feedback_study", "feedback", ["study_id"])
    op.create_index("ix_feedback_at", "feedback", ["at"])


def _only_added_to(dialect: str) -> None:
    """No line of the audit trail is changed or removed, by whatever program."""
    words = "the audit trail is only ever added to"
    if dialect == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER deeds_stay_{change.lower()} BEFORE {change} ON deeds "
                f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION deeds_stay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{words}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER deeds_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON deeds "
        "FOR EACH STATEMENT EXECUTE FUNCTION deeds_stay()"
    )


def downgrade() -> None:
    """Without them again."""
    for table in ("feedback", "deeds", "tokens", "invitations", "sessions", "people"):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION deeds_stay")
    op.drop_index("ix_studies_read", "studies")
    for name, _ in reversed(OF_STUDIES):
        op.drop_column("studies", name)
