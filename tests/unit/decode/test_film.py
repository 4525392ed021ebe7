"""File to film: what is corrected and remarked, and that nothing but the documented errors escapes."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from schemas.errors import NotAnalysable
from schemas.gate import GateRules
from schemas.not_analysed import NotAnalysed
from tests.unit.decode.films import encoded
from worker.decode import film as film_module
from worker.decode.film import read_film
from worker.simulate import phantom

RULES = GateRules()
SMALL = {"rows": 240, "columns": 210}
SYNTAXES = (
    *(ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian),
    JPEGBaseline8Bit,
)


def saved(folder: Path, ds: object) -> Path:
    path = folder / "film.dcm"
    ds.save_as(path, enforce_file_format=True)  # type: ignore[attr-defined]
    return path


def test_a_phantom_is_shown_as_it_was_drawn(tmp_path: Path) -> None:
    film = read_film(saved(tmp_path, phantom.dataset(1, **SMALL)), RULES)
    assert np.abs(film.pixels.astype(int) - phantom.draw(1, **SMALL)).max() <= 1
    assert film.remarks == ()
    assert film.context.patient_id == "PHANTOM-0001"


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("lying", [False, True])
@pytest.mark.parametrize("window", [False, True])
def test_polarity_is_right_in_the_end(tmp_path: Path, photometric: str, lying: bool, window: bool) -> None:
    ds = phantom.dataset(1, photometric=photometric, lying=lying, window=window, **SMALL)
    film = read_film(saved(tmp_path, ds), RULES)
    assert film.remarks == (("polarity-corrected",) if lying else ())
    assert np.abs(film.pixels.astype(int) - phantom.draw(1, **SMALL)).mean() < (2 if window else 25)


def test_a_window_that_shows_nothing_is_ignored(tmp_path: Path) -> None:
    ds = phantom.dataset(1, **SMALL)
    ds.WindowCenter, ds.WindowWidth = 60000, 10
    assert read_film(saved(tmp_path, ds), RULES).remarks == ("window-ignored",)


def test_raw_detector_images_are_remarked(tmp_path: Path) -> None:
    ds = phantom.dataset(1, **SMALL)
    ds.PresentationIntentType = "FOR PROCESSING"
    assert read_film(saved(tmp_path, ds), RULES).remarks == ("for-processing",)


def test_what_the_header_refuses_is_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_module, "stored_pixels", lambda *_: pytest.fail("decoded"))
    with pytest.raises(NotAnalysable, match="lateral"):
        read_film(saved(tmp_path, phantom.dataset(1, view="LL", **SMALL)), RULES)


@pytest.mark.parametrize(
    ("code", "ds"),
    [
        (NotAnalysed.LATERAL, phantom.dataset(1, view="RL", **SMALL)),
        (NotAnalysed.CHILD, phantom.dataset(1, age_years=9, **SMALL)),
        (NotAnalysed.BLANK, phantom.blank(1, **SMALL)),
        (NotAnalysed.TOO_SMALL, phantom.dataset(1, rows=100, columns=90)),
    ],
)
def test_odd_phantoms_get_their_code(tmp_path: Path, code: NotAnalysed, ds: object) -> None:
    with pytest.raises(NotAnalysable) as error:
        read_film(saved(tmp_path, ds), RULES)
    assert error.value.code is code


@cache
def _files() -> tuple[bytes, ...]:
    return tuple(
        encoded(phantom.dataset(1, bits_stored=8, transfer_syntax=syntax, rows=208, columns=200)) for syntax in SYNTAXES
    )


def _only_documented_errors(folder: Path, data: bytes) -> None:
    path = folder / "film.dcm"
    path.write_bytes(data)
    try:
        film = read_film(path, RULES)
    except NotAnalysable:
        return
    assert film.pixels.dtype == np.uint8
    assert film.pixels.shape == (film.header.rows, film.header.columns)


HOSTILE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@HOSTILE
@given(syntax=st.integers(0, len(SYNTAXES) - 1), share=st.floats(0, 1))
def test_truncated_files(tmp_path: Path, syntax: int, share: float) -> None:
    data = _files()[syntax]
    _only_documented_errors(tmp_path, data[: int(share * len(data))])


@HOSTILE
@given(syntax=st.integers(0, len(SYNTAXES) - 1), seed=st.integers(0, 2**32), in_header=st.booleans())
def test_bytes_changed_at_random(tmp_path: Path, syntax: int, seed: int, in_header: bool) -> None:
    data, rng = bytearray(_files()[syntax]), random.Random(seed)
    for _ in range(rng.choice((1, 3, 10, 40))):
        data[rng.randrange(min(len(data), 2500) if in_header else len(data))] = rng.randrange(256)
    _only_documented_errors(tmp_path, bytes(data))


@HOSTILE
@given(data=st.binary(max_size=600), preamble=st.booleans())
def test_any_bytes(tmp_path: Path, data: bytes, preamble: bool) -> None:
    _only_documented_errors(tmp_path, (b"\0" * 128 + b"DICM" if preamble else b"") + data)
