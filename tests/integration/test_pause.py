"""A pause is honoured by couriers that know nothing of whoever paused, and a resumed flag arrives at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.flag import Flag, Receipt
from tests.unit.worklist.ward import PNEUMOTHORAX, Ward, read
from tests.waiting import eventually
from worker.corridor.bell import Bell
from worker.corridor.delivery import Courier, Couriers, DeliveryRules
from worker.record.database import Database
from worker.record.destinations import Destinations
from worker.record.outbox import Outbox
from worker.record.pauses import Pauses


class Mailbox:
    """A destination that takes everything."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[str] = []

    def send(self, flag: Flag) -> Receipt:
        self.got.append(flag.study_uid)
        return Receipt(object_id=flag.study_uid, proof="taken")

    def check(self) -> str:
        return "here"

    def close(self) -> None: ...


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path, now=now())
    yield made
    made.close()


@pytest.fixture
def boxes(ward: Ward) -> Iterator[list[Mailbox]]:
    """Two workers, each with a connection and a bell of its own, as on two hosts."""
    boxes, started = [Mailbox("pacs"), Mailbox("ris")], []
    for box in boxes:
        database = Database(f"sqlite:///{ward.folder / 'hilum.db'}")
        courier = Courier(
            outbox=Outbox(database),
            destinations=Destinations(database),
            channel=box,
            news=Bell(),
            owner=f"worker-{box.name}",
            rules=DeliveryRules(),
            clock=now,
        )
        couriers = Couriers([courier])
        couriers.start()
        started.append((couriers, database))
    yield boxes
    for couriers, database in started:
        couriers.stop()
        database.close()


def film(ward: Ward, study: int) -> None:
    ward.now = now()
    ward.receive(study)
    ward.conclude(read(PNEUMOTHORAX), "pacs", "ris")


def test_every_worker_holds_flags_back_and_none_is_lost(ward: Ward, boxes: list[Mailbox]) -> None:
    film(ward, 1)
    eventually(lambda: all(box.got == ["2.25.1"] for box in boxes), seconds=5)
    pauses = Pauses(ward.database)
    pauses.pause("anna", "a new detector", now())
    for study in (2, 3):
        film(ward, study)
    time.sleep(1.5)  # six looks of each courier
    assert [box.got for box in boxes] == [["2.25.1"], ["2.25.1"]]
    pauses.resume("anna", "", now())
    eventually(lambda: all(sorted(box.got) == ["2.25.1", "2.25.2", "2.25.3"] for box in boxes), seconds=2)
