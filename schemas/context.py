"""What a hospital says of its patients, orders and reports by HL7 v2, as far as it concerns films."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from schemas.decision import Urgency
from schemas.findings import Label


class Verdict(StrEnum):
    """What a report, or the model, says of the films of a study. Where it is not known there is none."""

    POSITIVE = "positive"
    NEGATIVE = "negative"  # the finding that was looked for is not named; never an all-clear


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageId:
    """By what a message is known again: who sent it, its control ID, and the SHA-256 of its bytes."""

    sender: str  # MSH-3 and MSH-4
    control_id: str  # MSH-10
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PatientRef:
    """A patient's identifier and who gave it; without an issuer it is of the one hospital that sends films."""

    id: str
    issuer: str = ""

    def agrees(self, other: PatientRef) -> bool:
        """Whether both may be the same patient: the issuers differ only where both are named."""
        return self.id == other.id and (self.issuer == other.issuer or not self.issuer or not other.issuer)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """An order for an examination. What is empty or None the message does not say."""

    accession_number: str = ""
    placer_number: str = ""
    filler_number: str = ""
    urgency: Urgency | None = None
    cancelled: bool = False
    reason: str = ""
    patient_id: str = ""
    said_at: datetime  # aware


@dataclass(frozen=True, kw_only=True, slots=True)
class PatientUpdate:
    """Name, birth date (DA) and sex of a patient, under each of the identifiers. What is empty stays as it was."""

    patients: tuple[PatientRef, ...]
    name: str = ""  # PN
    birth_date: str = ""
    sex: str = ""
    said_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """What was filed under `old` is of `new`."""

    old: PatientRef
    new: PatientRef
    said_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedReport:
    """A report that somebody signed, or corrected. Of its text nothing is kept but the verdict and how it was found."""

    accession_number: str = ""
    study_uid: str = ""
    patients: tuple[PatientRef, ...] = ()
    report_id: str = ""
    corrected: bool = False
    verdict: Verdict | None = None
    rule: str = ""  # which gave the verdict
    findings: tuple[Label, ...] = ()  # that the report codes
    said_at: datetime


Content: TypeAlias = Order | PatientUpdate | Merge | SignedReport
