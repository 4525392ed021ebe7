"""The database: what was received, what was said of it, and what has to be told. The database is the queue.

    studies ──< jobs ──< predictions        one job for each received version of an instance
       └──────< revisions ──< outbox        one outbox row for each revision and destination
       └─── reports                         what the signed report says, and whether the model said otherwise
    early_reports                           those that came before the first film
    orders, patients                        what the hospital says of them by HL7 v2; messages: which it has said
    destinations                            how each does, as its courier has it
    rejections                              who was turned away, once for each kind
    people ──< sessions, invitations        who may look and act
    tokens                                  programs that may
    deeds                                   the audit trail
    feedback                                what readers say of flags
    policies                                finding x threshold -> urgency, by number
    training_runs ──o training_reports      what was asked of the trainers, and how far they are
    retrainings, trainers                   what is asked of them regularly; who was heard of, and what each knows
    models ──< model_events                 which model reads, which reads along, and what became of each
    model_readers                           which process reads with which
    jobs ──< shadow_predictions             what a candidate said in silence
    pauses                                  when flags were held back, by whom and why
    baselines ──o drift_alarms              how each scanner's films were, and when they were otherwise

States and their moves are in `schemas.lifecycle`, `schemas.training_run` and `schemas.registry`. Every time is aware
and stored as UTC. Texts have no length limit: what a modality sends must not be able to make a row fail.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in, aware UTC out, also on SQLite, which has no time zones. Naive ones are refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the driver's idea of UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows itself only in an INTEGER primary key
Json = JSON().with_variant(JSONB(), "postgresql")
JsonOrNull = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class Base(DeclarativeBase):
    """Its metadata is what the migrations must arrive at."""

    type_annotation_map = {  # noqa: RUF012  SQLAlchemy's own way to say it
        datetime: UtcDateTime,
        str: Text,
        dict[str, Any]: Json,
        list[Any]: Json,
    }


class Study(Base):
    """Where a study stands, and its urgency. Writers lock this row first, then rows of its other tables."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_uid: Mapped[str] = mapped_column(unique=True)
    context: Mapped[dict[str, Any]]  # StudyContext
    accession_number: Mapped[str | None]  # of the context, to be found by; None: not known
    patient_id: Mapped[str | None]  # likewise
    order_urgency: Mapped[int] = mapped_column(default=0, server_default="0")  # Urgency, of its orders
    rank: Mapped[int] = mapped_column(default=0, server_default="0")  # its place: the higher of both urgencies
    state: Mapped[str]  # StudyState
    urgency: Mapped[int] = mapped_column(default=0)  # Urgency; only rises
    reasons: Mapped[list[Any]]  # Reason, of the latest revision
    revision: Mapped[int] = mapped_column(default=0)  # 0: nothing told yet
    digest: Mapped[str | None]  # of the latest revision's content
    received_at: Mapped[datetime]  # first film
    last_received_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]  # latest revision
    closed: Mapped[bool] = mapped_column(Boolean, default=False)  # off the worklist: its films were let go
    withdrawn: Mapped[str | None]  # Withdrawal, where the latest revision is one; "reported": off the worklist
    withdrawn_at: Mapped[datetime | None]  # what films said before this raises the study no more
    reported_at: Mapped[datetime | None]  # nor does any film that was received before this
    opened_at: Mapped[datetime | None]  # somebody looked at it, first
    claimed_by: Mapped[str | None]  # who reads it
    claimed_at: Mapped[datetime | None]
    read_by: Mapped[str | None]  # who has read it: off the worklist
    read_at: Mapped[datetime | None]
    changes: Mapped[int] = mapped_column(BigInteger, default=0)  # counts whatever the worklist may show


# A million closed studies weigh nothing on what is asked all day. Partial indexes are chosen also where PostgreSQL's
# statistics are those of a quiet night: a queue is empty when it looks, and full when it matters.
_open: Final[dict[str, Any]] = {f"{name}_where": Study.closed.is_(False) for name in ("sqlite", "postgresql")}
Index("ix_studies_worklist", Study.rank.desc(), Study.received_at, Study.id, **_open)
Index("ix_studies_state", Study.state, Study.last_received_at, **_open)
Index("ix_studies_accession", Study.accession_number)
_read: Final[dict[str, Any]] = {f"{name}_where": Study.read_at.is_not(None) for name in ("sqlite", "postgresql")}
Index("ix_studies_read", Study.read_at, **_read)
Index("ix_studies_patient", Study.patient_id)


class Job(Base):
    """One received version of one instance, from door 1 to door 2."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    sop_uid: Mapped[str]
    version: Mapped[int]
    current: Mapped[bool] = mapped_column(Boolean)  # the latest version of its instance
    digest: Mapped[str]  # SHA-256 of the encoded data set
    path: Mapped[str | None]  # relative to the spool; None: let go
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    series_uid: Mapped[str]
    sop_class: Mapped[str]
    transfer_syntax: Mapped[str]
    calling_ae: Mapped[str]
    called_ae: Mapped[str]
    address: Mapped[str]
    order_urgency: Mapped[int]  # Urgency
    state: Mapped[str]  # JobState
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    received_at: Mapped[datetime]
    claimed_at: Mapped[datetime | None]
    concluded_at: Mapped[datetime | None]  # None: SPOOLED or READING
    reading: Mapped[int] = mapped_column(default=0)  # number of the prediction that counts; 0: none
    not_analysed: Mapped[str | None]  # NotAnalysed; a film with a code has no score
    detail: Mapped[str] = mapped_column(default="")
    scanner: Mapped[dict[str, Any] | None] = mapped_column(JsonOrNull)  # Scanner; None: its header was not kept

    __table_args__ = (
        Index("uq_jobs_version", "study_id", "sop_uid", "version", unique=True),
        Index("ix_jobs_path", "path"),
        Index("ix_jobs_instance", "sop_uid"),
    )


Index("ix_jobs_queue", Job.state, Job.order_urgency.desc(), Job.received_at, Job.id)
_unsettled: Final[dict[str, Any]] = {f"{name}_where": Job.concluded_at.is_(None) for name in ("sqlite", "postgresql")}
Index("ix_jobs_unsettled", Job.study_id, **_unsettled)
Index("ix_jobs_concluded", Job.concluded_at)


class PredictionRow(Base):
    """What the models said of a film, each time that it was read; kept for ever."""

    __tablename__ = "predictions"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    reading: Mapped[int] = mapped_column(primary_key=True)  # 1, 2, …
    model_id: Mapped[str]
    binary: Mapped[float]
    findings: Mapped[dict[str, Any]]  # the 15 labels
    thresholds: Mapped[dict[str, Any]]  # every threshold that was looked at
    consistency: Mapped[str]  # Consistency
    urgency: Mapped[int]  # Urgency
    reasons: Mapped[list[Any]]  # Reason
    remarks: Mapped[list[Any]]
    timings_ms: Mapped[dict[str, Any]]
    concluded_at: Mapped[datetime]
    policy: Mapped[int | None]  # number of the policy that decided; 0: the configuration's; None: before there were any


class Revision(Base):
    """One state of a study's urgency as it was told to the world; never changed."""

    __tablename__ = "revisions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    revision: Mapped[int]
    urgency: Mapped[int]  # Urgency
    snapshot: Mapped[dict[str, Any]]  # reasons, films and context as they were
    digest: Mapped[str]
    model_id: Mapped[str]
    model_name: Mapped[str]
    model_version: Mapped[str]
    decided_at: Mapped[datetime]
    withdrawn: Mapped[str | None]  # Withdrawal

    __table_args__ = (
        Index("uq_revisions_revision", "study_id", "revision", unique=True),
        Index("ix_revisions_decided", "decided_at"),
    )


class OutboxRow(Base):
    """One revision on its way to one destination."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"))
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    revision: Mapped[int]
    destination: Mapped[str]
    urgency: Mapped[int]  # Urgency
    state: Mapped[str]  # OutboxState
    attempts: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0, server_default="0")  # senders lost over it, one after another
    next_attempt_at: Mapped[datetime]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    last_error: Mapped[str | None]
    object_id: Mapped[str | None]  # Receipt
    proof: Mapped[str | None]  # Receipt
    created_at: Mapped[datetime]  # when the revision was decided
    sent_at: Mapped[datetime | None]
    proven_at: Mapped[datetime | None]  # later than sent_at where Storage Commitment was asked for

    __table_args__ = (Index("uq_outbox_delivery", "study_id", "destination", "revision", unique=True),)


Index("ix_outbox_object", OutboxRow.object_id)
Index("ix_outbox_created", OutboxRow.created_at)
Index(
    "ix_outbox_queue",
    OutboxRow.state,
    OutboxRow.destination,
    OutboxRow.urgency.desc(),
    OutboxRow.created_at,
    OutboxRow.id,
)


class DestinationRow(Base):
    """How a destination does, as the courier that spoke last has it."""

    __tablename__ = "destinations"

    name: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[str]  # Line
    failures: Mapped[int]
    since: Mapped[datetime]
    next_trial_at: Mapped[datetime | None]
    last_error: Mapped[str]


class MessageRow(Base):
    """An HL7 v2 message that was taken; when it comes again it changes nothing. Kept for some weeks."""

    __tablename__ = "messages"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sender: Mapped[str]
    control_id: Mapped[str]
    digest: Mapped[str]  # SHA-256: senders that count from 1 again give a number twice
    received_at: Mapped[datetime]

    __table_args__ = (
        Index("uq_messages_message", "sender", "control_id", unique=True),
        Index("ix_messages_age", "received_at"),
    )


class OrderRow(Base):
    """An order as the latest message has it."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    accession_number: Mapped[str]
    placer_number: Mapped[str]
    filler_number: Mapped[str]
    urgency: Mapped[int]  # Urgency
    cancelled: Mapped[bool] = mapped_column(Boolean)
    reason: Mapped[str]
    patient_id: Mapped[str]
    said_at: Mapped[datetime]
    received_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_orders_accession", "accession_number"),
        Index("ix_orders_placer", "placer_number"),
        Index("ix_orders_filler", "filler_number"),
    )


class PatientRow(Base):
    """A patient's identifier: whom it stands for now, and what was corrected. Films go on coming in with the old."""

    __tablename__ = "patients"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    patient_id: Mapped[str]
    issuer: Mapped[str]
    name: Mapped[str]
    birth_date: Mapped[str]
    sex: Mapped[str]
    said_at: Mapped[datetime | None]  # name, birth date and sex
    merged_into: Mapped[str | None]
    merged_into_issuer: Mapped[str | None]
    merged_at: Mapped[datetime | None]

    __table_args__ = (Index("uq_patients_identifier", "patient_id", "issuer", unique=True),)


class ReportRow(Base):
    """The signed report of a study: its verdict beside the model's, never its text."""

    __tablename__ = "reports"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    report_id: Mapped[str]
    corrected: Mapped[bool] = mapped_column(Boolean)
    verdict: Mapped[str | None]  # Verdict
    rule: Mapped[str]  # that gave it
    findings: Mapped[list[Any]]  # Label, those that the report codes
    said_at: Mapped[datetime]
    received_at: Mapped[datetime]
    model_verdict: Mapped[str | None]  # Verdict
    model_words: Mapped[list[Any]]
    disagrees: Mapped[bool] = mapped_column(Boolean)
    seen_at: Mapped[datetime | None]  # somebody had the second look

    __table_args__ = (Index("uq_reports_study", "study_id", unique=True),)


class EarlyReportRow(Base):
    """A signed report of a study of which no film is here yet; kept for some weeks."""

    __tablename__ = "early_reports"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_uid: Mapped[str]
    accession_number: Mapped[str]
    patients: Mapped[list[Any]]  # PatientRef, each as [id, issuer]
    report_id: Mapped[str]
    corrected: Mapped[bool] = mapped_column(Boolean)
    verdict: Mapped[str | None]  # Verdict
    rule: Mapped[str]
    findings: Mapped[list[Any]]  # Label
    said_at: Mapped[datetime]
    received_at: Mapped[datetime]

    __table_args__ = (
        Index("ix_early_reports_study", "study_uid"),
        Index("ix_early_reports_accession", "accession_number"),
    )


_listed: Final[dict[str, Any]] = {
    f"{name}_where": ReportRow.disagrees.is_(True) & ReportRow.seen_at.is_(None) for name in ("sqlite", "postgresql")
}
Index("ix_reports_second_look", ReportRow.said_at, ReportRow.id, **_listed)


class RejectionRow(Base):
    """Who was turned away and why; the same again only counts."""

    __tablename__ = "rejections"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    calling_ae: Mapped[str]
    called_ae: Mapped[str]
    address: Mapped[str]
    what: Mapped[str]
    mend: Mapped[str]
    count: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]

    __table_args__ = (Index("uq_rejections_kind", "calling_ae", "called_ae", "address", "what", unique=True),)


class PersonRow(Base):
    """Somebody who may sign in."""

    __tablename__ = "people"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str]
    folded: Mapped[str] = mapped_column(unique=True)  # as names are compared: case and spelling do not count
    role: Mapped[str]  # Role
    password: Mapped[str | None]  # argon2id; None: by OpenID Connect, or not chosen yet
    subject: Mapped[str | None] = mapped_column(unique=True)  # "issuer subject" of OpenID Connect
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    wrong: Mapped[int] = mapped_column(default=0)  # passwords, one after another
    locked_until: Mapped[datetime | None]
    view: Mapped[dict[str, Any]]  # saved filters by name, and what else a person set for itself


class SessionRow(Base):
    """A browser that somebody signed in with."""

    __tablename__ = "sessions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)  # SHA-256 of the cookie
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    locked: Mapped[bool] = mapped_column(Boolean, default=False)  # idle: asks for the password, keeps the place


Index("ix_sessions_person", SessionRow.person_id)


class InvitationRow(Base):
    """A link with which somebody chooses a password, once."""

    __tablename__ = "invitations"

    digest: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the link's secret
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    expires_at: Mapped[datetime]


class TokenRow(Base):
    """A program's key to the API."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)  # SHA-256 of the key
    name: Mapped[str]
    role: Mapped[str]  # Role
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked: Mapped[bool] = mapped_column(Boolean, default=False)


class DeedRow(Base):
    """The audit trail. Triggers of the migrations see to it that no line is changed or removed."""

    __tablename__ = "deeds"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    who: Mapped[str]
    action: Mapped[str]
    study_uid: Mapped[str]  # empty: of no study
    detail: Mapped[dict[str, Any]]
    address: Mapped[str]


Index("ix_deeds_who", DeedRow.who, DeedRow.id)
Index("ix_deeds_study", DeedRow.study_uid, DeedRow.id)


class FeedbackRow(Base):
    """A reader's word on a study; the latest that was not taken back counts."""

    __tablename__ = "feedback"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    reader: Mapped[str]
    judgement: Mapped[str]  # Judgement
    findings: Mapped[list[Any]]  # Label, that the reader sees
    revision: Mapped[int]  # of the flag that was judged; 0: none
    model_id: Mapped[str]  # that made it
    at: Mapped[datetime]
    undone_at: Mapped[datetime | None]


Index("ix_feedback_study", FeedbackRow.study_id)
Index("ix_feedback_at", FeedbackRow.at)


class PolicyRow(Base):
    """A policy of the site; what it says is never changed. Number 0 is the configuration's and has no row."""

    __tablename__ = "policies"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    body: Mapped[dict[str, Any]]  # Policy
    note: Mapped[str]  # what it is for
    made_by: Mapped[str]
    made_at: Mapped[datetime]
    effective_at: Mapped[datetime | None]  # None: proposed, never in force
    enacted_by: Mapped[str | None]
    enacted_because: Mapped[str | None]
    followed: Mapped[int | None]  # the policy that was in force before it

    __table_args__ = (Index("uq_policies_followed", "followed", unique=True),)


class TrainingRunRow(Base):
    """A training run, from the request to the bundle; the queue of the trainers."""

    __tablename__ = "training_runs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str]
    state: Mapped[str]  # RunState
    preset: Mapped[str] = mapped_column(default="")
    description: Mapped[str] = mapped_column(default="")  # TOML
    data: Mapped[str]
    folder: Mapped[str] = mapped_column(default="")
    requested_by: Mapped[str]
    requested_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    cancel_asked: Mapped[bool] = mapped_column(Boolean, default=False)
    progress: Mapped[dict[str, Any]]  # Progress
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str] = mapped_column(default="")
    changes: Mapped[int] = mapped_column(BigInteger, default=0)  # counts whatever a page may show

    __table_args__ = (Index("ix_training_runs_queue", "state", "requested_at", "id"),)


class TrainingReportRow(Base):
    """The report of a run that is done: a page in one piece. Apart, so that looking at the queue reads none."""

    __tablename__ = "training_reports"

    run_id: Mapped[int] = mapped_column(BigId, ForeignKey("training_runs.id"), primary_key=True)
    html: Mapped[str]


class RetrainingRow(Base):
    """An entry of the calendar: the run that is asked for again and again."""

    __tablename__ = "retrainings"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str]
    cron: Mapped[str]  # minute, hour, day, month, weekday; UTC
    preset: Mapped[str]
    description: Mapped[str]  # TOML
    data: Mapped[str]
    made_by: Mapped[str]
    made_at: Mapped[datetime]
    next_at: Mapped[datetime]  # when the next run is asked for
    last_run: Mapped[int | None] = mapped_column(BigId, ForeignKey("training_runs.id"))

    __table_args__ = (Index("ix_retrainings_next", "next_at"),)


class TrainerRow(Base):
    """A trainer that said that it is there."""

    __tablename__ = "trainers"

    name: Mapped[str] = mapped_column(primary_key=True)
    presets: Mapped[dict[str, Any]]  # name → what it is for
    seen_at: Mapped[datetime]


class ModelRow(Base):
    """A model bundle that this site knows."""

    __tablename__ = "models"

    model_id: Mapped[str] = mapped_column(primary_key=True)  # content address of the bundle
    name: Mapped[str]
    version: Mapped[str]
    bundle: Mapped[str]  # its name in the store, or its folder
    state: Mapped[str]  # ModelState
    added_at: Mapped[datetime]
    card: Mapped[dict[str, Any]]  # of its card, what people ask for
    changes: Mapped[int] = mapped_column(BigInteger, default=0)


# One model reads, and one at most reads along: whatever goes wrong elsewhere, not this.
for _state in ("live", "shadow"):
    _only: dict[str, Any] = {f"{name}_where": text(f"state = '{_state}'") for name in ("sqlite", "postgresql")}
    Index(f"uq_models_{_state}", ModelRow.state, unique=True, **_only)


class ModelEventRow(Base):
    """What became of a model; never changed, never removed."""

    __tablename__ = "model_events"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.model_id"))
    who: Mapped[str]
    action: Mapped[str]  # ModelAction
    from_state: Mapped[str | None]  # ModelState
    to_state: Mapped[str | None]  # None: no move
    why: Mapped[str]
    checks: Mapped[list[Any]]  # Check, those that it was judged by


Index("ix_model_events_model", ModelEventRow.model_id, ModelEventRow.id)
Index("ix_model_events_to", ModelEventRow.to_state, ModelEventRow.at)


class ModelReaderRow(Base):
    """A process that reads films, and the model that it reads them with."""

    __tablename__ = "model_readers"

    reader: Mapped[str] = mapped_column(primary_key=True)
    model_id: Mapped[str]
    since: Mapped[datetime]
    shadow_id: Mapped[str | None]  # that reads along
    fault: Mapped[str]  # why it does not read with the live model, or not along with the shadow; empty: it does
    dropped: Mapped[int] = mapped_column(BigInteger)  # films that the shadow had no time for
    seen_at: Mapped[datetime]


class ShadowPredictionRow(Base):
    """What a candidate said of a film in silence, and what was said aloud."""

    __tablename__ = "shadow_predictions"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.model_id"), primary_key=True)
    binary: Mapped[float]
    findings: Mapped[dict[str, Any]]  # the 15 labels
    thresholds: Mapped[dict[str, Any]]  # every threshold that was looked at
    urgency: Mapped[int]  # Urgency, that it would have given
    reasons: Mapped[list[Any]]  # Reason
    live_model_id: Mapped[str]
    live_urgency: Mapped[int]  # Urgency
    live_reasons: Mapped[list[Any]]  # Reason
    at: Mapped[datetime]


Index("ix_shadow_predictions_at", ShadowPredictionRow.model_id, ShadowPredictionRow.at)


class PauseRow(Base):
    """Flags were paused, or resumed; the latest word counts. Lines are added, never changed, never removed."""

    __tablename__ = "pauses"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    who: Mapped[str]
    paused: Mapped[bool] = mapped_column(Boolean)  # False: resumed
    why: Mapped[str]


class BaselineRow(Base):
    """A scanner as a model knows it: its films from `since` on, until they are enough, are what it is compared with."""

    __tablename__ = "baselines"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model_id: Mapped[str]
    scanner: Mapped[dict[str, Any]]  # Scanner
    seen_at: Mapped[datetime]  # when the watch first saw it, or whoever set the one before aside
    since: Mapped[datetime]
    sample: Mapped[dict[str, Any] | None] = mapped_column(JsonOrNull)  # Sample; None: it is being learnt
    made_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]  # set aside for the next
    ended_by: Mapped[str | None]


Index("ix_baselines_model", BaselineRow.model_id, BaselineRow.id)


class DriftAlarmRow(Base):
    """A measure of a scanner was over its limit."""

    __tablename__ = "drift_alarms"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model_id: Mapped[str]
    scanner: Mapped[dict[str, Any]]  # Scanner
    measure: Mapped[str]  # Measure
    value: Mapped[float]
    limit: Mapped[float]
    began_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    told_at: Mapped[datetime | None]  # by mail, that it began
    over_told_at: Mapped[datetime | None]  # that it ended


Index("ix_drift_alarms_began", DriftAlarmRow.began_at)
