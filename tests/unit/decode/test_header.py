"""What the header says, from well-formed and from hostile files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from schemas.errors import Undecodable
from tests.unit.decode.films import encoded, film, source_of
from worker.decode import header
from worker.decode.film import read_header
from worker.decode.header import describe, open_source, texts
from worker.simulate import phantom

CELLS = np.zeros((4, 4), np.uint16)


def age(**elements: object) -> float | None:
    return describe(source_of(film(CELLS, **elements)))[0].patient_age_years


@pytest.mark.parametrize(
    ("text", "years"),
    [("054Y", 54), ("018M", 1.5), ("010W", 0.19), ("090D", 0.25), ("54", 54), ("7", 7), ("", None), ("old", None)],
)
def test_age_as_stated(text: str, years: float | None) -> None:
    ds = film(CELLS)
    ds.add_new("PatientAge", "LO", text)  # pydicom refuses to write what senders send as AS
    data = encoded(ds).replace(b"\x10\x00\x10\x10LO", b"\x10\x00\x10\x10AS")
    stated = describe(open_source(io.BytesIO(data)))[0].patient_age_years
    assert stated == (None if years is None else pytest.approx(years, abs=0.01))


def test_age_by_the_dates() -> None:
    assert age(PatientBirthDate="19700615", StudyDate="20200615") == pytest.approx(50, abs=0.01)
    assert age(PatientBirthDate="19700615", AcquisitionDate="20200615") == pytest.approx(50, abs=0.01)
    assert age(PatientBirthDate="19700615") is None
    assert age(PatientBirthDate="20200615", StudyDate="19010101") is None  # de-identified
    assert age(PatientBirthDate="17000101", StudyDate="20200615") is None


def test_age_zero_gives_way_to_the_dates() -> None:
    assert age(PatientAge="000Y", PatientBirthDate="19700615", StudyDate="20200615") == pytest.approx(50, abs=0.01)
    assert age(PatientAge="000Y") == 0
    assert age(PatientAge="010Y", PatientBirthDate="19000101", StudyDate="20200615") == 10


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_header_and_context_of_a_phantom(tmp_path: Path, syntax: str) -> None:
    path = tmp_path / "film.dcm"
    ds = phantom.dataset(12, rows=96, columns=80, transfer_syntax=syntax, age_years=61)
    ds.save_as(path, enforce_file_format=True)
    film_header, context = read_header(path)
    assert (film_header.modality, film_header.body_part_examined, film_header.view_position) == ("DX", "CHEST", "PA")
    assert film_header.anatomic_region == "Chest"
    assert film_header.patient_orientation == ("L", "F")
    assert (film_header.rows, film_header.columns, film_header.bits_stored) == (96, 80, 12)
    assert film_header.patient_age_years == 61
    assert film_header.has_pixels
    assert film_header.presentation_intent == "FOR PRESENTATION"
    assert (context.patient_id, context.patient_name) == ("PHANTOM-0012", "PHANTOM^ONE TWO")
    assert context.study_date == "20240101"


def test_view_code_where_view_position_is_empty() -> None:
    ds = phantom.dataset(1, rows=96, columns=80, view="LL")
    ds.ViewPosition = ""
    assert describe(source_of(ds))[0].view_position == "left lateral"


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 100", "PHANTOM^ZWÖLF"), ("ISO_IR 192", "PHANTOM^ΔΩΔΕΚΑ"), (["", "ISO 2022 IR 87"], "PHANTOM=十二")],
)
def test_names_in_their_character_set(character_set: str | list[str], name: str) -> None:
    ds = phantom.dataset(1, rows=96, columns=80, patient_name=name)
    ds.SpecificCharacterSet = character_set
    assert describe(source_of(ds))[1].patient_name == name


def test_text_is_printable_and_bounded() -> None:
    ds = film(CELLS, StudyDescription="CHEST\x00\x1b[31m\nPA", SeriesDescription="X" * 5000)
    film_header, _ = describe(source_of(ds))
    assert film_header.study_description.isprintable()
    assert film_header.study_description.startswith("CHEST")
    assert len(film_header.series_description) == 1024


def test_an_unknown_character_set_is_no_fault() -> None:
    ds = film(CELLS, PatientName="PHANTOM^ONE")
    data = encoded(ds).replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x05\x00CS\x06\x00MARTIA\x08\x00\x16\x00UI")
    assert describe(open_source(io.BytesIO(data)))[1].patient_name == "PHANTOM^ONE"


def test_a_sequence_where_text_belongs_and_text_where_a_sequence_belongs() -> None:
    ds = film(CELLS)
    ds.add_new("StudyDescription", "SQ", [Dataset()])
    ds.add_new("AnatomicRegionSequence", "LO", "CHEST")
    film_header, _ = describe(source_of(ds))
    assert film_header.anatomic_region == ""


def test_no_pixels() -> None:
    assert not describe(source_of(film(CELLS, PixelData=None)))[0].has_pixels
    assert not describe(source_of(film(CELLS, PixelData=b"")))[0].has_pixels


def test_a_bare_data_set_without_meta_is_read() -> None:
    data = encoded(film(CELLS, syntax=ImplicitVRLittleEndian))
    bare = data[data.index(b"\x08\x00\x16\x00") :]
    source = open_source(io.BytesIO(bare))
    assert source.transfer_syntax == ""
    assert describe(source)[0].modality == "DX"


def test_a_deflate_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_INFLATED", 1 << 20)
    meta = encoded(film(CELLS, syntax=DeflatedExplicitVRLittleEndian))
    length = struct.unpack_from("<I", meta, 140)[0]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(b"\0" * (4 << 20)) + packer.flush()
    with pytest.raises(Undecodable, match="larger than 1 MiB"):
        open_source(io.BytesIO(meta[: 144 + length] + bomb))


def test_sequences_nested_without_end_are_refused() -> None:
    nest = (b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    with pytest.raises(Undecodable, match="RecursionError"):
        open_source(io.BytesIO(b"\0" * 128 + b"DICM" + nest))


def test_a_length_beyond_the_file_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(encoded(film(CELLS, PixelData=None)) + b"\x28\x00\x06\x30UN\0\0\xf0\xff\xff\xff" + b"abc")
    with pytest.raises(Undecodable, match="ValueError"):  # not MemoryError
        read_header(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 132, b"DICM", b"\0" * 128 + b"DICM", b"%PDF-1.7 and so on" * 20])
def test_what_is_not_dicom(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(data)
    try:
        film_header, _ = read_header(path)
    except Undecodable:
        return
    assert film_header.modality == ""
    assert not film_header.has_pixels


def test_a_missing_file_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "nowhere.dcm")


def test_a_name_is_one_value() -> None:
    ds = film(CELLS, PatientName="PHANTOM^ONE")
    assert texts(source_of(ds).dataset, "PatientName") == ("PHANTOM^ONE",)


@pytest.mark.parametrize(
    ("tag", "value"), [((0x0028, 0x1050), b"1\\"), ((0x0028, 0x3010), b"\xfe\xff\x00\xe0\0\0\0\0")]
)
def test_no_element_is_made_into_a_hundred_times_its_size(tag: tuple[int, int], value: bytes) -> None:
    """Seen: 20 MB of Window Center took 4.5 GB and half a minute, an empty item for every eight bytes no less."""
    bomb = value * ((header.MAX_SEQUENCE // len(value)) + 1)
    bare = film(CELLS)
    bare.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data = encoded(bare)
    at = data.rfind(struct.pack("<HH", 0x7FE0, 0x0010))
    source = open_source(io.BytesIO(data[:at] + struct.pack("<HHI", *tag, len(bomb)) + bomb + data[at:]))
    assert source.has_pixels
    for keyword in ("WindowCenter", "VOILUTSequence"):
        assert header.raw(source.dataset, keyword) is None
