"""Who was turned away at the DICOM door, why, and the one line that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.identity import Sender


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """One refusal of an association, of a presentation context or of an instance. `at` is aware."""

    sender: Sender
    what: str
    mend: str
    at: datetime
