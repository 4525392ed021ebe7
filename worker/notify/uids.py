"""Deterministic UIDs: the same flag is the same object, however often and from wherever it is sent."""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid5

from pydicom.uid import ComprehensiveSRStorage

# Drawn once, for hilum alone; changing it would make every resend a new object.
_NAMESPACE: Final = UUID("7c1f0f0e-52a3-4d0b-9a55-3f1d6b2f8e41")


def derive_uuid(kind: str, *parts: object) -> UUID:
    """A name-based UUID (version 5, ITU-T X.667): equal arguments give equal UUIDs on every machine."""
    # Each part is preceded by its length: ("a", "bc") and ("ab", "c") are different names.
    return uuid5(_NAMESPACE, "".join(f"{len(text)}:{text}" for text in map(str, (kind, *parts))))


def derive_uid(kind: str, *parts: object) -> str:
    """The same as a UID, of the form 2.25.<UUID as a decimal>, at most 44 characters (PS3.5 B.2)."""
    return f"2.25.{derive_uuid(kind, *parts).int}"


def sr_series_uid(study_uid: str, model_id: str) -> str:
    """Series Instance UID of the reports that one model makes of one study."""
    return derive_uid("sr-series", study_uid, model_id)


def sr_instance_uid(study_uid: str, model_id: str, revision: int, sop_class: str = ComprehensiveSRStorage) -> str:
    """SOP Instance UID of one revision's report in one of its forms: a UID never stands for two SOP classes."""
    form = () if sop_class == ComprehensiveSRStorage else (sop_class,)
    return derive_uid("sr", study_uid, model_id, revision, *form)


def sc_series_uid(study_uid: str, model_id: str) -> str:
    """Series Instance UID of the summary pages that one model makes of one study."""
    return derive_uid("sc-series", study_uid, model_id)


def sc_instance_uid(study_uid: str, model_id: str, revision: int) -> str:
    """SOP Instance UID of one revision's summary page."""
    return derive_uid("sc", study_uid, model_id, revision)
