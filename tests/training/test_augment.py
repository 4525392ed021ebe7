from __future__ import annotations

import numpy as np

from training.augment import Augmentation, augmented, plain
from worker.tensor.recipe import golden_film, to_tensor

FILMS = np.stack([golden_film(48, 48), 255 - golden_film(48, 48)])
NOTHING = Augmentation(rotation=0, shift=0, zoom=0, contrast=0, brightness=0, noise=0, flip=0)


def test_plain_is_the_recipe() -> None:
    assert (plain(FILMS, 64)[1] == to_tensor(FILMS[1], 64)).all()


def test_no_change_is_the_recipe() -> None:
    got = augmented(FILMS, 64, np.random.default_rng(0), NOTHING)
    assert (got == plain(FILMS, 64)).all()


def test_flip_mirrors() -> None:
    flipped = augmented(FILMS, 48, np.random.default_rng(0), Augmentation(**{**_zeros(), "flip": 1.0}))
    assert (flipped == plain(FILMS, 48)[:, :, ::-1]).all()


def test_same_seed_same_films_and_each_film_its_own_change() -> None:
    one = augmented(FILMS[[0, 0]], 64, np.random.default_rng(3), Augmentation())
    two = augmented(FILMS[[0, 0]], 64, np.random.default_rng(3), Augmentation())
    assert (one == two).all()
    assert (one[0] != one[1]).any()
    assert one.dtype == np.uint8
    assert (one == one[..., :1]).all()


def test_changes_are_small() -> None:
    blob = np.zeros((1, 96, 96), np.uint8)
    blob[0, 38:58, 38:58] = 200
    for seed in range(20):
        got = augmented(blob, 96, np.random.default_rng(seed), Augmentation(contrast=0, brightness=0, noise=0))[
            0, ..., 0
        ]
        y, x = np.argwhere(got > 100).mean(axis=0)
        assert abs(y - 47.5) < 6
        assert abs(x - 47.5) < 6


def _zeros() -> dict[str, float]:
    return dict.fromkeys(("rotation", "shift", "zoom", "contrast", "brightness", "noise"), 0.0)
