"""The PACS is away for a while: everything arrives later, the most urgent first, in the order of each study."""

from __future__ import annotations

from pathlib import Path

import pydicom

from tests.acceptance.harness import storescu, until
from tests.acceptance.hospital import Hospital, phantom_films


def test_everything_arrives_when_the_pacs_is_back(hospital: Hospital, database_url: str, tmp_path: Path) -> None:
    hilum = hospital.hilum(database_url)
    hilum.start()
    hospital.pacs.stop()
    films = phantom_films(tmp_path / "films", 30)
    assert storescu(hilum.dicom_port, films).returncode == 0
    studies = {str(pydicom.dcmread(f, stop_before_pixels=True).StudyInstanceUID) for f in films}
    until("all to be read", lambda: hilum.worklist().keys() == studies and hilum.settled(), 90)
    rows = hilum.worklist()
    assert hospital.reports() == {}

    hospital.restart_pacs()
    until("all to arrive", lambda: hospital.reports().keys() == studies, 120)
    until("the outbox to be empty", lambda: hilum.undelivered() == 0, 60)
    order = [rows[study].urgency for study in hospital.arrivals()]
    # What was in hand when the PACS went may come first; behind it the most urgent goes first.
    assert order[1:] == sorted(order[1:], reverse=True)
    assert hilum.stop() == 0
