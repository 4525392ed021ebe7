"""The report before judges that are not ours: dicom3tools, dcmtk, Orthanc."""

from __future__ import annotations

import re
import subprocess
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, BasicTextSRStorage, ComprehensiveSRStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from schemas.errors import PermanentFailure
from schemas.flag import Flag, Receipt
from tests.orthanc import Orthanc, orthanc, orthanc_of_module  # noqa: F401  fixtures
from tests.unit.notify.flags import PATIENT, PNEUMOTHORAX, STUDY, VALID, film, flag
from worker.notify.association import Peer
from worker.notify.dicom_sr import DicomSr
from worker.notify.sr import LADDER, SERIES_DESCRIPTION, SERIES_NUMBER, build_sr
from worker.notify.wording import CAUTION

DCIODVFY = "/usr/bin/dciodvfy"
DSRDUMP = "/usr/bin/dsrdump"

every_flag = pytest.mark.parametrize("example", VALID.values(), ids=VALID.keys())
every_form = pytest.mark.parametrize("form", LADDER, ids=["comprehensive", "enhanced", "basic-text"])


def written(example: Flag, folder: Path, form: UID = ComprehensiveSRStorage) -> Path:
    path = folder / "report.dcm"
    build_sr(example, form).save_as(path, enforce_file_format=True)
    return path


def told(command: list[str | Path]) -> str:
    assert Path(command[0]).is_file(), f"{command[0]} is missing: apt install dicom3tools dcmtk"
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


@every_form
@every_flag
def test_dciodvfy_finds_no_error(example: Flag, form: UID, tmp_path: Path) -> None:
    said = told([DCIODVFY, written(example, tmp_path, form)])
    assert form.name.removesuffix(" Storage").replace(" ", "") in said  # which IOD it held the report against
    assert not re.findall(r"(?m)^Error.*", said), said


@every_form
@every_flag
def test_dsrdump_reads_the_whole_report(example: Flag, form: UID, tmp_path: Path) -> None:
    # +Pl: the whole text of an item; what dsrdump objects to is an error (E:) or a fault of the tree (W: ... content)
    said = told([DSRDUMP, "+Pl", written(example, tmp_path, form)])
    assert f"{form.name.removesuffix(' Storage')} Document" in said
    assert '"Qualitative Evaluations"' in said
    assert CAUTION in said
    assert not re.findall(r"(?m)^[EF]:.*", said), said


def test_dciodvfy_and_dsrdump_would_say_so_of_a_number_in_a_basic_text_report(tmp_path: Path) -> None:
    report = dcmread(written(flag(), tmp_path))
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    report.save_as(tmp_path / "broken.dcm")
    assert re.findall(r"(?m)^Error.*", told([DCIODVFY, tmp_path / "broken.dcm"]))
    assert re.findall(r"(?m)^[EF]:.*", told([DSRDUMP, tmp_path / "broken.dcm"]))


def test_dciodvfy_would_say_so(tmp_path: Path) -> None:
    report = dcmread(written(flag(), tmp_path))
    del report.CompletionFlag
    report.save_as(tmp_path / "broken.dcm")
    assert re.findall(r"(?m)^Error.*CompletionFlag", told([DCIODVFY, tmp_path / "broken.dcm"]))


def chest_film(number: int = 1) -> bytes:
    """A film of the study that the flags are of, as Orthanc would have it from the modality."""
    image = Dataset()
    image.SOPClassUID = film(number).instance.sop_class
    image.SOPInstanceUID = film(number).instance.sop_uid
    image.StudyInstanceUID = STUDY
    image.SeriesInstanceUID = film(number).instance.series_uid
    image.PatientID, image.PatientName = PATIENT.patient_id, PATIENT.patient_name
    image.PatientBirthDate, image.PatientSex = PATIENT.patient_birth_date, PATIENT.patient_sex
    image.StudyDate, image.StudyTime = PATIENT.study_date, PATIENT.study_time
    image.StudyID, image.AccessionNumber = PATIENT.study_id, PATIENT.accession_number
    image.Modality, image.SeriesNumber, image.InstanceNumber = "DX", 1, number
    image.Rows = image.Columns = 4
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = bytes(16)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def content_of(report: Dataset) -> dict[str, object]:
    """Every element; how lengths are written is the encoder's affair."""
    content: dict[str, object] = report.to_json_dict()
    return content


def to(server: Orthanc, ae_title: str | None = None) -> closing[DicomSr]:
    """A channel for as long as a `with` lasts; one that is kept would hold up the end of Orthanc for its idle time."""
    title = ae_title or server.ae_title
    return closing(
        DicomSr(
            name="pacs",
            peer=Peer(ae_title=title, host=server.host, port=server.port, calling_ae_title="HILUM"),
        )
    )


def sent(server: Orthanc, example: Flag) -> Receipt:
    with to(server) as channel:
        return channel.send(example)


def test_orthanc_files_the_report_in_the_study_of_the_film(orthanc: Orthanc) -> None:  # noqa: F811
    orthanc.post("/instances", chest_film())
    receipt = sent(orthanc, flag())
    assert receipt.proof == "C-STORE 0x0000"

    (patient,) = orthanc.get("/patients?expand")
    (study,) = orthanc.get("/studies?expand")
    assert patient["MainDicomTags"]["PatientName"] == "Doe^Jane"
    assert study["MainDicomTags"]["StudyInstanceUID"] == STUDY
    assert study["MainDicomTags"]["AccessionNumber"] == "A-1"
    modalities = {s["MainDicomTags"]["Modality"]: s for s in orthanc.get("/series?expand")}
    assert set(modalities) == {"DX", "SR"}
    assert modalities["SR"]["MainDicomTags"]["SeriesNumber"] == str(SERIES_NUMBER)
    assert modalities["SR"]["MainDicomTags"]["SeriesDescription"] == SERIES_DESCRIPTION
    (instance,) = modalities["SR"]["Instances"]
    stored = dcmread(BytesIO(orthanc.get_bytes(f"/instances/{instance}/file")))
    assert stored.SOPInstanceUID == receipt.object_id
    assert content_of(stored) == content_of(build_sr(flag()))


def test_a_resend_is_the_same_instance_and_a_revision_is_another(orthanc: Orthanc) -> None:  # noqa: F811
    with to(orthanc) as channel:
        first = channel.send(flag())
        assert channel.send(flag()) == first
    assert sent(orthanc, flag()) == first
    assert len(orthanc.instances_of(STUDY)) == 1

    second = sent(orthanc, flag(revision=2, predecessor=1))
    held = {i["MainDicomTags"]["SOPInstanceUID"] for i in orthanc.instances_of(STUDY)}
    assert held == {first.object_id, second.object_id}
    assert len(orthanc.get("/series")) == 1


@pytest.mark.parametrize("script", ["Japanese", "Cyrillic", "Hebrew", "quotes and entities"])
def test_names_of_every_script_arrive(orthanc: Orthanc, script: str) -> None:  # noqa: F811
    sent(orthanc, VALID[script])
    (patient,) = orthanc.get("/patients?expand")
    assert patient["MainDicomTags"]["PatientName"] == VALID[script].context.patient_name


def test_check_asks_orthanc(orthanc: Orthanc) -> None:  # noqa: F811
    with to(orthanc) as channel:
        assert "answers C-ECHO and takes Comprehensive SR" in channel.check()
    with (
        to(orthanc, "WRONG") as channel,
        pytest.raises(PermanentFailure, match="does not answer to the AE title WRONG: mend ae_title"),
    ):
        channel.check()


def test_a_pacs_that_knows_us_not_names_the_mend(tmp_path: Path) -> None:
    strict = Orthanc(tmp_path / "strict", settings={"DicomAlwaysAllowEcho": False, "DicomAlwaysAllowStore": False})
    try:
        with pytest.raises(PermanentFailure, match=r"add it there|enabled there|mend it there"):
            sent(strict, flag())
    finally:
        strict.stop()


def test_a_report_longer_than_one_pdu_arrives_whole(orthanc: Orthanc) -> None:  # noqa: F811
    many = flag(*(film(n, reasons=[PNEUMOTHORAX]) for n in range(1, 101)))
    sent(orthanc, many)
    (instance,) = orthanc.instances_of(STUDY)
    stored = dcmread(BytesIO(orthanc.get_bytes(f"/instances/{instance['ID']}/file")))
    assert len(encode(build_sr(many), False, True) or b"") > 128 * 1024
    assert content_of(stored) == content_of(build_sr(many))
