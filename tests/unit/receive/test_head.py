"""Identity and context out of the first bytes, from honest and from hostile data sets."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from schemas.errors import ReceiveError, Unreadable, WrongSopClass
from schemas.identity import StudyContext
from worker.receive import head as module
from worker.receive.head import Head, HeadReader

DX = "1.2.840.10008.5.1.4.1.1.1.1"
SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit,
]


def data_set() -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = DX, "1.2.3"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20260102", "101112", "A1"
    ds.Modality, ds.InstitutionName, ds.ReferringPhysicianName = "DX", "Ward", "Referrer^A"
    ds.StudyDescription = "Chest"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = "Phantöm^Chest", "P1", "I1"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.StudyID = "1.2.1", "1.2.2", "S1"
    ds.Rows = 1
    return ds


def encode(ds: Dataset, syntax: str = ExplicitVRLittleEndian, *, undefined: bool = False) -> bytes:
    for element in ds.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for item in element.value:
                item.is_undefined_length_sequence_item = undefined
    out = DicomBytesIO()
    out.is_little_endian = syntax != ExplicitVRBigEndian
    out.is_implicit_VR = syntax == ImplicitVRLittleEndian
    write_dataset(out, ds)
    raw = out.getvalue()
    if syntax == DeflatedExplicitVRLittleEndian:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        raw = deflate.compress(raw) + deflate.flush()
    return bytes(raw)


def read(
    raw: bytes,
    syntax: str = ExplicitVRLittleEndian,
    *,
    step: int = 1 << 20,
    sop_class: str = DX,
    sop_uid: str = "1.2.3",
) -> Head:
    reader = HeadReader(syntax)
    for at in range(0, len(raw), step):
        reader.feed(memoryview(raw)[at : at + step])
    return reader.head(sop_class=sop_class, sop_uid=sop_uid)


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_identity_and_context_in_every_encoding_however_it_arrives(syntax: str, step: int) -> None:
    found = read(encode(data_set(), syntax), syntax, step=step)
    assert (found.instance.study_uid, found.instance.series_uid) == ("1.2.1", "1.2.2")
    assert (found.instance.sop_uid, found.instance.sop_class) == ("1.2.3", DX)
    assert found.instance.transfer_syntax == syntax
    assert found.context == StudyContext(
        patient_id="P1",
        issuer_of_patient_id="I1",
        patient_name="Phantöm^Chest",
        patient_birth_date="19700101",
        patient_sex="O",
        accession_number="A1",
        study_id="S1",
        study_date="20260102",
        study_time="101112",
        study_description="Chest",
        referring_physician_name="Referrer^A",
        modality="DX",
        institution_name="Ward",
    )


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_nested_identity_is_not_the_instances(syntax: str, undefined: bool) -> None:
    ds, inner = data_set(), Dataset()
    inner.SOPInstanceUID, inner.StudyInstanceUID, inner.PatientID = "9.9", "9.9", "other"
    inner.ReferencedSeriesSequence = Sequence([Dataset(), Dataset()])
    ds.ReferencedStudySequence = Sequence([inner, inner])
    found = read(encode(ds, syntax, undefined=undefined), syntax)
    assert found.instance.sop_uid == "1.2.3"
    assert found.instance.study_uid == "1.2.1"
    assert found.context.patient_id == "P1"


def test_private_sequences_of_unknown_vr_are_implicit_inside() -> None:
    # PS3.5 6.2.2 note 2: (0009,1001) UN of undefined length holds Implicit VR Little Endian.
    inner = encode(data_set(), ImplicitVRLittleEndian)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    private = struct.pack("<HH2sxxI", 9, 0x1001, b"UN", 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    raw = encode(data_set())
    at = raw.index(struct.pack("<HH", 0x0010, 0x0010))
    assert read(raw[:at] + private + raw[at:]).instance.series_uid == "1.2.2"


def test_an_element_without_vr_among_explicit_ones() -> None:
    raw = encode(data_set())
    at = raw.index(struct.pack("<HH", 0x0010, 0x0010))
    stray = struct.pack("<HHI", 9, 0x1001, 4) + b"abcd"
    assert read(raw[:at] + stray + raw[at:]).instance.series_uid == "1.2.2"


def test_nothing_after_the_head_is_looked_at() -> None:
    assert read(encode(data_set()) + b"\xff" * 100).instance.sop_uid == "1.2.3"


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "not a uid", "../../etc/passwd", "1.2\\1.3", "1..2"])
def test_missing_or_malformed_identity_is_unreadable(keyword: str, value: str | None) -> None:
    ds = data_set()
    del ds[keyword]
    raw = encode(ds)
    if value is not None:
        tag = struct.pack("<HH", *divmod(int(data_set()[keyword].tag), 0x10000))
        element = tag + struct.pack("<2sH", b"UI", len(value)) + value.encode()
        raw = element + raw
    with pytest.raises(Unreadable):
        read(raw)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_leading_zeros_in_a_uid_are_kept_as_sent() -> None:
    ds = data_set()
    ds.StudyInstanceUID = "1.02.003"
    assert read(encode(ds)).instance.study_uid == "1.02.003"


def test_data_set_and_command_set_must_agree() -> None:
    raw = encode(data_set())
    with pytest.raises(WrongSopClass):
        read(raw, sop_class="1.2.840.10008.5.1.4.1.1.2")
    with pytest.raises(Unreadable, match="instances"):
        read(raw, sop_uid="1.2.4")


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_data_set_at_all(syntax: str) -> None:
    with pytest.raises(Unreadable):
        read(b"", syntax)


@pytest.mark.parametrize("cut", range(0, 400, 13))
def test_a_data_set_cut_off_anywhere_is_read_or_refused(cut: int) -> None:
    raw = encode(data_set())
    try:
        assert read(raw[:cut]).instance.sop_uid == "1.2.3"
    except Unreadable:
        assert cut < len(raw)


def test_nesting_without_end_is_refused_without_recursion() -> None:
    sequence = struct.pack("<HH2sxxI", 8, 0x1110, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(Unreadable, match="deep"):
        read(sequence * 100_000)


def test_a_length_beyond_the_end_is_refused() -> None:
    with pytest.raises(Unreadable):
        read(struct.pack("<HH2sxxI", 8, 0x0001, b"OB", 0xFFFFFFF0) + b"x" * 1000)


def test_delimiters_without_a_sequence_are_refused() -> None:
    with pytest.raises(Unreadable):
        read(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) * 3)


def test_no_more_than_the_limit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 10_000)
    reader = HeadReader(ExplicitVRLittleEndian)
    big = struct.pack("<HH2sxxI", 8, 0x0001, b"OB", 1 << 30)
    reader.feed(big + bytes(20_000))
    assert len(reader._bytes) == 10_000
    with pytest.raises(Unreadable, match="no identity in the first"):
        reader.feed(bytes(1))


def test_a_deflated_bomb_is_not_inflated() -> None:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    element = struct.pack("<HH2sxxI", 8, 0x0001, b"OB", 1 << 31)
    bomb = deflate.compress(element) + b"".join(deflate.compress(bytes(1 << 20)) for _ in range(64)) + deflate.flush()
    reader = HeadReader(DeflatedExplicitVRLittleEndian)
    reader.feed(bomb)
    assert len(reader._bytes) <= module.LIMIT
    with pytest.raises(Unreadable):
        reader.head(sop_class=DX, sop_uid="1.2.3")


def test_what_cannot_be_inflated_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="inflate"):
        read(b"\xff" * 100, DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        ("ISO_IR 100", "Müller^A".encode("latin-1"), "Müller^A"),
        ("", b"Plain^A", "Plain^A"),
        ("ISO_IR 192", "Ä^".encode() + b"\xff", "Ä^\ufffd"),
        ("no such set", b"Plain^A", "Plain^A"),
        ("utf-8\0hostile", b"Plain^A", "Plain^A"),
        ("punycode", b"Plain^A", "Plain^A"),
        ("ISO_IR 999", b"Plain^A", "Plain^A"),
        ("ISO_IR 144", "Иван".encode("iso8859_5"), "Иван"),
        ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_names_are_decoded_by_their_character_set(charset: str, raw: bytes, text: str) -> None:
    ds = data_set()
    del ds.SpecificCharacterSet, ds.PatientName
    body = encode(ds)
    at = body.index(struct.pack("<HH", 0x0010, 0x0020))
    name = struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", len(raw)) + raw
    set_name = charset.encode()
    body = struct.pack("<HH2sH", 8, 5, b"CS", len(set_name)) + set_name + body[:at] + name + body[at:]
    assert read(body).context.patient_name == text


@pytest.mark.filterwarnings("ignore:Found unknown escape sequence")
def test_text_is_bounded_and_free_of_control_characters() -> None:
    ds = data_set()
    del ds.PatientID
    raw = encode(ds)
    value = b"a\r\n\x1b\x00b" + b"c" * 5000
    at = raw.index(struct.pack("<HH", 0x0010, 0x0021))
    hostile = struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", len(value)) + value
    assert read(raw[:at] + hostile + raw[at:]).context.patient_id == "ab" + "c" * 62


@given(st.binary(max_size=300), st.sampled_from(SYNTAXES))
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_are_read_or_refused(raw: bytes, syntax: str) -> None:
    with pytest.raises(ReceiveError):
        read(raw, syntax)


@given(st.integers(0, 400), st.integers(0, 255), st.sampled_from(SYNTAXES))
@pytest.mark.filterwarnings("ignore")
def test_any_changed_byte_is_read_or_refused(at: int, value: int, syntax: str) -> None:
    raw = bytearray(encode(data_set(), syntax))
    raw[at % len(raw)] = value
    with suppress(ReceiveError):
        read(bytes(raw), syntax)
