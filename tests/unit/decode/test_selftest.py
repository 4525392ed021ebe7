"""Which transfer syntaxes are offered: those that decode to the right pixels, and a mend for the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
from pydicom.uid import UID

from schemas.errors import Undecodable
from worker.decode import pixels, selftest


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    selftest.usable_transfer_syntaxes.cache_clear()
    yield
    selftest.usable_transfer_syntaxes.cache_clear()


def test_every_syntax_of_the_conformance_statement_decodes() -> None:
    names = {UID(s).keyword for s in selftest.usable_transfer_syntaxes()}
    assert names == {
        *("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian"),
        *("JPEGBaseline8Bit", "JPEGExtended12Bit", "JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless"),
        *("JPEGLSNearLossless", "JPEG2000Lossless", "JPEG2000", "HTJ2KLossless", "HTJ2KLosslessRPCL", "HTJ2K"),
        "RLELossless",
    }


def test_a_decoder_that_gives_zeros_is_not_offered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pixels, "decode_apart", lambda *_: bytearray(512))
    with caplog.at_level(logging.WARNING, "hilum.decode"):
        usable = selftest.usable_transfer_syntaxes()
    assert [UID(s).keyword for s in usable] == [
        *("ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian", "ExplicitVRBigEndian"),
        "JPEGBaseline8Bit",
    ]
    assert "syntax=1.2.840.10008.1.2.4.80 fault=wrong pixels mend=reinstall pyjpegls" in caplog.text
    assert "syntax=1.2.840.10008.1.2.4.202 fault=wrong pixels mend=reinstall pylibjpeg-openjpeg" in caplog.text
    assert "syntax=1.2.840.10008.1.2.5 fault=wrong pixels mend=reinstall python-gdcm" in caplog.text


def test_a_missing_decoder_is_not_offered(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def missing(*_: object) -> bytearray:
        raise Undecodable("decoder failed (ModuleNotFoundError)")

    monkeypatch.setattr(pixels, "decode_apart", missing)
    with caplog.at_level(logging.WARNING, "hilum.decode"):
        assert len(selftest.usable_transfer_syntaxes()) == 5
    assert "ModuleNotFoundError" in caplog.text


def test_fixtures_are_gradients_not_blank() -> None:
    assert len(np.unique(selftest._expected("1.2.840.10008.1.2.1"))) > 100
