"""Where the signed report and the model say otherwise: the list of studies that deserve a second look.

The model is positive where the site's policy raised one of the study's films, whatever became of the flag later. It is
negative where films were read and nothing reached its operating point, also nothing that the policy leaves silent.
In between it is neither, like a study of which no film was read.

A positive report that codes findings is compared by these: it disagrees where every one of them is below its operating
point in every film, even if the model raised the study for something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from schemas.context import Verdict
from schemas.decision import Reason, Urgency
from schemas.findings import FINDINGS, Label
from schemas.lifecycle import JobState
from schemas.tables import Job, PredictionRow, ReportRow, Study
from worker.record.database import Database
from worker.record.rows import word
from worker.record.shapes import reasons_from_json

BINARY: Final = "binary"  # the binary model's key among the thresholds

_SAID: Final = (
    select(
        PredictionRow.binary,
        PredictionRow.findings,
        PredictionRow.thresholds,
        PredictionRow.urgency,
        PredictionRow.reasons,
    )
    .join(Job, (Job.id == PredictionRow.job_id) & (Job.reading == PredictionRow.reading))
    .where(Job.study_id == bindparam("study_id"), Job.state == word(JobState.READ))
    .order_by(Job.id)
)
_REPORT: Final = select(ReportRow.id, ReportRow.verdict, ReportRow.findings).where(
    ReportRow.study_id == bindparam("study_id")
)
_COMPARED: Final = (
    update(ReportRow)
    .where(ReportRow.id == bindparam("report"))
    .values(model_verdict=bindparam("said"), model_words=bindparam("words"), disagrees=bindparam("differs"))
)
_LISTED: Final = (ReportRow.disagrees.is_(True), ReportRow.seen_at.is_(None))
_LIST: Final = (
    select(
        Study.study_uid,
        Study.context,
        ReportRow.verdict,
        ReportRow.rule,
        ReportRow.findings,
        ReportRow.model_verdict,
        ReportRow.model_words,
        ReportRow.report_id,
        ReportRow.corrected,
        ReportRow.said_at,
        ReportRow.received_at,
    )
    .join(Study, Study.id == ReportRow.study_id)
    .where(*_LISTED)
    .order_by(ReportRow.said_at, ReportRow.id)
    .limit(bindparam("limit"))
)
_DONE: Final = (
    update(ReportRow)
    .where(
        ReportRow.study_id == select(Study.id).where(Study.study_uid == bindparam("study_uid")).scalar_subquery(),
        *_LISTED,
    )
    .values(seen_at=bindparam("now"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What the model said, in words, and whether the report says otherwise."""

    model: Verdict | None
    words: tuple[str, ...]
    disagrees: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondLook:
    """A study on the list."""

    study_uid: str
    accession_number: str
    patient_id: str
    patient_name: str  # PN as sent
    report: Verdict
    rule: str  # which gave the report's verdict
    findings: tuple[str, ...]  # that the report codes
    report_id: str
    corrected: bool
    model: Verdict | None
    model_words: tuple[str, ...]
    said_at: datetime  # the report
    received_at: datetime


class SecondLooks:
    """The list of studies that deserve a second look."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(self, limit: int) -> list[SecondLook]:
        """Those that nobody has marked as seen, the oldest report first."""
        return self._database.read(
            lambda connection: [_row(row) for row in connection.execute(_LIST, {"limit": limit})]
        )

    def done(self, study_uid: str, now: datetime) -> bool:
        """Somebody looked; whether the study was on the list."""
        values = {"study_uid": study_uid, "now": now}
        return self._database.write(lambda connection: connection.execute(_DONE, values).rowcount) > 0


def compare_again(connection: Connection, study_id: int) -> None:
    """Set the study's report beside what its films say now. Callers hold the lock on the study."""
    report = connection.execute(_REPORT, {"study_id": study_id}).one_or_none()
    if report is None:
        return
    verdict = None if report.verdict is None else Verdict(report.verdict)
    found = compare(verdict, [Label(finding) for finding in report.findings], said_of(connection, study_id))
    connection.execute(
        _COMPARED,
        {"report": report.id, "said": found.model, "words": list(found.words), "differs": found.disagrees},
    )


def said_of(connection: Connection, study_id: int) -> Sequence[Any]:
    """The prediction that counts of each film of the study."""
    return connection.execute(_SAID, {"study_id": study_id}).all()


def compare(report: Verdict | None, coded: Sequence[Label], films: Sequence[Any]) -> Comparison:
    """The report's verdict and the findings that it codes beside the films' predictions."""
    reasons = [reason.words for film in films for reason in reasons_from_json(film.reasons)]
    if any(film.urgency > Urgency.ROUTINE or film.reasons for film in films):
        model: Verdict | None = Verdict.POSITIVE
    elif films and not any(_reached(film, finding) for film in films for finding in (*FINDINGS, BINARY)):
        model = Verdict.NEGATIVE
    else:
        model = None
    if report is Verdict.POSITIVE and coded:
        missed = bool(films) and not any(_reached(film, finding) for film in films for finding in coded)
        best = [_best(films, finding) for finding in coded] if missed else reasons
        return Comparison(model=model, words=tuple(best), disagrees=missed)
    disagrees = report is not None and model is not None and report is not model
    return Comparison(model=model, words=tuple(dict.fromkeys(reasons)), disagrees=disagrees)


def _probability(film: Any, finding: str) -> float:
    findings: Mapping[str, float] = film.findings
    return float(film.binary if finding == BINARY else findings[finding])


def _reached(film: Any, finding: str) -> bool:
    """Whether it is at its operating point; one that has none is never."""
    threshold = film.thresholds.get(finding)
    return threshold is not None and _probability(film, finding) >= threshold


def _best(films: Sequence[Any], finding: str) -> str:
    film = max(films, key=lambda film: _probability(film, finding))
    threshold = film.thresholds.get(finding, 1.0)
    return Reason(
        finding=finding, probability=_probability(film, finding), threshold=threshold, urgency=Urgency.ROUTINE
    ).words


def _row(row: Any) -> SecondLook:
    context = row.context
    return SecondLook(
        study_uid=row.study_uid,
        accession_number=context["accession_number"],
        patient_id=context["patient_id"],
        patient_name=context["patient_name"],
        report=Verdict(row.verdict),
        rule=row.rule,
        findings=tuple(row.findings),
        report_id=row.report_id,
        corrected=row.corrected,
        model=None if row.model_verdict is None else Verdict(row.model_verdict),
        model_words=tuple(row.model_words),
        said_at=row.said_at,
        received_at=row.received_at,
    )
