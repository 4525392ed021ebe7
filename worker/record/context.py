"""What the hospital says of patients, orders and reports becomes rows, and what follows for its studies, in one step.

A message is taken once: the same one again changes nothing. What is older than what is known changes nothing either,
in whatever order messages arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from schemas.context import Content, Merge, MessageId, Order, PatientRef, PatientUpdate, SignedReport
from schemas.flag import Withdrawal
from schemas.outcome import Route
from schemas.tables import Job, MessageRow, OrderRow, PatientRow, ReportRow, Study
from worker.record.database import Database
from worker.record.filing import FILED, Filed, corrected, file_under, follow, ordered, patient_of
from worker.record.rows import lock_studies, take_turns
from worker.record.second_look import compare_again
from worker.record.shapes import clean
from worker.record.studies import tell_again, withdraw_locked

REMEMBERED: Final = timedelta(days=30)  # for so long a message is known again; senders repeat theirs for days at most
_MOST_ROWS: Final = 1000  # studies, the latest, of one patient or accession number that a message changes

_MESSAGE: Final = (MessageRow.sender == bindparam("from_sender"), MessageRow.control_id == bindparam("number"))
_HEARD: Final = select(MessageRow.digest).where(*_MESSAGE)
_HEAR: Final = insert(MessageRow)
_HEAR_ANEW: Final = (
    update(MessageRow).where(*_MESSAGE).values(digest=bindparam("b_digest"), received_at=bindparam("b_received_at"))
)
_FORGET: Final = delete(MessageRow).where(MessageRow.received_at < bindparam("before"))

_BY_ACCESSION: Final = (
    select(Study.id, Study.context)
    .where(Study.accession_number == bindparam("accession"))
    .order_by(Study.id.desc())
    .limit(_MOST_ROWS)
)
_BY_UID: Final = select(Study.id, Study.context).where(Study.study_uid == bindparam("study_uid"))
_BY_PATIENT: Final = (
    select(Study.id, Study.context)
    .where(Study.patient_id.in_(bindparam("ids", expanding=True)))
    .order_by(Study.id.desc())
    .limit(_MOST_ROWS)
)
_FILE: Final = update(Study).where(Study.id == bindparam("study")).values(**FILED, changes=Study.changes + 1)
_HURRY: Final = (
    update(Job)
    .where(
        Job.study_id == bindparam("study"),
        Job.concluded_at.is_(None),
        Job.order_urgency < bindparam("b_order_urgency"),
    )
    .values(order_urgency=bindparam("b_order_urgency"))
)

_ORDERS: Final = select(OrderRow).order_by(OrderRow.id)
_NEW_ORDER: Final = insert(OrderRow)

_PATIENT: Final = select(PatientRow).where(
    PatientRow.patient_id == bindparam("identifier"), PatientRow.issuer == bindparam("of_issuer")
)
_NEW_PATIENT: Final = insert(PatientRow)
_UNKNOWN: Final = {"name": "", "birth_date": "", "sex": ""}

_REPORT: Final = select(ReportRow).where(ReportRow.study_id == bindparam("study"))
_NEW_REPORT: Final = insert(ReportRow).values(model_words=[], disagrees=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What became of a message."""

    repeated: bool = False
    studies: int = 0  # that it changed
    told: int = 0  # of them with something to tell


class Context:
    """What the hospital says."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, message: MessageId, contents: Sequence[Content], route: Route, now: datetime) -> Taken:
        """Record what a message says and do what follows from it; when this returns, both are on the disk.

        Raises
        ------
        RecordError
            Nothing of it was recorded.
        """

        def work(connection: Connection) -> Taken:
            take_turns(connection, alone=True)
            if _heard_before(connection, message, now):
                return Taken(repeated=True)
            changed: dict[int, bool] = {}  # study, and whether there is something to tell
            for content in contents:
                match content:
                    case Order():
                        studies = _order(connection, content, now)
                    case PatientUpdate():
                        studies = _update(connection, content, route, now)
                    case Merge():
                        studies = _merge(connection, content, route, now)
                    case SignedReport():
                        studies = _report(connection, content, route, now)
                for study, tells in studies.items():
                    changed[study] = changed.get(study, False) or tells
            return Taken(studies=len(changed), told=sum(changed.values()))

        return self._database.write(work)


def _heard_before(connection: Connection, message: MessageId, now: datetime) -> bool:
    """Whether the message was taken before; else it is remembered.

    A number that comes with other words is another message: its sender counts from 1 again.
    """
    connection.execute(_FORGET, {"before": now - REMEMBERED})
    key = {"from_sender": clean(message.sender), "number": clean(message.control_id)}
    known = connection.scalar(_HEARD, key)
    if known == message.digest:
        return True
    if known is not None:
        connection.execute(_HEAR_ANEW, {**key, "b_digest": message.digest, "b_received_at": now})
        return False
    values = {"sender": key["from_sender"], "control_id": key["number"]}
    connection.execute(_HEAR, {**values, "digest": message.digest, "received_at": now})
    return False


def _order(connection: Connection, order: Order, now: datetime) -> dict[int, bool]:
    """Record an order; its studies take their place by it, and their films in the queue.

    A cancelled order gives up its say over the place in the list. Films that already wait keep theirs in the queue:
    they are read within seconds, and one that is read early harms nobody.
    """
    known = _known_order(connection, order)
    if known is not None and known.said_at > order.said_at:
        return {}
    before = "" if known is None else known.accession_number
    accession = clean(order.accession_number) or before
    values = {
        "accession_number": accession,
        "placer_number": clean(order.placer_number) or ("" if known is None else known.placer_number),
        "filler_number": clean(order.filler_number) or ("" if known is None else known.filler_number),
        "urgency": int(order.urgency if order.urgency is not None else (0 if known is None else known.urgency)),
        "cancelled": order.cancelled,
        "reason": clean(order.reason) or ("" if known is None else known.reason),
        "patient_id": clean(order.patient_id) or ("" if known is None else known.patient_id),
        "said_at": order.said_at,
        "received_at": now,
    }
    if known is None:
        connection.execute(_NEW_ORDER, values)
    else:
        connection.execute(update(OrderRow).where(OrderRow.id == known.id).values(**values))
    changed: dict[int, bool] = {}
    for number in {accession, before} - {""}:
        for study in _locked(connection, _BY_ACCESSION, {"accession": number}):
            urgency = ordered(connection, number)
            _file(connection, study.id, Filed(context=study.context, order_urgency=urgency))
            connection.execute(_HURRY, {"study": study.id, "b_order_urgency": int(urgency)})
            changed[study.id] = False
    return changed


def _known_order(connection: Connection, order: Order) -> Any | None:
    """The order by the first of its numbers that is known; by its accession number alone where it has no other.

    One accession number may stand for several orders, which are told apart by the others.
    """
    numbers = [(OrderRow.placer_number, order.placer_number), (OrderRow.filler_number, order.filler_number)]
    named = [(column, clean(number)) for column, number in numbers if number]
    for column, number in named:
        row = connection.execute(_ORDERS.where(column == number).limit(1)).one_or_none()
        if row is not None:
            return row
    if named or not order.accession_number:
        return None
    same = OrderRow.accession_number == clean(order.accession_number)
    return connection.execute(_ORDERS.where(same).limit(1)).one_or_none()


def _update(connection: Connection, said: PatientUpdate, route: Route, now: datetime) -> dict[int, bool]:
    """Record a patient's corrected name, birth date and sex, and correct the studies."""
    new = {"name": clean(said.name), "birth_date": clean(said.birth_date), "sex": clean(said.sex)}
    for patient in said.patients:
        row = _row(connection, patient)
        if row.said_at is None or row.said_at <= said.said_at:
            values = {key: value for key, value in new.items() if value}
            _set(connection, row, said_at=said.said_at, **values)
    return _correct(connection, said.patients, route, now)


def _merge(connection: Connection, said: Merge, route: Route, now: datetime) -> dict[int, bool]:
    """Record that one identifier stands for another now, and move the studies.

    The later word stands also where it goes the other way: whoever is merged into now stands for himself.
    """
    old, new = _row(connection, said.old), _row(connection, said.new)
    if old.id == new.id or (old.merged_at is not None and old.merged_at > said.said_at):
        return {}
    if follow(connection, said.new, until=said.old)[0] == said.old:
        _set(connection, new, merged_into=None, merged_into_issuer=None, merged_at=None)
    values = {"merged_into": clean(said.new.id), "merged_into_issuer": clean(said.new.issuer)}
    _set(connection, old, merged_at=said.said_at, **values)
    return _correct(connection, [said.old], route, now)


def _row(connection: Connection, patient: PatientRef) -> Any:
    """What is recorded of an identifier; a new row where there is none."""
    key = {"identifier": clean(patient.id), "of_issuer": clean(patient.issuer)}
    row = connection.execute(_PATIENT, key).one_or_none()
    if row is None:
        values = {"patient_id": key["identifier"], "issuer": key["of_issuer"], **_UNKNOWN}
        connection.execute(_NEW_PATIENT, values)
        row = connection.execute(_PATIENT, key).one()
    return row


def _set(connection: Connection, row: Any, **values: Any) -> None:
    connection.execute(update(PatientRow).where(PatientRow.id == row.id).values(**values))


def _correct(connection: Connection, patients: Sequence[PatientRef], route: Route, now: datetime) -> dict[int, bool]:
    """Correct the studies that are filed under one of the identifiers, and tell whoever was told of them."""
    changed: dict[int, bool] = {}
    for study in _locked(connection, _BY_PATIENT, {"ids": [clean(patient.id) for patient in patients]}):
        if not any(patient_of(study.context).agrees(patient) for patient in patients):
            continue
        filed = file_under(connection, study.context)
        if filed.context == study.context:
            continue
        _file(connection, study.id, filed)
        changed[study.id] = tell_again(connection, study.id, route, now) is not None
    return changed


def _report(connection: Connection, report: SignedReport, route: Route, now: datetime) -> dict[int, bool]:
    """Close the reading tasks of the studies that are reported, and set the report's verdict beside the model's."""
    changed: dict[int, bool] = {}
    for study in _reported(connection, report):
        known = connection.execute(_REPORT, {"study": study.id}).one_or_none()
        if known is not None and known.said_at > report.said_at:
            continue
        told = withdraw_locked(connection, [study.id], Withdrawal.REPORTED, route, now)
        _record(connection, study.id, known, report, now)
        compare_again(connection, study.id)
        changed[study.id] = told > 0
    return changed


def _reported(connection: Connection, report: SignedReport) -> list[Any]:
    """By Study Instance UID where the report names one that is known, else by accession number; of its patient."""
    found: list[Any] = []
    if report.study_uid:
        found = _locked(connection, _BY_UID, {"study_uid": report.study_uid})
    if not found and report.accession_number:
        found = _locked(connection, _BY_ACCESSION, {"accession": clean(report.accession_number)})
    patients = [follow(connection, patient)[0] for patient in report.patients]

    def is_his(study: Any) -> bool:
        patient = patient_of(corrected(connection, study.context))
        return not patients or not patient.id or any(patient.agrees(other) for other in (*patients, *report.patients))

    return [study for study in found if is_his(study)]


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


def _locked(connection: Connection, found: Any, values: dict[str, Any]) -> list[Any]:
    """Studies, locked, as they are now."""
    ids = [study.id for study in connection.execute(found, values)]
    lock_studies(connection, ids)
    return list(connection.execute(found, values).all())


def _file(connection: Connection, study_id: int, filed: Filed) -> None:
    connection.execute(_FILE, {"study": study_id, **filed.bound})
