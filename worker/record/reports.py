"""Signed reports: they close the reading tasks of their studies, and their verdict is set beside the model's.

One that comes before the first film of its study waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from schemas.context import PatientRef, SignedReport, Verdict
from schemas.findings import Label
from schemas.flag import Withdrawal
from schemas.outcome import Route
from schemas.tables import EarlyReportRow, ReportRow, Study
from worker.record.filing import BY_ACCESSION, BY_UID, corrected, follow, locked, patient_of
from worker.record.second_look import compare_again
from worker.record.shapes import clean
from worker.record.studies import withdraw_locked

_REPORT: Final = select(ReportRow).where(ReportRow.study_id == bindparam("study"))
_NEW_REPORT: Final = insert(ReportRow).values(model_words=[], disagrees=False)
_KEEP: Final = insert(EarlyReportRow)
_EARLY: Final = (
    select(EarlyReportRow)
    .where(
        or_(
            (EarlyReportRow.study_uid != "") & (EarlyReportRow.study_uid == bindparam("study_uid")),
            (EarlyReportRow.accession_number != "") & (EarlyReportRow.accession_number == bindparam("accession")),
        )
    )
    .order_by(EarlyReportRow.said_at, EarlyReportRow.id)
)
# The other films of a study that comes late follow its first one at once, and were reported with it.
_REST: Final = timedelta(minutes=10)
_ALSO_THE_REST: Final = update(Study).where(Study.id == bindparam("study")).values(reported_at=bindparam("until"))
_APPLIED: Final = delete(EarlyReportRow).where(EarlyReportRow.id.in_(bindparam("ids", expanding=True)))


def take_report(connection: Connection, report: SignedReport, route: Route, now: datetime) -> dict[int, bool]:
    """Do what follows from a report; by study, whether there is something to tell of it."""
    changed: dict[int, bool] = {}
    studies = _studies_of(connection, report)
    if not studies and (report.study_uid or report.accession_number):
        _keep(connection, report, now)
    for study in studies:
        told = _apply(connection, study.id, report, route, now)
        if told is not None:
            changed[study.id] = told > 0
    return changed


def take_early_reports(
    connection: Connection, study_id: int, study_uid: str, context: Mapping[str, str], now: datetime
) -> None:
    """The reports that waited for this study, of which the first film is here: it was reported with that film."""
    key = {"study_uid": study_uid, "accession": context["accession_number"]}
    waiting = [(row.id, _early(row)) for row in connection.execute(_EARLY, key)]
    mine = {early_id: report for early_id, report in waiting if _is_of(connection, report, context)}
    for report in mine.values():
        _apply(connection, study_id, report, _nobody, now)
    if mine:
        connection.execute(_APPLIED, {"ids": list(mine)})
        connection.execute(_ALSO_THE_REST, {"study": study_id, "until": now + _REST})


def _nobody(*_: object) -> list[str]:
    """Nothing was told of a study whose first film is just here."""
    return []


def _apply(connection: Connection, study_id: int, report: SignedReport, route: Route, now: datetime) -> int | None:
    """How many flags were taken back; None where a later report is known."""
    known = connection.execute(_REPORT, {"study": study_id}).one_or_none()
    if known is not None and known.said_at > report.said_at:
        return None
    withdrawn = withdraw_locked(connection, [study_id], Withdrawal.REPORTED, route, now)
    _record(connection, study_id, known, report, now)
    compare_again(connection, study_id)
    return withdrawn


def _studies_of(connection: Connection, report: SignedReport) -> list[Any]:
    """By Study Instance UID where the report names one that is known, else by accession number; of its patient."""
    found: list[Any] = []
    if report.study_uid:
        found = locked(connection, BY_UID, {"study_uid": report.study_uid})
    if not found and report.accession_number:
        found = locked(connection, BY_ACCESSION, {"accession": clean(report.accession_number)})
    return [study for study in found if _is_of(connection, report, study.context)]


def _is_of(connection: Connection, report: SignedReport, context: Mapping[str, str]) -> bool:
    """Whether the report may be of the patient of this context."""
    patient = patient_of(corrected(connection, context))
    patients = [follow(connection, other)[0] for other in report.patients]
    return not patients or not patient.id or any(patient.agrees(other) for other in (*patients, *report.patients))


def _keep(connection: Connection, report: SignedReport, now: datetime) -> None:
    values = {
        "study_uid": clean(report.study_uid),
        "accession_number": clean(report.accession_number),
        "patients": [[clean(patient.id), clean(patient.issuer)] for patient in report.patients],
        "report_id": clean(report.report_id),
        "corrected": report.corrected,
        "verdict": report.verdict,
        "rule": clean(report.rule),
        "findings": [str(finding) for finding in report.findings],
        "said_at": report.said_at,
        "received_at": now,
    }
    connection.execute(_KEEP, values)


def _early(row: Any) -> SignedReport:
    return SignedReport(
        accession_number=row.accession_number,
        study_uid=row.study_uid,
        patients=tuple(PatientRef(id=identifier, issuer=issuer) for identifier, issuer in row.patients),
        report_id=row.report_id,
        corrected=row.corrected,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        rule=row.rule,
        findings=tuple(Label(finding) for finding in row.findings),
        said_at=row.said_at,
    )


def _record(connection: Connection, study_id: int, known: Any | None, report: SignedReport, now: datetime) -> None:
    """The study's report. One whose verdict is not known does not unsay what the one before it said."""
    values: dict[str, Any] = {
        "report_id": clean(report.report_id),
        "corrected": report.corrected,
        "said_at": report.said_at,
        "received_at": now,
    }
    if known is None or report.verdict is not None:
        said = {"verdict": report.verdict, "rule": clean(report.rule), "findings": [str(f) for f in report.findings]}
        values |= said
        if known is not None and (known.verdict, known.findings) != (said["verdict"], said["findings"]):
            values["seen_at"] = None  # who saw it saw something else
    if known is None:
        connection.execute(_NEW_REPORT, {"study_id": study_id, **values})
    else:
        connection.execute(update(ReportRow).where(ReportRow.id == known.id).values(**values))
