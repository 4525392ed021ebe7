"""Codes of what every dialect says beside the findings, whose codes stand in `schemas.findings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from schemas.decision import Urgency
from schemas.findings import SNOMED, Code, Label

PRIORITY: Final = Code("260870009", "SCT", "Priority")
URGENCY: Final[Mapping[Urgency, Code]] = {
    Urgency.STAT: Code("49499008", "SCT", "Stat"),
    Urgency.URGENT: Code("103391001", "SCT", "Urgent"),
    Urgency.ROUTINE: Code("50811001", "SCT", "Routine"),
}
ANY_FINDING: Final = Code("118247008", "SCT", "Radiologic finding")  # what the binary model says
CHEST_FILM: Final = Code("399208008", "SCT", "Plain chest X-ray")


def finding_code(finding: str) -> Code:
    """The SNOMED CT code of a reason's finding."""
    return SNOMED[Label(finding)] if finding in SNOMED else ANY_FINDING
