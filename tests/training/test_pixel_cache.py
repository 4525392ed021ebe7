from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from schemas.image import GrayImage
from training import pixel_cache as module
from training.films import square
from training.nih_index import NihFilm, read_index
from training.pixel_cache import pixel_cache
from worker.tensor.image_file import open_image
from worker.tensor.recipe import fingerprint, to_tensor


@pytest.fixture
def index(nih: Path) -> tuple[NihFilm, ...]:
    return read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which films were really decoded."""
    paths: list[Path] = []

    def counted(path: Path, size: int) -> GrayImage:
        paths.append(path)
        return square(path, size)

    monkeypatch.setattr(module, "square", counted)
    return paths


def test_holds_what_the_recipe_makes(index: tuple[NihFilm, ...], tmp_path: Path, progress: Progress) -> None:
    cache = pixel_cache(index, tmp_path / "cache", 32, progress)
    assert cache.pixels.shape == (60, 32, 32)
    assert cache.readable.all()
    for i in (0, 17, 59):
        assert (cache.pixels[i] == to_tensor(open_image(index[i].path), 32)[:, :, 1]).all()
    with pytest.raises(ValueError, match="read-only"):
        cache.pixels[0] = 1


def test_is_built_once(index: tuple[NihFilm, ...], tmp_path: Path, progress: Progress, decoded: list[Path]) -> None:
    first = pixel_cache(index, tmp_path / "cache", 32, progress)
    again = pixel_cache(index, tmp_path / "cache", 32, progress)
    assert len(decoded) == 60
    assert (first.pixels == again.pixels).all()


def test_goes_on_where_it_was_stopped(
    index: tuple[NihFilm, ...], tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 10)
    seen: list[Path] = []

    def stopped(path: Path, size: int) -> GrayImage:
        if path == index[35].path and len(seen) < 100:
            seen.extend([path] * 100)
            raise KeyboardInterrupt
        seen.append(path)
        return square(path, size)

    monkeypatch.setattr(module, "square", stopped)
    with pytest.raises(KeyboardInterrupt):
        pixel_cache(index, tmp_path / "cache", 32, progress)
    seen.clear()
    seen.extend([tmp_path] * 100)
    cache = pixel_cache(index, tmp_path / "cache", 32, progress)
    assert len(seen) - 100 == 30, "the three chunks that were marked are not decoded again"
    assert cache.readable.all()
    assert (cache.pixels[5] == square(index[5].path, 32)).all()


def test_an_unreadable_film_is_marked_not_fatal(index: tuple[NihFilm, ...], tmp_path: Path, progress: Progress) -> None:
    index[7].path.write_bytes(index[7].path.read_bytes()[:100])
    cache = pixel_cache(index, tmp_path / "cache", 32, progress)
    assert np.flatnonzero(~cache.readable).tolist() == [7]
    assert not cache.pixels[7].any()


def test_another_size_recipe_or_set_of_films_is_another_cache(
    index: tuple[NihFilm, ...], tmp_path: Path, progress: Progress
) -> None:
    for films, size in ((index, 32), (index, 48), (index[:30], 32)):
        pixel_cache(films, tmp_path / "cache", size, progress)
    names = [p.name for p in (tmp_path / "cache").glob("*.npy") if ".state" not in p.name]
    assert len(names) == 3
    assert sum(name.startswith(f"{fingerprint(32)}-32-") for name in names) == 2
