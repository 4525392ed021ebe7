"""What the hospital says of patients, orders and reports becomes rows, and what follows for its studies, in one step.

A message is taken once: the same one again changes nothing. What is older than what is known changes nothing either,
in whatever order messages arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from schemas.context import Content, Merge, MessageId, Order, PatientRef, PatientUpdate, SignedReport
from schemas.outcome import Route
from schemas.tables import EarlyReportRow, Job, MessageRow, OrderRow, PatientRow, Study
from worker.record.database import Database
from worker.record.filing import BY_ACCESSION, BY_PATIENT, FILED, Filed, file_under, follow, locked, ordered, patient_of
from worker.record.reports import take_report
from worker.record.rows import take_turns
from worker.record.shapes import clean
from worker.record.studies import tell_again

REMEMBERED: Final = timedelta(days=30)  # for so long a message is known again; senders repeat theirs for days at most

_MESSAGE: Final = (MessageRow.sender == bindparam("from_sender"), MessageRow.control_id == bindparam("number"))
_HEARD: Final = select(MessageRow.digest).where(*_MESSAGE)
_HEAR: Final = insert(MessageRow)
_HEAR_ANEW: Final = (
    update(MessageRow).where(*_MESSAGE).values(digest=bindparam("b_digest"), received_at=bindparam("b_received_at"))
)
_AT_ONCE: Final = 500  # rows

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
                        studies = take_report(connection, content, route, now)
                for study, tells in studies.items():
                    changed[study] = changed.get(study, False) or tells
            return Taken(studies=len(changed), told=sum(changed.values()))

        return self._database.write(work)

    def forget(self, before: datetime | None, now: datetime) -> int:
        """Let go of orders and patients of whom nothing was said since `before`; None: of none. And of messages and
        early reports after `REMEMBERED`. Returns how many rows."""
        old: list[tuple[Any, Any]] = [(t, t.received_at < now - REMEMBERED) for t in (MessageRow, EarlyReportRow)]
        if before is not None:
            old.append((OrderRow, OrderRow.received_at < before))
            old.append((PatientRow, _silent(PatientRow.said_at, before) & _silent(PatientRow.merged_at, before)))
        return sum(self._let_go(table, is_old) for table, is_old in old)

    def _let_go(self, table: Any, is_old: Any) -> int:
        """So many at a time that nobody waits for it; found without holding anybody up."""
        some = select(table.id).where(is_old).limit(_AT_ONCE)
        count = 0
        while ids := self._database.read(lambda connection: connection.scalars(some).all()):
            gone = delete(table).where(table.id.in_(ids), is_old)
            count += self._database.write(partial(_rows_of, gone))
        return count


def _rows_of(statement: Any, connection: Connection) -> int:
    return connection.execute(statement).rowcount


def _silent(said_at: Any, before: datetime) -> Any:
    return said_at.is_(None) | (said_at < before)


def _heard_before(connection: Connection, message: MessageId, now: datetime) -> bool:
    """Whether the message was taken before; else it is remembered.

    A number that comes with other words is another message: its sender counts from 1 again.
    """
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
        for study in locked(connection, BY_ACCESSION, {"accession": number}):
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
    for study in locked(connection, BY_PATIENT, {"ids": [clean(patient.id) for patient in patients]}):
        if not any(patient_of(study.context).agrees(patient) for patient in patients):
            continue
        filed = file_under(connection, study.context)
        if filed.context == study.context:
            continue
        _file(connection, study.id, filed)
        changed[study.id] = tell_again(connection, study.id, route, now) is not None
    return changed


def _file(connection: Connection, study_id: int, filed: Filed) -> None:
    connection.execute(_FILE, {"study": study_id, **filed.bound})
