"""Nobody waits for what is not used: which destination brings which modules."""

from __future__ import annotations

import json
import subprocess
import sys

from worker.notify import dicom_sr, sr

HEAVY = {"pydicom", "pynetdicom", "highdicom", "fastapi", "uvicorn", "openvino", "apscheduler", "tensorflow"}
PROGRAM = """
import json, sys
from worker.assemble import channel
from worker.channels import warm_up
from worker.settings import Settings

def tell():
    print(json.dumps(sorted(sys.modules)))

settings = Settings(destinations=json.loads(sys.argv[1]))
tell()
for destination in settings.destinations:
    channel(destination, settings)
tell()
warm_up(settings)
tell()
"""


def loaded(*destinations: dict[str, object]) -> list[set[str]]:
    """Which heavy modules a fresh interpreter has: of the roof alone, with these channels made, and once it is warm."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(destinations)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [set(json.loads(line)) & HEAVY for line in result.stdout.splitlines()]


def test_what_does_not_speak_dicom_brings_none_of_its_services() -> None:
    uids = {"pydicom"}  # objects of every kind have UIDs that are derived
    assert loaded(
        {"name": "shadow", "kind": "paper"},
        {"name": "emr", "kind": "hl7-oru", "port": 2575},
        {"name": "hook", "kind": "webhook", "url": "http://127.0.0.1:1/"},
    ) == [set(), uids, uids]


def test_the_channel_of_reports_is_made_without_what_makes_them_which_is_there_once_it_is_warm() -> None:
    dicom = {"pydicom", "pynetdicom"}
    pacs = {"name": "pacs", "kind": "dicom-sr", "ae_title": "PACS", "port": 104}
    assert loaded(pacs) == [set(), dicom, dicom | {"highdicom"}]


def test_the_forms_that_a_pacs_is_offered_are_those_that_can_be_made() -> None:
    assert dicom_sr.FORMS == sr.LADDER
