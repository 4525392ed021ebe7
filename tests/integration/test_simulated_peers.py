"""The simulated modality and PACS against each other and against dcmtk's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, generate_uid
from pynetdicom import AE
from pynetdicom._globals import ALL_TRANSFER_SYNTAXES

from tests.orthanc import free_ports
from tests.unit.notify.flags import STUDY, film, flag
from worker.notify.sr import build_sr
from worker.simulate import modality
from worker.simulate.modality import Sent
from worker.simulate.pacs import Pacs

STORESCU = "/usr/bin/storescu"
STORESCP = "/usr/bin/storescp"
ECHOSCU = "/usr/bin/echoscu"


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    server = Pacs(tmp_path / "pacs")
    server.start()
    yield server
    server.stop()


def reports(folder: Path, count: int = 3) -> list[Path]:
    paths = []
    for revision in range(1, count + 1):
        paths.append(folder / f"{revision}.dcm")
        build_sr(flag(film(), revision=revision)).save_as(paths[-1], enforce_file_format=True)
    return paths


def syntax_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)


def body(path: Path) -> bytes:
    """The data set of a file as it is encoded, without preamble and File Meta Information."""
    whole = path.read_bytes()
    meta = dcmread(path, stop_before_pixels=True).file_meta
    return whole[144 + meta.FileMetaInformationGroupLength :]


def test_files_arrive_as_they_are(pacs: Pacs, films: Path) -> None:
    """Every film of the collection, in its own transfer syntax, byte for byte."""
    paths = sorted((films / "dicom" / "chest").glob("*.dcm")) + sorted((films / "dicom" / "nih_rsna").glob("*.dcm"))[:5]
    seen: list[Sent] = []
    sent = modality.send(paths, "PACS", "127.0.0.1", pacs.port, on_progress=seen.append)
    assert [s.path for s in sent] == paths
    assert [(s.status, s.error) for s in sent] == [(0, None)] * len(paths)
    assert sorted(seen, key=lambda s: s.path) == sorted(sent, key=lambda s: s.path)
    # One UID is in the collection twice, with other bytes: of the same instance the PACS keeps what came last.
    last = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in paths}
    assert set(pacs.stored) == set(last)
    for sop_uid, path in last.items():
        kept = pacs.stored[sop_uid]
        assert kept.parent.parent.name == dcmread(path, stop_before_pixels=True).StudyInstanceUID
        assert syntax_of(kept) == syntax_of(path)
        assert body(kept) == body(path)


def test_what_is_no_dicom_is_named_and_stops_nothing(pacs: Pacs, tmp_path: Path) -> None:
    good = reports(tmp_path)
    (tmp_path / "notes.txt").write_text("no film")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "cut.dcm").write_bytes(good[0].read_bytes()[:140])
    (tmp_path / "meta.dcm").write_bytes(good[0].read_bytes()[:200])
    bad = [tmp_path / name for name in ("notes.txt", "empty.dcm", "cut.dcm", "meta.dcm", "missing.dcm")] + [tmp_path]
    sent = modality.send([bad[0], good[0], *bad[1:], *good[1:]], "PACS", "127.0.0.1", pacs.port)
    errors = {s.path: s.error for s in sent if s.error}
    assert set(errors) == set(bad)
    assert "not a DICOM file" in str(errors[bad[0]])
    assert "No such file" in str(errors[tmp_path / "missing.dcm"])
    assert len(pacs.stored) == 3


def test_a_file_that_ends_early_is_refused_and_the_next_goes_through(pacs: Pacs, tmp_path: Path) -> None:
    first, second, _ = reports(tmp_path)
    first.write_bytes(first.read_bytes()[:-2000])
    sent = modality.send([first, second], "PACS", "127.0.0.1", pacs.port)
    assert sent[1].error is None


def test_a_refused_file_stops_nothing(pacs: Pacs, tmp_path: Path) -> None:
    pacs.answer = 0xA700
    sent = modality.send(reports(tmp_path), "PACS", "127.0.0.1", pacs.port)
    assert [s.status for s in sent] == [0xA700] * 3
    assert all("0xA700" in str(s.error) for s in sent)
    assert not pacs.stored


def test_after_an_abort_the_next_file_has_an_association_of_its_own(pacs: Pacs, tmp_path: Path) -> None:
    pacs.drop = True

    def forgive(sent: Sent) -> None:
        pacs.drop = False

    sent = modality.send(reports(tmp_path), "PACS", "127.0.0.1", pacs.port, on_progress=forgive)
    assert [bool(s.error) for s in sent] == [True, False, False]
    assert len(pacs.stored) == 2


def test_nobody_there(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    sent = modality.send(reports(tmp_path), "PACS", "127.0.0.1", port)
    assert all("no association" in str(s.error) for s in sent)


def test_a_peer_of_another_name(tmp_path: Path) -> None:
    server = AE("OTHER")
    server.require_called_aet = True
    server.add_supported_context("1.2.840.10008.1.1")
    running = server.start_server(("127.0.0.1", 0), block=False, ae_title="OTHER")
    port = running.socket.getsockname()[1]
    try:
        (sent,) = modality.send(reports(tmp_path, 1), "PACS", "127.0.0.1", port)
        assert "Called AE title not recognised" in str(sent.error)
        (sent,) = modality.send(reports(tmp_path, 1), "OTHER", "127.0.0.1", port)
        assert "accepts none of" in str(sent.error)
    finally:
        server.shutdown()


def test_more_contexts_than_one_association_can_hold(pacs: Pacs, tmp_path: Path) -> None:
    """150 pairs of SOP class and transfer syntax; the compressed ones lie about a data set that is the same in all."""
    report = build_sr(flag())
    little = [s for s in ALL_TRANSFER_SYNTAXES if UID(s).is_little_endian and not UID(s).is_implicit_VR]
    classes = [
        "1.2.840.10008.5.1.4.1.1.1",
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.4",
        *(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("7", "20", "128", "1.1", "1.2", "1.3", "6.1", "3.1")),
    ]
    pairs = [(c, s) for c in classes for s in little if not UID(s).is_deflated][:150]
    assert len(pairs) == 150
    paths = []
    for number, (sop_class, syntax) in enumerate(pairs):
        report.file_meta = FileMetaDataset()
        report.SOPClassUID, report.SOPInstanceUID = sop_class, generate_uid()
        paths.append(tmp_path / f"{number}.dcm")
        report.file_meta.TransferSyntaxUID = syntax
        report.save_as(paths[-1], implicit_vr=False, little_endian=True, enforce_file_format=True)
    sent = modality.send(paths, "PACS", "127.0.0.1", pacs.port)
    assert [s.error for s in sent] == [None] * 150
    assert len(pacs.stored) == 150


def test_dcmtk_takes_what_the_modality_sends(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    folder = tmp_path / "storescp"
    folder.mkdir()
    server = subprocess.Popen([STORESCP, "-od", folder, str(port)])
    try:
        until_echo(port)
        sent = modality.send(reports(tmp_path), "ANY", "127.0.0.1", port)
        assert [s.error for s in sent] == [None] * 3
        assert len(list(folder.iterdir())) == 3
    finally:
        server.terminate()
        server.wait()


def test_the_pacs_takes_what_dcmtk_sends(pacs: Pacs, tmp_path: Path) -> None:
    paths = reports(tmp_path)
    subprocess.run([STORESCU, "-aec", "PACS", "127.0.0.1", str(pacs.port), *paths], check=True, timeout=60)
    assert [dcmread(p).InstanceNumber for p in pacs.stored.values()] == [1, 2, 3]


def test_the_same_instance_again_is_one_object(pacs: Pacs, tmp_path: Path) -> None:
    (path,) = reports(tmp_path, 1)
    modality.send([path], "PACS", "127.0.0.1", pacs.port)
    changed = dcmread(path)
    changed.SeriesDescription = "changed"
    changed.save_as(path)
    modality.send([path], "PACS", "127.0.0.1", pacs.port)
    (kept,) = pacs.stored.values()
    assert dcmread(kept).SeriesDescription == "changed"
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]


def test_uids_that_are_no_file_names_are_refused(pacs: Pacs, tmp_path: Path) -> None:
    (path,) = reports(tmp_path, 1)
    hostile = dcmread(path)
    hostile.StudyInstanceUID = "../../../tmp/x"
    hostile.save_as(path)
    (sent,) = modality.send([path], "PACS", "127.0.0.1", pacs.port)
    assert sent.status == 0xC000
    assert not pacs.stored


def test_a_pacs_that_starts_again_has_what_it_had(pacs: Pacs, tmp_path: Path) -> None:
    modality.send(reports(tmp_path), "PACS", "127.0.0.1", pacs.port)
    again = Pacs(pacs.folder)
    assert list(again.stored) == list(pacs.stored)
    assert {p.parent.parent.name for p in again.stored.values()} == {STUDY}


def test_the_pacs_as_a_program(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "worker.simulate.pacs", "--port", str(port), "--folder", str(tmp_path / "kept")]
    program = subprocess.Popen(command)
    try:
        until_echo(port)
        sent = modality.send(reports(tmp_path), "PACS", "127.0.0.1", port)
        assert [s.error for s in sent] == [None] * 3
        assert len(list((tmp_path / "kept").rglob("*.dcm"))) == 3
    finally:
        os.kill(program.pid, signal.SIGTERM)
        assert program.wait(30) == 0


def until_echo(port: int) -> None:
    """Wait for a peer to come up."""
    for _ in range(300):
        if (
            subprocess.run([ECHOSCU, "-to", "1", "127.0.0.1", str(port)], check=False, capture_output=True).returncode
            == 0
        ):
            return
    pytest.fail("the peer did not come up")
