"""Where a study is filed by what the hospital said of its patient and its order, also before the film came.

A film carries what its modality knew when it was taken. Later words of the hospital stand above it: an identifier that
was merged is followed to the one it stands for now, and a corrected name, birth date or sex takes the film's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select

from schemas.context import PatientRef
from schemas.decision import Urgency
from schemas.tables import OrderRow, PatientRow, Study
from worker.record.rows import higher, lock_studies

_MOST_ROWS: Final = 1000  # studies, the latest, of one patient or accession number that a message changes
_FARTHEST: Final = 16  # merges that are followed one after another; what is longer goes in a circle

_PATIENTS: Final = select(PatientRow).where(PatientRow.patient_id == bindparam("patient_id")).order_by(PatientRow.id)
_ORDERED: Final = select(func.max(OrderRow.urgency)).where(
    OrderRow.accession_number == bindparam("accession"), OrderRow.cancelled.is_(False)
)

BY_ACCESSION: Final = (
    select(Study.id, Study.context)
    .where(Study.accession_number == bindparam("accession"))
    .order_by(Study.id.desc())
    .limit(_MOST_ROWS)
)
BY_UID: Final = select(Study.id, Study.context).where(Study.study_uid == bindparam("study_uid"))
BY_PATIENT: Final = (
    select(Study.id, Study.context)
    .where(Study.patient_id.in_(bindparam("ids", expanding=True)))
    .order_by(Study.id.desc())
    .limit(_MOST_ROWS)
)

# What an update of a study sets to `Filed.bound`.
FILED: Final = {
    "context": bindparam("b_context"),
    "accession_number": bindparam("b_accession_number"),
    "patient_id": bindparam("b_patient_id"),
    "order_urgency": bindparam("b_order_urgency"),
    "rank": higher(Study.urgency, bindparam("b_order_urgency")),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Filed:
    """A study's context as it is filed, and the urgency of its orders."""

    context: dict[str, str]
    order_urgency: Urgency

    @property
    def columns(self) -> dict[str, Any]:
        """By which columns of the study it is found again."""
        return {
            "context": self.context,
            "accession_number": self.context["accession_number"] or None,
            "patient_id": self.context["patient_id"] or None,
            "order_urgency": int(self.order_urgency),
        }

    @property
    def bound(self) -> dict[str, Any]:
        """The same as parameters of an update by `FILED`."""
        return {f"b_{name}": value for name, value in self.columns.items()}


def locked(connection: Connection, found: Any, values: Mapping[str, Any]) -> list[Any]:
    """The studies that `found` selects, locked, as they are now."""
    lock_studies(connection, [study.id for study in connection.execute(found, values)])
    return list(connection.execute(found, values).all())


def file_under(connection: Connection, context: Mapping[str, str]) -> Filed:
    """Where a study of this context belongs."""
    return Filed(context=corrected(connection, context), order_urgency=ordered(connection, context["accession_number"]))


def ordered(connection: Connection, accession_number: str) -> Urgency:
    """The highest urgency among the orders of this accession number that stand."""
    if not accession_number:
        return Urgency.ROUTINE
    return Urgency(connection.scalar(_ORDERED, {"accession": accession_number}) or 0)


def corrected(connection: Connection, context: Mapping[str, str]) -> dict[str, str]:
    """The context, its patient followed and corrected."""
    filed = dict(context)
    if not filed["patient_id"]:
        return filed
    now, row = follow(connection, patient_of(filed))
    filed["patient_id"] = now.id
    if filed["issuer_of_patient_id"]:
        filed["issuer_of_patient_id"] = now.issuer or filed["issuer_of_patient_id"]
    if row is not None:
        filed["patient_name"] = row.name or filed["patient_name"]
        filed["patient_birth_date"] = row.birth_date or filed["patient_birth_date"]
        filed["patient_sex"] = row.sex or filed["patient_sex"]
    return filed


def patient_of(context: Mapping[str, str]) -> PatientRef:
    """Whose study it is."""
    return PatientRef(id=context["patient_id"], issuer=context["issuer_of_patient_id"])


def follow(
    connection: Connection, patient: PatientRef, *, until: PatientRef | None = None
) -> tuple[PatientRef, Any | None]:
    """Whom an identifier stands for now, and what the hospital said of that patient, if anything.

    No farther than `until`, where that lies on the way.
    """
    row = _said_of(connection, patient)
    for _ in range(_FARTHEST):
        if row is None or row.merged_into is None or patient == until:
            break
        patient = PatientRef(id=row.merged_into, issuer=row.merged_into_issuer)
        row = _said_of(connection, patient)
    return patient, row


def _said_of(connection: Connection, patient: PatientRef) -> Any | None:
    rows = connection.execute(_PATIENTS, {"patient_id": patient.id}).all()
    return _closest(patient, rows)


def _closest(patient: PatientRef, rows: Iterable[Any]) -> Any | None:
    """Of the rows that may be this patient's the one of his issuer; of several that may be, and are not, none."""
    agreeing = [row for row in rows if patient.agrees(PatientRef(id=row.patient_id, issuer=row.issuer))]
    same = [row for row in agreeing if row.issuer == patient.issuer]
    return same[0] if same else agreeing[0] if len(agreeing) == 1 else None
