"""The encoding, read back by an independent parser (python-hl7): whatever the text, the message keeps its shape."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import hl7
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.findings import Code
from tests.unit.notify.flags import PATIENT, flag
from worker.notify.hl7_er7 import (
    CODECS,
    authority,
    coded,
    components,
    dicom_date,
    dicom_moment,
    encode,
    moment,
    patient_name,
    provider_name,
    segment,
    text,
)
from worker.notify.hl7_messages import Envelope, build_order, build_oru

ANYTHING = st.text(st.characters() | st.sampled_from("|^~\\&\r\n\x00\x0b\x1c\x85\u2028\"\udcff=.EFSTRX'"), max_size=40)


def parsed(encoded: bytes, character_set: str) -> hl7.Message:
    message = hl7.parse(encoded.decode(CODECS[character_set]))
    assert isinstance(message, hl7.Message)
    return message


def shape(message: hl7.Message) -> list[tuple[str, int]]:
    return [(str(row[0]), len(row)) for row in message]


def said(value: str, character_set: str) -> str:
    """What may be left of `value`: no line ends or control characters, and only what the character set holds."""
    plain = re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", value).strip()
    return "" if plain == '""' else plain.encode(CODECS[character_set], "replace").decode(CODECS[character_set])


@settings(deadline=None)
@given(ANYTHING, st.sampled_from(sorted(CODECS)))
def test_any_text_comes_through_and_changes_no_shape(value: str, character_set: str) -> None:
    envelope = Envelope(character_set=character_set, sending_facility="F", receiving_application="A")
    spoilt = flag(context=replace(PATIENT, study_description=f"x{value}", accession_number=f"y{value}", study_id=value))
    for build in (build_oru, build_order):
        sound = parsed(build(flag(), envelope).encoded, character_set)
        message = parsed(build(spoilt, envelope).encoded, character_set)
        assert shape(message) == shape(sound)
        request = message.segment("OBR")
        assert message.unescape(str(request[4]).split("^")[4]) == said(f"x{value}", character_set)
        assert message.unescape(str(request[18])) == said(f"y{value}", character_set)
        assert message.unescape(str(request[19])) == said(value, character_set)


@settings(deadline=None)
@given(ANYTHING, ANYTHING, st.sampled_from(sorted(CODECS)))
def test_whatever_the_patient_is_called_no_shape_changes(name: str, identifier: str, character_set: str) -> None:
    envelope = Envelope(character_set=character_set, sending_facility=name)
    context = replace(PATIENT, patient_name=name, referring_physician_name=name, patient_id=f"z{identifier}")
    message = parsed(build_oru(flag(context=context), envelope).encoded, character_set)
    assert shape(message) == shape(parsed(build_oru(flag(), envelope).encoded, character_set))
    assert message.unescape(str(message.segment("PID")[3]).split("^")[0]) == said(f"z{identifier}", character_set)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("|^~\\&", "\\F\\\\S\\\\R\\\\E\\\\T\\"),
        ("a\rMSH|b", "a MSH\\F\\b"),
        ("\x0ba\x1c\x00\x1bb\x85c\u2028d", "a   b c d"),
        ("\\X0D\\", "\\E\\X0D\\E\\"),
        ('""', ""),  # would delete what the receiver has
        ('say "" so', 'say "" so'),
        ("  \t", ""),
    ],
)
def test_text(value: str, encoded: str) -> None:
    assert text(value) == encoded


def test_a_segment_leaves_out_what_is_empty_at_its_end() -> None:
    assert segment("ZZZ", {1: "a", 4: "b", 6: ""}) == "ZZZ|a|||b\r"
    assert segment("MSH", {3: "a", 5: "b"}) == "MSH|^~\\&|a||b\r"
    assert components("a", "", "b", "", "") == "a^^b"


def test_coded() -> None:
    assert coded(Code("1", "SCT", "a^b")) == "1^a\\S\\b^SCT"
    assert coded(Code("1", "SCT", "a"), Code("2", "L", "b")) == "1^a^SCT^2^b^L"


def test_an_issuer_may_be_an_oid() -> None:
    assert authority("HOSPITAL & SONS") == ("HOSPITAL \\T\\ SONS", "", "")
    assert authority("1.2.3") == ("", "1.2.3", "ISO")
    assert authority("") == ("", "", "")


@pytest.mark.parametrize(
    ("name", "character_set", "encoded"),
    [
        ("Doe^Jane", "ASCII", "Doe^Jane^^^^^L^A"),
        ("Adams^John Robert^Quincy^Rev.^B.A. M.Div.", "ASCII", "Adams^John Robert^Quincy^B.A. M.Div.^Rev.^^L^A"),
        (
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "UNICODE UTF-8",
            "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P",
        ),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "8859/1", "Yamada^Tarou^^^^^L^A"),
        ("=山田^太郎", "UNICODE UTF-8", "山田^太郎^^^^^L^I"),
        ("=山田^太郎", "ASCII", "??^??^^^^^L^I"),
        ("Люкceмбypг^Анна", "UNICODE UTF-8", "Люкceмбypг^Анна^^^^^L^A"),
        ("Люк^Анна", "8859/1", "???^????^^^^^L^A"),
        ("Müller^Jörg", "8859/1", "Müller^Jörg^^^^^L^A"),
        ("Müller^Jörg", "ASCII", "M?ller^J?rg^^^^^L^A"),
        ("Doe^\udcff\udc80", "UNICODE UTF-8", "Doe^??^^^^^L^A"),
        ("a^b^c^d^e^f^g=i=p=x", "ASCII", "a^b^c^e^d^^L^A~i^^^^^^L^I~p^^^^^^L^P"),
        ("O|Brien&^~", "ASCII", "O\\F\\Brien\\T\\^\\R\\^^^^^L^A"),
        ("", "ASCII", "^^^^^^U"),
        ("^^==", "ASCII", "^^^^^^U"),
        ("\x00\r", "ASCII", "^^^^^^U"),
    ],
)
def test_patient_names(name: str, character_set: str, encoded: str) -> None:
    assert encode(patient_name(name, character_set), character_set) == encoded.encode(CODECS[character_set])


def test_provider_names() -> None:
    assert provider_name("Who^A^B^Dr.^Jr.=山^川", "UNICODE UTF-8") == (
        "^Who^A^B^Jr.^Dr.^^^^L^^^^^A~^山^川^^^^^^^L^^^^^I"
    )
    assert provider_name("", "ASCII") == ""


@pytest.mark.parametrize(
    ("day", "time", "encoded"),
    [
        ("20250102", "101500", "20250102101500"),
        ("20250102", "1015", "202501021015"),
        ("20250102", "101500.123456", "20250102101500.1234"),
        ("20250102", "10", "20250102"),
        ("20250102", "10:15", "20250102"),
        ("20250102", "101560", "20250102"),
        ("20250102", "241500", "20250102"),
        ("20250102", "１０１５", "20250102"),
        ("20250231", "101500", ""),
        ("1960.02.29", "101500", ""),
        ("١٩٦٠٠٢٢٩", "", ""),
        ("2025-W01", "", ""),
        ("", "101500", ""),
        ("20250102|", "101500\r", ""),
    ],
)
def test_dicom_dates_and_times(day: str, time: str, encoded: str) -> None:
    assert dicom_moment(day, time) == encoded
    assert dicom_date(day) == encoded[:8]


def test_moments_carry_their_offset() -> None:
    when = datetime(2025, 1, 2, 10, 16, 0, 250_049, tzinfo=UTC)
    encoded = moment(when)
    assert re.fullmatch(r"\d{14}\.2500[+-]\d{4}", encoded)
    assert datetime.strptime(encoded, "%Y%m%d%H%M%S.%f%z") == when.replace(microsecond=250_000)
