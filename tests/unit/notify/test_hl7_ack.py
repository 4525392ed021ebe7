"""What an acknowledgement means: delivered, try again, or a person must act; none of its texts is repeated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from worker.notify.hl7_ack import Acknowledgement, parse_ack, proof

HEADER = "MSH|^~\\&|RIS||HILUM||20250102101601||ACK^R01^ACK|1|P|2.5.1"


def block(*segments: str) -> bytes:
    return "\r".join([HEADER, *segments, ""]).encode()


def parsed(*segments: str) -> Acknowledgement:
    ack = parse_ack(block(*segments))
    assert ack is not None
    return ack


def ack(code: str, *conditions: str) -> Acknowledgement:
    return Acknowledgement(code=code, control_id="ID", conditions=conditions)


@pytest.mark.parametrize(
    ("segments", "code", "conditions"),
    [
        (["MSA|AA|ID"], "AA", ()),
        (["MSA|AE|ID", "ERR|||207^Application internal error^HL70357|E"], "AE", ("207",)),
        (["MSA|AE|ID", "ERR||PID^1^3|101^Required field missing^HL70357|E||||Doe, Jane"], "AE", ("101",)),
        (["MSA|AE|ID", "ERR|||101|E", "ERR|||207|E"], "AE", ("101", "207")),
        (["MSA|AA|ID", "ERR|||103^^HL70357|W", "ERR|||0^^HL70357|I"], "AA", ()),
        (["MSA|AE|ID", "ERR|||101^Our own^L|E"], "AE", ()),  # a table of the site's own
        (["MSA|AE|ID", "ERR|||Doe^Jane|E"], "AE", ()),
        (["MSA|AR|ID", "ERR|PID^1^5^101&Required field missing&HL70357"], "AR", ("101",)),  # v2.3.1
        (["MSA|AR|ID", "ERR|PID^1^5^101~PID^1^7^102"], "AR", ("101", "102")),
        (["MSA|AR|ID||||207^Application internal error^HL70357"], "AR", ("207",)),
        (["MSA|AR|ID|Doe is unknown here||"], "AR", ()),
        (["SFT|x", "MSA|CA| ID "], "CA", ()),
    ],
)
def test_what_an_acknowledgement_says(segments: list[str], code: str, conditions: tuple[str, ...]) -> None:
    assert parsed(*segments) == Acknowledgement(code=code, control_id="ID", conditions=conditions)


def test_other_delimiters_line_ends_and_character_sets() -> None:
    other = b"MSH#*:\\%#RIS\nMSA#AE#ID#\xff\xfe\nERR#PID*1*5*101%x:*****\n"
    assert parse_ack(other) == ack("AE", "101")
    assert parse_ack(b"\xef\xbb\xbf\r\n" + block("MSA|AA|ID")) == ack("AA")


@pytest.mark.parametrize(
    "garbage",
    [b"", b"MSH", b"MSH|^~\\&", b"HTTP/1.1 400 Bad Request", block(), block("MSA"), block("MSA|OK|ID"), b"\x00" * 100],
)
def test_what_is_no_acknowledgement(garbage: bytes) -> None:
    assert parse_ack(garbage) is None


@settings(deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_no_garbage_is_an_error_of_ours(garbage: bytes, headed: bool) -> None:
    ack = parse_ack(b"MSH|^~\\&|\rMSA|AE|\rERR|" + garbage if headed else garbage)
    assert ack is None or ack.code == "AE" or not headed


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_delivered(code: str) -> None:
    assert proof(ack(code), "ris:2575", sent_before=False) == f"ACK {code} ID"


@pytest.mark.parametrize(
    ("code", "conditions", "failure", "words"),
    [
        ("AE", (), TransientFailure, r"\(ACK AE\): look at its log"),
        ("CE", (), TransientFailure, r"\(ACK CE\)"),
        ("AE", ("206",), TransientFailure, r"\(ACK AE 206\): a record is locked there; look at its log"),
        ("AE", ("207",), TransientFailure, "internal error"),
        ("AE", ("999",), TransientFailure, r"\(ACK AE 999\)"),
        ("AE", ("101",), PermanentFailure, "a field that it requires is missing; mend it there, then replay"),
        ("AE", ("101", "207"), PermanentFailure, "a field that it requires is missing"),
        *(("AE", (c,), PermanentFailure, f"ACK AE {c}") for c in ("100", "102", "103", "200", "201", "203", "204")),
        ("AE", ("202",), PermanentFailure, "mend processing_id of this destination"),
        ("AE", ("205",), PermanentFailure, "of this number already"),
        ("AR", (), PermanentFailure, r"rejects the message \(ACK AR\): its log says why"),
        ("CR", (), PermanentFailure, r"\(ACK CR\)"),
        ("AR", ("999",), PermanentFailure, r"\(ACK AR 999\)"),
        ("AR", ("207",), TransientFailure, "internal error"),
        ("AR", ("206",), TransientFailure, "a record is locked"),
        ("AR", ("200", "207"), PermanentFailure, "does not take this type of message"),
    ],
)
def test_refused(code: str, conditions: tuple[str, ...], failure: type[DeliveryError], words: str) -> None:
    with pytest.raises(failure, match=words) as raised:
        proof(ack(code, *conditions), "ris:2575", sent_before=False)
    assert str(raised.value).startswith("ris:2575 ")


@pytest.mark.parametrize("code", ["AE", "AR"])
def test_a_resend_that_was_there_already_is_delivered(code: str) -> None:
    assert proof(ack(code, "205"), "ris:2575", sent_before=True) == f"ACK {code} 205 ID, it was there already"


def test_no_text_of_the_receiver_is_repeated() -> None:
    said = parsed("MSA|AE|ID|Doe^Jane", "ERR||PID^1^5^Doe|101^Doe^HL70357|E|Doe|Doe|Doe|Doe")
    with pytest.raises(PermanentFailure) as raised:
        proof(said, "ris:2575", sent_before=False)
    assert "Doe" not in str(raised.value)
