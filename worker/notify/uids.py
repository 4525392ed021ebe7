"""Deterministic UIDs: the same flag is the same object, however often and from wherever it is sent."""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid5

# Drawn once, for hilum alone; changing it would make every resend a new object.
_NAMESPACE: Final = UUID("7c1f0f0e-52a3-4d0b-9a55-3f1d6b2f8e41")


def derive_uid(kind: str, *parts: object) -> str:
    """A UID of the form 2.25.<UUID as a decimal>, at most 44 characters (PS3.5 B.2).

    The UUID is name-based (version 5, ITU-T X.667), so equal arguments give equal UIDs on every machine.
    """
    # Each part is preceded by its length: ("a", "bc") and ("ab", "c") are different names.
    name = "".join(f"{len(text)}:{text}" for text in map(str, (kind, *parts)))
    return f"2.25.{uuid5(_NAMESPACE, name).int}"


def sr_series_uid(study_uid: str, model_id: str) -> str:
    """Series Instance UID of the reports that one model makes of one study."""
    return derive_uid("sr-series", study_uid, model_id)


def sr_instance_uid(study_uid: str, model_id: str, revision: int) -> str:
    """SOP Instance UID of one revision's report."""
    return derive_uid("sr", study_uid, model_id, revision)
