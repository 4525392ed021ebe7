"""The tensor recipe: squash, antialias, three equal channels, polarity untouched, and a fingerprint that tells."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker.tensor import recipe
from worker.tensor.recipe import fingerprint, golden_film, to_tensor


def test_golden_values() -> None:
    """Pinned: whoever changes these numbers changes what every trained model sees, and must name a new recipe."""
    assert recipe.RECIPE == "squash-bilinear-gap3-grey3/1"
    assert hashlib.sha256(golden_film(1500, 1400).tobytes()).hexdigest()[:16] == GOLDEN_FILM
    assert to_tensor(golden_film(1500, 1400))[::60, ::60, 0].tolist() == GOLDEN_TENSOR
    assert fingerprint(224) == GOLDEN_FINGERPRINT


GOLDEN_FILM = "da4acef1d5907738"
GOLDEN_TENSOR = [[0, 182, 142, 137], [86, 17, 228, 223], [212, 138, 98, 94], [65, 171, 207, 203]]
GOLDEN_FINGERPRINT = "d500ac27029d2b66"


def test_three_equal_contiguous_channels() -> None:
    tensor = to_tensor(golden_film(301, 517))
    assert tensor.shape == (224, 224, 3)
    assert tensor.dtype == np.uint8
    assert tensor.flags.c_contiguous
    assert (tensor == tensor[:, :, :1]).all()


@given(rows=st.integers(1, 700), columns=st.integers(1, 700), size=st.sampled_from([32, 224]))
def test_any_shape_is_squashed_to_the_square(rows: int, columns: int, size: int) -> None:
    assert to_tensor(np.zeros((rows, columns), np.uint8), size).shape == (size, size, 3)


def test_squash_not_letterbox() -> None:
    film = np.zeros((100, 400), np.uint8)
    film[:, 200:] = 255
    tensor = to_tensor(film)
    assert tensor[:, :110].max() == 0
    assert tensor[:, 114:].min() == 255


def test_polarity_and_levels_are_untouched() -> None:
    film = golden_film(1500, 1400)
    assert np.abs(to_tensor(255 - film).astype(int) - (255 - to_tensor(film).astype(int))).max() <= 1
    for level in (0, 1, 127, 255):
        assert (to_tensor(np.full((2500, 2048), level, np.uint8)) == level).all()


def test_a_square_film_of_the_size_is_unchanged() -> None:
    film = golden_film(224, 224)
    assert (to_tensor(film)[:, :, 0] == film).all()


def test_two_step_reduction_stays_near_the_true_filter() -> None:
    film = golden_film(2500, 2048)
    true = np.asarray(Image.fromarray(film).resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    difference = np.abs(to_tensor(film)[:, :, 0].astype(int) - true)
    assert difference.mean() < 2.0


@pytest.mark.parametrize(
    "film",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4), np.float32),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_what_is_no_grey_film_is_refused(film: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a grey film is uint8"):
        to_tensor(film)


def test_fingerprint_follows_size_name_and_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(224)
    assert fingerprint(128) != before
    monkeypatch.setattr(recipe, "RECIPE", "another")
    fingerprint.cache_clear()
    assert fingerprint(224) != before
    monkeypatch.undo()
    fingerprint.cache_clear()

    def another_pillow(grey: np.ndarray, size: int = 224) -> np.ndarray:
        return to_tensor(grey, size) ^ 1

    monkeypatch.setattr(recipe, "to_tensor", another_pillow)
    assert recipe.fingerprint(224) != before
    monkeypatch.undo()
    fingerprint.cache_clear()
    assert fingerprint(224) == before
