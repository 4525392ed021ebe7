"""Patient and General Study Module (PS3.3 C.7.1.1, C.7.2.1) of what hilum adds to a study."""

from __future__ import annotations

import re
from typing import Final

from schemas.identity import StudyContext

_DATE: Final = re.compile(r"[0-9]{8}")  # PS3.5 6.2, VR DA
_TIME: Final = re.compile(r"[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?")  # VR TM
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\\]")  # the backslash separates values; ESC would switch the repertoire


def patient_and_study(context: StudyContext) -> dict[str, str]:
    """Elements by keyword; what is no date, time or sex of the standard's is left empty (type 2)."""
    elements = {
        "PatientName": plain(context.patient_name),
        "PatientID": plain(context.patient_id),
        "PatientBirthDate": context.patient_birth_date if _DATE.fullmatch(context.patient_birth_date) else "",
        "PatientSex": context.patient_sex if context.patient_sex in {"M", "F", "O"} else "",
        "StudyDate": context.study_date if _DATE.fullmatch(context.study_date) else "",
        "StudyTime": context.study_time if _TIME.fullmatch(context.study_time) else "",
        "StudyID": plain(context.study_id),
        "AccessionNumber": plain(context.accession_number),
        "ReferringPhysicianName": plain(context.referring_physician_name),
    }
    optional = {
        "IssuerOfPatientID": plain(context.issuer_of_patient_id),
        "StudyDescription": plain(context.study_description),
        "InstitutionName": plain(context.institution_name),
    }
    return elements | {keyword: value for keyword, value in optional.items() if value}


def plain(value: str) -> str:
    """Text without control characters and backslashes; a lone surrogate (no text in the film's repertoire) is "?"."""
    return _CONTROL.sub(" ", value).encode("utf-8", "replace").decode("utf-8").strip()
