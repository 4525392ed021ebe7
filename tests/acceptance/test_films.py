"""Every real film, sent as a hospital sends it: read or not analysed with the right reason, and the worker lives on."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path
from struct import unpack_from
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
    "dicom-test-files__XA1_J2KR.dcm": {"not-chest", "not-a-radiograph"},  # angiography
    "highdicom__dx_image.dcm": {"not-human", "lateral", "too-small"},  # an animal's thorax, lateral, 169 x 211
}

# What dcmtk itself cannot read or send; these go in by a C-STORE made by hand.
NOT_FOR_DCMTK = {
    "not_radiograph/fo-dicom__GH364.dcm": 0x0000,  # an item without its sequence
    "not_radiograph/fo-dicom__LEADTOOLS_FLOWERS-24-RGB-JpegLossy.dcm": 0xC000,  # no instance, series or study UID
}
NOT_NEGOTIATED, NO_ANSWER = -1, -2
MALFORMED = {
    "dicom-rs__DICOMDIR-bigEnd.dcm": NOT_NEGOTIATED,  # Media Storage Directory is no storage SOP class
    "dicom-rs__DICOMDIR-implicit.dcm": NOT_NEGOTIATED,
    "dicom-test-files__meta_missing_tsyntax.dcm": 0xC000,  # no identity, here and below
    "dicom-test-files__nested_priv_SQ.dcm": 0xC000,
    "fo-dicom__DICOMDIR.dcm": NOT_NEGOTIATED,
    "fo-dicom__GH1339.dcm": 0x0000,
    "fo-dicom__genFile.dcm": 0x0000,
    "healthcare__img_1.0.0.0.dcm": 0x0000,
    "pydicom-data__JLSL_RGB_ILV2.dcm": 0xC000,
    "pydicom__DICOMDIR-reordered.dcm": NOT_NEGOTIATED,
    "pydicom__SC_rgb_jls_lossy_line.dcm": 0xC000,
    "pydicom__ambiguous_vr.dcm": 0x0000,
    "pydicom__emri_8bit_jpeg_lossy_no_offset_table.dcm": 0x0000,
    "pydicom__emri_8bit_jpeg_lossy_with_offset_table.dcm": 0x0000,
    "pydicom__emri_small_jpls_1k_fragment_with_offset_table.dcm": 0x0000,
    "pydicom__no_meta.dcm": 0xC000,  # explicit VR sent as implicit: what it says of itself cannot be found
    "pynetdicom__MWLCFind.dcm": 0xC000,
}


def raw_store(port: int, path: Path) -> int:
    """C-STORE of a file's data set as it lies on the disk, however broken; the status that came back."""
    data = path.read_bytes()
    head = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    meta = head.file_meta
    syntax = meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
    sop_class = head.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID", ComputedRadiographyImageStorage)
    sop_uid = head.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID", UID("1.2.3.4"))
    if data[128:132] == b"DICM":
        at = 132  # element by element: some files say a wrong group length
        while data[at : at + 2] == b"\x02\x00":
            long = data[at + 4 : at + 6] in (b"OB", b"UN")
            at += 12 + unpack_from("<I", data, at + 8)[0] if long else 8 + unpack_from("<H", data, at + 6)[0]
        data = data[at:]
    ae = AE("TEST")
    ae.requested_contexts = [build_context(sop_class, syntax)]
    association = ae.associate("127.0.0.1", port, ae_title="HILUM")
    if not association.is_established:  # pynetdicom aborts when no presentation context was accepted
        return NOT_NEGOTIATED
    try:
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_uid
        request.DataSet = BytesIO(data)
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, response = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        return NO_ANSWER if response is None else int(response.Status)
    finally:
        association.release()


def index(films: Path) -> list[dict[str, str]]:
    with (films / "dicom" / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def age(film: Path) -> float:
    """Years, from the header (PS3.5 6.2, VR AS); grown up when it does not say."""
    text = pydicom.dcmread(film, stop_before_pixels=True).get("PatientAge", "") or "099Y"
    return float(text.rstrip("Y"))


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
    by_hand: dict[str, int] = {}
    for row in rows:
        path = films / "dicom" / row["file"]
        uids[row["file"]] = str(pydicom.dcmread(path, stop_before_pixels=True, force=True).SOPInstanceUID)
        if storescu(hilum.dicom_port, [path]).returncode:
            by_hand[row["file"]] = raw_store(hilum.dicom_port, path)
    assert by_hand == NOT_FOR_DCMTK

    until("all to be settled", hilum.settled, 120)
    found = films_of(hilum)
    wrong = []
    for row in rows:
        if NOT_FOR_DCMTK.get(row["file"]):
            continue
        film = found[uids[row["file"]]]
        folder, _, name = row["file"].partition("/")
        code = film["not_analysed"]
        expected: set[str | None] = {
            "nih_rsna": {"child" if age(films / "dicom" / row["file"]) < 18 else None},
            "chest": {None},
            "not_chest": NOT_CHEST.get(name, set()),
            "not_radiograph": {"not-a-radiograph"},
        }[folder]
        if code not in expected or (code is None) != bool(film["predictions"]):
            wrong.append((row["file"], code))
    assert wrong == []

    analysed = {study for study in hilum.worklist() if hilum.results(study)["revision"]}
    until("an SR for each analysed study", lambda: hospital.reports().keys() == analysed, 60)
    until("the outbox to be empty", lambda: hilum.undelivered() == 0, 60)
    for study, reports in hospital.reports().items():
        assert len(reports) == len(hilum.results(study)["revisions"])


def test_every_malformed_file_is_answered(films: Path, hilum: Hilum) -> None:
    answers = {
        row["file"].removeprefix("malformed/"): raw_store(hilum.dicom_port, films / "dicom" / row["file"])
        for row in index(films)
        if row["file"].startswith("malformed/")
    }
    # Taken (and then not analysed), or refused by a status or a negotiation that says why; never a broken association.
    assert answers == MALFORMED
    until("all to be settled", hilum.settled, 60)
    assert all(film["not_analysed"] for film in films_of(hilum).values())
    assert hilum.is_open()
    assert hilum.stop() == 0
