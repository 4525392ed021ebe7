"""SIGKILL at random moments of a burst: nothing acknowledged is lost, and every study ends with one current SR."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path

import pydicom
import pytest

from tests.acceptance.harness import Hilum, storescu, until
from tests.acceptance.hospital import Hospital, phantom_films

KILLS = {"sqlite": 25, "postgresql": 10}  # a start takes seconds; the database's own part is in tests/contract/record


def send_until_taken(hilum: Hilum, films: list[Path], acknowledged: set[Path], stop: threading.Event) -> None:
    """A modality that keeps what was not acknowledged and sends it again, in small associations."""
    while not stop.is_set():
        waiting = [f for f in films if f not in acknowledged][:4]
        if not waiting:
            return
        sent = storescu(hilum.dicom_port, waiting)
        answers = [line for line in (sent.stdout + sent.stderr).splitlines() if "Received Store Response" in line]
        for film, answer in zip(waiting, answers, strict=False):
            if "(Success)" not in answer:
                break
            acknowledged.add(film)
        if not answers:
            time.sleep(0.1)


@pytest.mark.timeout(900)
def test_killed_at_random_moments(hospital: Hospital, database_url: str, tmp_path: Path) -> None:
    kills = KILLS["postgresql" if database_url else "sqlite"]
    chance = random.Random(20261123)
    films = phantom_films(tmp_path / "films", 4 * kills)
    hilum = hospital.hilum(database_url)
    acknowledged: set[Path] = set()
    stop = threading.Event()
    hilum.start()
    sender = threading.Thread(target=send_until_taken, args=(hilum, films, acknowledged, stop))
    sender.start()
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0.05, 1.2))
            hilum.kill()
            hilum.start()
        sender.join(300)
    finally:
        stop.set()
        sender.join()
    assert len(acknowledged) == len(films)

    studies = {str(pydicom.dcmread(f, stop_before_pixels=True).StudyInstanceUID) for f in films}
    until("every acknowledged study to be settled", lambda: hilum.worklist().keys() >= studies and hilum.settled(), 180)
    until("every SR to arrive", lambda: hospital.reports().keys() >= studies, 120, 0.5)
    until("the outbox to be empty", lambda: hilum.undelivered() == 0, 60, 0.5)

    reports = hospital.reports()
    assert set(reports) == studies
    assert Counter(map(len, reports.values())) == {1: len(studies)}
    assert {row.revision for row in hilum.worklist().values()} == {1}
    assert hilum.stop() == 0
