"""hilum's DICOM port with its windows, over a database of its own; and pynetdicom's client to look through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import insert

from schemas.tables import Job, Study
from tests.contract.record.given import Record
from worker.assemble import dicom_windows, step_handlers
from worker.receive.access import LocalAE
from worker.receive.listener import ExtraHandler, Listener, ListenerConfig
from worker.record.database import Database
from worker.record.reading_list import ReadingList
from worker.settings import Settings
from worker.spool.local import LocalSpool

PLAIN = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]


@dataclass
class House:
    """What a test needs of hilum: its record, and its port."""

    record: Record
    port: int


@contextmanager
def open_house(
    folder: Path, *, extra: Sequence[ExtraHandler] = (), settings: Settings | None = None
) -> Iterator[House]:
    """A listener that takes no films, and shows what the record has."""
    url = f"sqlite:///{folder}/hilum.db"
    database = Database(url)
    database.migrate()
    windows = dicom_windows(settings or Settings(), ReadingList(database))
    listener = Listener(
        ListenerConfig(host="127.0.0.1", port=0, local_aes=(LocalAE(ae_title="HILUM"),)),
        PLAIN,
        LocalSpool(folder / "spool", watermark_bytes=0),
        lambda *_: None,
        lambda _: None,
        extra_handlers=[*step_handlers(windows), *extra],
        windows=windows,
    )
    listener.start()
    try:
        yield House(Record(database, url), listener.port)
    finally:
        listener.stop()
        database.close()


@contextmanager
def associated(house: House, *sop_classes: str) -> Iterator[Association]:
    """pynetdicom's client."""
    ae = AE("READER")
    for sop_class in sop_classes:
        ae.add_requested_context(sop_class)
    association = ae.associate("127.0.0.1", house.port, ae_title="HILUM")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def find(house: House, sop_class: str, query: Dataset) -> tuple[list[Dataset], list[int]]:
    """The identifiers that a query is answered with, and every status."""
    with associated(house, sop_class) as association:
        answers = list(association.send_c_find(query, sop_class))
    return [identifier for _, identifier in answers if identifier is not None], [said.Status for said, _ in answers]


def fill(database: Database, count: int, first: int = 1) -> None:
    """`count` open studies of one film each, every tenth raised; their patients are P and the number of the study."""
    now = datetime.now(UTC)
    reason = {"finding": "Pneumothorax", "probability": 0.91, "threshold": 0.62, "urgency": 2}
    words = {**reason, "words": "pneumothorax 0.91, threshold 0.62"}
    studies, jobs = [], []
    for n in range(first, first + count):
        raised = not n % 10
        at = now - timedelta(seconds=n)
        studies.append(
            {
                "id": n,
                "study_uid": f"1.2.826.0.1.3680043.10.511.3.{n}",
                "context": {
                    "patient_id": f"P{n}",
                    "issuer_of_patient_id": "HOSPITAL",
                    "patient_name": f"Phantom^Chest{n}",
                    "patient_birth_date": "19610412",
                    "patient_sex": "O",
                    "accession_number": f"A{n}",
                    "study_id": str(n),
                    "study_date": "20260301",
                    "study_time": "101500",
                    "study_description": "Chest PA",
                    "referring_physician_name": "Referrer^Robin",
                    "modality": "DX",
                    "institution_name": "Hospital",
                },
                "state": "final",
                "urgency": 2 if raised else 0,
                "rank": 2 if raised else 0,
                "reasons": [words] if raised else [],
                "revision": 1,
                "received_at": at,
                "last_received_at": at,
                "decided_at": at,
            }
        )
        jobs.append(
            {
                "study_id": n,
                "sop_uid": f"1.2.826.0.1.3680043.10.511.4.{n}",
                "version": 1,
                "current": True,
                "digest": str(n),
                "size": 10_000_000,
                "series_uid": f"1.2.826.0.1.3680043.10.511.5.{n}",
                "sop_class": "1.2.840.10008.5.1.4.1.1.1.1",
                "transfer_syntax": "1.2.840.10008.1.2.1",
                "calling_ae": "ROOM1",
                "called_ae": "HILUM",
                "address": "192.0.2.7",
                "order_urgency": 0,
                "state": "read",
                "not_before": at,
                "received_at": at,
                "concluded_at": at,
            }
        )
    database.write(lambda connection: connection.execute(insert(Study), studies))
    database.write(lambda connection: connection.execute(insert(Job), jobs))
