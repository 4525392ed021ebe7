"""The summary page before judges that are not ours: dicom3tools, Orthanc; and with the film that came in by C-STORE."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, evt

from schemas.errors import PermanentFailure
from schemas.flag import Flag
from schemas.identity import InstanceRef
from schemas.image import GrayImage
from tests.contract.record.given import Record, read
from tests.integration.test_sr import DCIODVFY, chest_film, told
from tests.orthanc import Orthanc, free_ports, orthanc, orthanc_of_module  # noqa: F401  fixtures
from tests.unit.notify.flags import PNEUMOTHORAX, STUDY, VALID, film, flag
from worker.assemble import Role, Worker, now
from worker.decode.film import read_film
from worker.notify.association import Peer
from worker.notify.dicom_sc import SERIES_DESCRIPTION, SERIES_NUMBER, DicomSc, build_sc
from worker.notify.dicom_sr import DicomSr
from worker.notify.summary_page import Shown, draw_page, films_of
from worker.record.database import Database
from worker.settings import Database as DatabaseSettings
from worker.settings import Dicom, ScDestination, Settings, SpoolSettings
from worker.simulate.modality import send
from worker.simulate.phantom import dataset

FILM = np.tile(np.arange(200, dtype=np.uint8), (250, 1))


def film_of(_: InstanceRef) -> GrayImage:
    return FILM


def shown(example: Flag) -> list[Shown]:
    return [Shown(of, FILM) for of in films_of(example)]


def peer(port: int, ae_title: str = "ORTHANC") -> Peer:
    return Peer(ae_title=ae_title, host="127.0.0.1", port=port, calling_ae_title="HILUM")


def to(port: int, ae_title: str = "ORTHANC") -> closing[DicomSc]:
    return closing(DicomSc(name="page", peer=peer(port, ae_title), film=film_of))


@pytest.mark.parametrize("example", VALID.values(), ids=VALID.keys())
def test_dciodvfy_finds_no_error(example: Flag, tmp_path: Path) -> None:
    build_sc(example, shown(example)).save_as(tmp_path / "page.dcm", enforce_file_format=True)
    said = told([DCIODVFY, tmp_path / "page.dcm"])
    assert "SCImage" in said
    assert not re.findall(r"(?m)^Error.*", said), said


def test_dciodvfy_would_say_so(tmp_path: Path) -> None:
    page = build_sc(flag(), shown(flag()))
    del page.ConversionType
    page.save_as(tmp_path / "broken.dcm", enforce_file_format=True)
    assert re.findall(r"(?m)^Error.*ConversionType", told([DCIODVFY, tmp_path / "broken.dcm"]))


def test_dcmtk_draws_the_page_that_hilum_drew(tmp_path: Path) -> None:
    build_sc(flag(), shown(flag())).save_as(tmp_path / "page.dcm", enforce_file_format=True)
    command = ["/usr/bin/dcm2pnm", "--write-raw-pnm", "--use-window", "1", tmp_path / "page.dcm", tmp_path / "page.pgm"]
    subprocess.run(command, check=True, timeout=60)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "page.pgm")), draw_page(flag(), shown(flag())))


def test_orthanc_files_the_page_behind_the_films_and_the_report(orthanc: Orthanc) -> None:  # noqa: F811
    orthanc.post("/instances", chest_film())
    with closing(DicomSr(name="pacs", peer=peer(orthanc.port))) as reports:
        reports.send(flag())
    with to(orthanc.port) as channel:
        assert "answers C-ECHO and takes Secondary Capture Image Storage" in channel.check()
        receipt = channel.send(flag())
        assert channel.send(flag()) == receipt
    assert receipt.proof == "C-STORE 0x0000"
    (study,) = orthanc.get("/studies?expand")
    assert study["MainDicomTags"]["StudyInstanceUID"] == STUDY
    series = sorted(orthanc.get("/series?expand"), key=lambda each: int(each["MainDicomTags"]["SeriesNumber"]))
    assert [each["MainDicomTags"]["Modality"] for each in series] == ["DX", "SR", "OT"]
    assert series[-1]["MainDicomTags"]["SeriesNumber"] == str(SERIES_NUMBER)
    assert series[-1]["MainDicomTags"]["SeriesDescription"] == SERIES_DESCRIPTION
    (instance,) = series[-1]["Instances"]
    assert dcmread(BytesIO(orthanc.get_bytes(f"/instances/{instance}/file"))).SOPInstanceUID == receipt.object_id
    preview = Image.open(BytesIO(orthanc.get_bytes(f"/instances/{instance}/preview"))).convert("L")
    assert np.array_equal(np.asarray(preview), draw_page(flag(), shown(flag())))


def test_a_withdrawal_is_a_page_of_its_own(orthanc: Orthanc) -> None:  # noqa: F811
    with to(orthanc.port) as channel:
        channel.send(flag())
        channel.send(VALID["withdrawn by a person"])
    (series,) = orthanc.get("/series?expand")
    assert len(series["Instances"]) == 2


def test_a_pacs_of_implicit_vr_alone_is_served_in_it() -> None:
    server = AE("PACS")
    server.add_supported_context(SecondaryCaptureImageStorage, ImplicitVRLittleEndian)
    stored = []

    def keep(event: evt.Event) -> int:
        page = event.dataset
        page.file_meta = event.file_meta
        stored.append(page)
        return 0x0000

    running = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    try:
        with to(running.socket.getsockname()[1], "PACS") as channel:
            channel.send(flag())
    finally:
        server.shutdown()
    assert np.array_equal(stored[0].pixel_array, draw_page(flag(), shown(flag())))


def test_a_pacs_that_takes_no_pages_names_the_class_to_enable() -> None:
    server = AE("PACS")
    server.add_supported_context("1.2.840.10008.1.1")
    running = server.start_server(("127.0.0.1", 0), block=False)
    try:
        with (
            to(running.socket.getsockname()[1], "PACS") as channel,
            pytest.raises(PermanentFailure, match=r"Secondary Capture Image Storage \(1\.2\..*\.7\): have it enabled"),
        ):
            channel.send(flag())
    finally:
        server.shutdown()


# With the film that came in


@pytest.fixture
def worker(orthanc: Orthanc, tmp_path: Path) -> Iterator[Worker]:  # noqa: F811
    """Receives and delivers; what it reads is given by the test."""
    url = f"sqlite:///{tmp_path}/hilum.db"
    tables = Database(url)
    tables.migrate()
    tables.close()
    settings = Settings(
        dicom=Dicom(port=free_ports(1)[0]),
        database=DatabaseSettings(url=url),
        spool=SpoolSettings(path=tmp_path / "spool", watermark_mib=0),
        destinations=[
            ScDestination(name="pacs", kind="dicom-sc", ae_title="ORTHANC", port=orthanc.port, when="analysed")
        ],
    )
    made = Worker(settings, [Role.RECEIVE, Role.DELIVER])
    made.start()
    yield made
    made.stop()


def received(worker: Worker, folder: Path) -> tuple[Record, Path]:
    """A phantom sent by C-STORE and raised."""
    path = folder / "phantom.dcm"
    dataset(7, rows=600, columns=500, study_uid=STUDY, sop_uid=film().instance.sop_uid).save_as(
        path, enforce_file_format=True
    )
    (sent,) = send([path], "HILUM", "127.0.0.1", worker.settings.dicom.port)
    assert not sent.error
    return Record(worker.database, worker.settings.database.url), path


def page_at(server: Orthanc, revision: int) -> GrayImage:
    until = time.monotonic() + 40
    while time.monotonic() < until:
        for instance in server.instances_of(STUDY):
            if instance["MainDicomTags"].get("InstanceNumber") == str(revision):
                stored = dcmread(BytesIO(server.get_bytes(f"/instances/{instance['ID']}/file")))
                pixels: GrayImage = stored.pixel_array
                return pixels
        time.sleep(0.05)
    raise AssertionError("no page came")


def test_the_film_of_the_spool_is_on_the_page(worker: Worker, orthanc: Orthanc, tmp_path: Path) -> None:  # noqa: F811
    record, path = received(worker, tmp_path)
    record.conclude(record.claim(at=now()), read(0.91), at=now())
    drawn = page_at(orthanc, 1)
    pixels = read_film(path, worker.settings.gate).pixels
    example = flag(film(reasons=[PNEUMOTHORAX]))
    expected = draw_page(example, [Shown(example.films[0], pixels)])
    middle = np.s_[300:900, 200:800]
    assert np.array_equal(drawn[middle], expected[middle])


def test_a_film_that_was_let_go_is_said_to_be(worker: Worker, orthanc: Orthanc, tmp_path: Path) -> None:  # noqa: F811
    record, _ = received(worker, tmp_path)
    for file in record.instances.paths():
        worker.spool.remove(file)
    record.conclude(record.claim(at=now()), read(0.91), at=now())
    example = flag(film(reasons=[PNEUMOTHORAX]))
    middle = np.s_[300:900, 200:800]
    assert np.array_equal(page_at(orthanc, 1)[middle], draw_page(example, [Shown(example.films[0], None)])[middle])
