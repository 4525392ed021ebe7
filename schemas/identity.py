"""Who a film is: identifiers of the instance, and the patient and study it belongs to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# PS3.5 9.1: components of digits without a leading zero, separated by dots, at most 64 characters.
_UID: Final = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
# What senders really do: leading zeros in a component. Harmless as a name, so kept and stored as sent.
_UID_LENIENT: Final = re.compile(r"\d+(\.\d+)+")


def is_uid(value: str, *, lenient: bool = False) -> bool:
    """Whether `value` is a UID that is safe as a file name (PS3.5 9.1); `lenient` lets leading zeros pass."""
    pattern = _UID_LENIENT if lenient else _UID
    return len(value) <= 64 and pattern.fullmatch(value) is not None and value.isascii()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """The peer of an association, as it named itself and as the network saw it."""

    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceRef:
    """One composite instance as received. UIDs have passed `is_uid(lenient=True)`."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str
    transfer_syntax: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyContext:
    """What a result object needs of its patient and study (PS3.3 C.7.1.1, C.7.2.1), as sent; empty when absent."""

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""
    study_id: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    referring_physician_name: str = ""
    modality: str = ""
    institution_name: str = ""
