"""Flags of every shape, for the tests of the words, the report and its delivery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from schemas.decision import Reason, Urgency
from schemas.findings import FINDINGS, LABELS
from schemas.flag import FilmResult, Flag, Withdrawal
from schemas.identity import InstanceRef, StudyContext
from schemas.not_analysed import NotAnalysed

STUDY = "1.2.826.0.1.3680043.10.511.3.77"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"

PNEUMOTHORAX = Reason(finding="Pneumothorax", probability=0.91, threshold=0.62, urgency=Urgency.STAT)
EFFUSION = Reason(finding="Effusion", probability=0.7149, threshold=0.58, urgency=Urgency.URGENT)
ANY = Reason(finding="Any finding", probability=0.97, threshold=0.9, urgency=Urgency.URGENT)

PATIENT = StudyContext(
    patient_id="4711",
    issuer_of_patient_id="HOSPITAL",
    patient_name="Doe^Jane",
    patient_birth_date="19600229",
    patient_sex="F",
    accession_number="A-1",
    study_id="1",
    study_date="20250102",
    study_time="101500",
    study_description="Chest PA",
    referring_physician_name="Referrer^Robin",
    modality="DX",
    institution_name="Hospital",
)


def film(
    number: int = 1,
    *,
    reasons: Sequence[Reason] = (),
    not_analysed: NotAnalysed | None = None,
    sop_class: str = DX,
    series: int = 1,
) -> FilmResult:
    """Film `number` of the study; read, unless `not_analysed` says why not."""
    instance = InstanceRef(
        study_uid=STUDY,
        series_uid=f"{STUDY}.{series}",
        sop_uid=f"{STUDY}.{series}.{number}",
        sop_class=sop_class,
        transfer_syntax="1.2.840.10008.1.2.1",
    )
    if not_analysed is not None:
        return FilmResult(instance=instance, not_analysed=not_analysed)
    # Numbers of their own, so that a test can tell whether a silent one is told.
    findings = {label: 0.0123 + 0.0001 * index for index, label in enumerate(LABELS)}
    return FilmResult(instance=instance, binary=0.4321, findings=findings, reasons=tuple(reasons))


def flag(
    *films: FilmResult,
    urgency: Urgency | None = None,
    revision: int = 1,
    predecessor: int | None = None,
    context: StudyContext = PATIENT,
) -> Flag:
    """A flag of `films` (one with a pneumothorax when there are none)."""
    films = films or (film(reasons=[PNEUMOTHORAX]),)
    reasons = {reason.finding: reason for f in films for reason in f.reasons}
    highest = max((reason.urgency for reason in reasons.values()), default=Urgency.ROUTINE)
    return Flag(
        study_uid=STUDY,
        revision=revision,
        urgency=highest if urgency is None else urgency,
        reasons=tuple(reasons.values()),
        films=films,
        context=context,
        model_id="0123456789abcdef",
        model_name="starter",
        model_version="1.0",
        decided_at=datetime(2025, 1, 2, 10, 16, 0, 250_000, tzinfo=UTC),
        predecessor=predecessor,
    )


def named(name: str, **context: str) -> Flag:
    """A flag for a patient of this name."""
    return flag(context=replace(PATIENT, patient_name=name, **context))


EVERY_FINDING = [
    Reason(finding=label, probability=0.8 + 0.01 * i, threshold=0.5, urgency=Urgency.URGENT)
    for i, label in enumerate(FINDINGS)
]

VALID: dict[str, Flag] = {
    "one film, one finding": flag(),
    "two findings": flag(film(reasons=[PNEUMOTHORAX, EFFUSION])),
    "any finding": flag(film(reasons=[ANY])),
    "every finding": flag(film(reasons=EVERY_FINDING)),
    "nothing raised": flag(film()),
    "three films of two series": flag(
        film(1, reasons=[EFFUSION]), film(2, sop_class=CR, reasons=[EFFUSION, PNEUMOTHORAX]), film(3, series=2)
    ),
    "one read, two not": flag(
        film(1, reasons=[PNEUMOTHORAX]),
        film(2, not_analysed=NotAnalysed.LATERAL),
        film(3, not_analysed=NotAnalysed.UNREADABLE),
    ),
    "none read": flag(film(1, not_analysed=NotAnalysed.CHILD), film(2, not_analysed=NotAnalysed.CHILD)),
    "not an image": flag(
        film(1), film(2, sop_class=BASIC_TEXT_SR, not_analysed=NotAnalysed.NOT_A_RADIOGRAPH, series=2)
    ),
    "raised by a film that was read again": replace(flag(film()), urgency=Urgency.STAT, reasons=(PNEUMOTHORAX,)),
    "revision 2": flag(film(reasons=[PNEUMOTHORAX]), revision=2, predecessor=1),
    "revision 3 after another model": replace(flag(revision=3, predecessor=2), predecessor_model_id="fedcba9876543210"),
    "withdrawn by a person": replace(
        flag(film(1), film(2, not_analysed=NotAnalysed.LATERAL), revision=2, predecessor=1),
        withdrawn=Withdrawal.PERSON,
    ),
    "withdrawn: reported": replace(
        flag(film(reasons=[PNEUMOTHORAX]), urgency=Urgency.ROUTINE, revision=2, predecessor=1),
        reasons=(),
        withdrawn=Withdrawal.REPORTED,
    ),
    "nobody": flag(context=StudyContext()),
    "no patient id": named("Doe^Jane", patient_id=""),
    "Japanese": named("Yamada^Tarou=山田^太郎=やまだ^たろう", study_description="胸部正面"),
    "Cyrillic": named("Люкceмбypг^Анна", referring_physician_name="Петров^Пётр"),
    "Hebrew": named("שרון^דבורה^" + "א" * 18),  # 64 bytes: dciodvfy counts these where PS3.5 6.2 counts characters
    "quotes and entities": named("O'Brien^<b>\"&amp;;--", patient_id="'; DROP TABLE study; --"),
    "control characters": named("Doe\x1b$B^Ja\nne\x00", patient_id="47\\11", study_id="\t"),
    "lone surrogates": named("Doe^\udcff\udc80", institution_name="\udc80"),
    "dates that are none": named(
        "Doe^Jane", patient_birth_date="1960.02.29", study_date="today", study_time="10:15", patient_sex="female"
    ),
    "digits that are no DICOM digits": named("Doe^Jane", patient_birth_date="١٩٦٠٠٢٢٩", study_time="１０１５"),
}
