"""Every real film, sent as a hospital sends it: read or not analysed with the right reason, and the worker lives on."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID, ComputedRadiographyImageStorage, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from tests.acceptance.harness import Hilum, storescu, until
from tests.acceptance.hospital import Hospital

# What stands beside the not-chest films: the codes that a radiologist would call right.
NOT_CHEST = {
    "dicom-test-files__RG2_J2KI.dcm": {"not-chest"},  # hip
    "dicom-test-files__RG3_JLSL.dcm": {"not-chest"},  # tibia
    "dicom-test-files__XA1_J2KR.dcm": {"not-a-radiograph"},  # angiography
    "highdicom__dx_image.dcm": {"not-human", "lateral", "too-small"},  # an animal's thorax, lateral, 169 x 211
}


def raw_store(port: int, path: Path) -> int:
    """C-STORE of a file's data set as it lies on the disk, however broken; the status that came back."""
    data = path.read_bytes()
    syntax, sop_class, sop_uid = ImplicitVRLittleEndian, ComputedRadiographyImageStorage, UID("1.2.3.4")
    if data[128:132] == b"DICM":
        with path.open("rb") as file:
            meta = pydicom.filereader.read_file_meta_info(path)
            syntax = meta.get("TransferSyntaxUID", syntax)
            sop_class = meta.get("MediaStorageSOPClassUID", sop_class)
            sop_uid = meta.get("MediaStorageSOPInstanceUID", sop_uid)
            file.seek(132)
            group = pydicom.filereader.dcmread(path, stop_before_pixels=True, force=True).file_meta
            start = 144 + int(group.get("FileMetaInformationGroupLength", 0))
        data = data[start:]
    ae = AE("TEST")
    ae.requested_contexts = [build_context(sop_class, syntax)]
    association = ae.associate("127.0.0.1", port, ae_title="HILUM")
    if not association.is_established:
        return -1
    try:
        if not association.accepted_contexts:
            return -2
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_uid
        request.DataSet = BytesIO(data)
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, response = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        return -3 if response is None else int(response.Status)
    finally:
        association.release()


def index(films: Path) -> list[dict[str, str]]:
    with (films / "dicom" / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def hilum(hospital: Hospital, database_url: str) -> Hilum:
    worker = hospital.hilum(database_url)
    worker.start()
    return worker


def films_of(hilum: Hilum) -> dict[str, dict[str, Any]]:
    """Every film on record by SOP Instance UID."""
    return {film["sop_uid"]: film for study in hilum.worklist() for film in hilum.results(study)["films"]}


@pytest.mark.timeout(600)
def test_every_film(films: Path, hilum: Hilum, hospital: Hospital) -> None:
    rows = [row for row in index(films) if not row["file"].startswith("malformed/")]
    uids: dict[str, str] = {}
    for row in rows:
        path = films / "dicom" / row["file"]
        uids[row["file"]] = str(pydicom.dcmread(path, stop_before_pixels=True, force=True).SOPInstanceUID)
        sent = storescu(hilum.dicom_port, [path], "-R")
        assert sent.returncode == 0, (row["file"], sent.stdout + sent.stderr)

    def settled() -> bool:
        return all(row["state"] in ("read", "final") for row in hilum.worklist().values())

    until("all to be settled", settled, 120)
    found = films_of(hilum)
    wrong = []
    for row in rows:
        film = found[uids[row["file"]]]
        folder, _, name = row["file"].partition("/")
        code = film["not_analysed"]
        expected: set[str | None] = {
            "nih_rsna": {None},
            "chest": {None},
            "not_chest": NOT_CHEST.get(name, set()),
            "not_radiograph": {"not-a-radiograph"},
        }[folder]
        if code not in expected or (code is None) != bool(film["predictions"]):
            wrong.append((row["file"], code))
    assert wrong == []

    analysed = {
        str(pydicom.dcmread(films / "dicom" / row["file"], stop_before_pixels=True).StudyInstanceUID)
        for row in rows
        if row["file"].split("/")[0] in ("nih_rsna", "chest")
    }
    until("an SR for each analysed study", lambda: hospital.reports().keys() == analysed, 60)
    assert {len(reports) for reports in hospital.reports().values()} == {1} or all(
        len({r.SOPInstanceUID for r in reports}) == len(reports) for reports in hospital.reports().values()
    )


def test_every_malformed_file_is_answered(films: Path, hilum: Hilum) -> None:
    answers = {
        row["file"]: raw_store(hilum.dicom_port, films / "dicom" / row["file"])
        for row in index(films)
        if row["file"].startswith("malformed/")
    }
    assert len(answers) == 17
    # Taken (and then not analysed), or refused by a status that says why; never a broken association.
    assert set(answers.values()) <= {0x0000, 0xA900, 0xC000, -2}, answers
    until("all to be settled", lambda: all(r["state"] in ("read", "final") for r in hilum.worklist().values()), 60)
    assert all(film["not_analysed"] for film in films_of(hilum).values())
    assert hilum.is_open()
    assert hilum.stop() == 0
