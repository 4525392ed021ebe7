"""Studies that wait to be read, for the tests of the windows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from schemas.decision import Urgency
from schemas.identity import StudyContext
from worker.record.reading_list import ListedFilm, OpenStudy

CONTEXT = StudyContext(
    patient_id="4711",
    issuer_of_patient_id="HOSPITAL",
    patient_name="Doe^Jane",
    patient_birth_date="19600229",
    patient_sex="F",
    accession_number="A-1",
    study_id="77",
    study_date="20250102",
    study_time="101500",
    study_description="Chest PA",
    referring_physician_name="Referrer^Robin",
    modality="DX",
    institution_name="Hospital",
)
RECEIVED = datetime(2025, 1, 2, 10, 16, 5).astimezone()  # local, as the windows tell it


def open_study(number: int = 1, urgency: Urgency = Urgency.STAT, **context: str) -> OpenStudy:
    """Study `number`, of two films."""
    return OpenStudy(
        id=number,
        study_uid=f"1.2.3.{number}",
        context=replace(CONTEXT, **context),
        priority=urgency,
        urgency=urgency,
        reasons=("pneumothorax 0.91, threshold 0.62",) if urgency else (),
        not_analysed=(),
        revision=1,
        received_at=RECEIVED,
        decided_at=RECEIVED,
        withdrawn=None,
        stations=("ROOM1", "ROOM2"),
        films=tuple(
            ListedFilm(
                series_uid=f"1.2.3.{number}.1", sop_class="1.2.840.10008.5.1.4.1.1.1.1", sop_uid=f"1.2.3.{number}.1.{n}"
            )
            for n in (1, 2)
        ),
    )
