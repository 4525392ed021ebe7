"""Who may call, and in which words the others are told why not."""

from __future__ import annotations

import pytest

from schemas.decision import Urgency
from schemas.errors import ConfigurationError
from schemas.identity import Sender
from worker.receive.access import Caller, LocalAE, Refusal, admit, titles_of, too_many

HILUM = LocalAE(ae_title="HILUM")
STAT = LocalAE(
    ae_title="HILUM_ER", order_urgency=Urgency.STAT, accept=(Caller(ae_title="ER_DX", address="10.0.0.0/8"),)
)


def sender(calling: str = "DX1", called: str = "HILUM", address: str = "192.168.1.7") -> Sender:
    return Sender(calling_ae=calling, called_ae=called, address=address)


def test_each_title_has_its_own_settings() -> None:
    assert admit(sender(), [HILUM, STAT]) is HILUM
    assert admit(sender("ER_DX", "HILUM_ER", "10.1.2.3"), [HILUM, STAT]) is STAT


@pytest.mark.parametrize("called", ["", "hilum", "HILUM2", "ANY-SCP"])
def test_a_title_that_is_not_ours(called: str) -> None:
    verdict = admit(sender(called=called), [HILUM, STAT])
    assert isinstance(verdict, Refusal)
    assert (verdict.result, verdict.source, verdict.reason) == (1, 1, 7)  # PS3.8 table 9-21
    assert "HILUM, HILUM_ER" in verdict.mend


def test_without_a_list_everybody_may_call_even_without_a_name() -> None:
    assert admit(sender(calling=""), [HILUM]) is HILUM


@pytest.mark.parametrize(
    ("calling", "address", "what"),
    [
        ("OTHER", "10.1.2.3", "calling AE title not recognised"),
        ("", "10.1.2.3", "calling AE title not recognised"),
        ("ER_DX", "192.168.1.7", "calling address not allowed"),
        ("ER_DX", "fe80::1%eth0", "calling address not allowed"),
    ],
)
def test_a_caller_that_is_not_on_the_list(calling: str, address: str, what: str) -> None:
    verdict = admit(sender(calling, "HILUM_ER", address), [HILUM, STAT])
    assert isinstance(verdict, Refusal)
    assert (verdict.result, verdict.source, verdict.reason) == (1, 1, 3)
    assert verdict.what == what
    assert address in verdict.mend
    assert "HILUM_ER" in verdict.mend


@pytest.mark.parametrize(
    ("line", "address", "admitted"),
    [
        (Caller(), "10.0.0.1", True),
        (Caller(), "::1", True),
        (Caller(ae_title="DX1"), "::1", True),
        (Caller(address="10.0.0.1"), "10.0.0.1", True),
        (Caller(address="10.0.0.1"), "10.0.0.2", False),
        (Caller(address="10.0.0.7/24"), "10.0.0.2", True),
        (Caller(address="10.0.0.0/8"), "::ffff:10.1.1.1", True),
        (Caller(address="10.0.0.0/8"), "::1", False),
        (Caller(address="fd00::/8"), "fd00::1", True),
        (Caller(ae_title="DX2"), "10.0.0.1", False),
    ],
)
def test_lines_of_the_list(line: Caller, address: str, admitted: bool) -> None:
    assert line.admits(sender(address=address)) is admitted


def test_an_address_that_is_none_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"10\.0\.0\.0/33"):
        _ = Caller(address="10.0.0.0/33").network


def test_the_limit_is_a_passing_refusal() -> None:
    verdict = too_many(100)
    assert (verdict.result, verdict.source, verdict.reason) == (2, 3, 2)
    assert "100" in verdict.what


@pytest.mark.parametrize(
    ("raw", "title"),
    [
        (b"HILUM           ", "HILUM"),
        (b"  HILUM\0\0\0\0\0\0\0\0\0", "HILUM"),
        (b" " * 16, ""),
        (b"\0" * 16, ""),
        (b"R\xf6ntgen\x1b[2J\\   x", "R?ntgen?[2J?   x"),
    ],
)
def test_titles_are_readable_whatever_they_hold(raw: bytes, title: str) -> None:
    assert titles_of(bytes(10) + raw + b"CALLING".ljust(16) + bytes(32)) == (title, "CALLING")
