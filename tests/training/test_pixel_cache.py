from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from rich.progress import Progress, Task

from schemas.errors import ConfigurationError
from schemas.image import GrayImage
from tests import waiting
from training import pixel_cache as module
from training.films import square
from training.nih_index import NihFilm, read_index
from training.pixel_cache import CacheFailed, DiskFull, FilmsPerSecond, PixelCache, pixel_cache
from worker.tensor.image_file import open_image
from worker.tensor.recipe import fingerprint, to_tensor

wait_for = partial(waiting.eventually, seconds=60, every=0.005)

ROOT = Path(__file__).resolve().parents[2]
SIZE = 32

Films = tuple[NihFilm, ...]


@pytest.fixture
def index(nih: Path) -> Films:
    return read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which films were really decoded."""
    paths: list[Path] = []

    def counted(path: Path, size: int) -> GrayImage:
        paths.append(path)
        return square(path, size)

    monkeypatch.setattr(module, "square", counted)
    return paths


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "hilum.training")
    return caplog


def right(cache: PixelCache, index: Films) -> None:
    """Every film that can be read is there, and is what the recipe makes of it."""
    for i, film in enumerate(index):
        wanted = square(film.path, SIZE) if cache.readable[i] else np.zeros((SIZE, SIZE), np.uint8)
        assert (cache.pixels[i] == wanted).all(), film.name


def files(folder: Path) -> dict[str, Path]:
    (pixels,) = (p for p in folder.glob("*.npy") if ".state" not in p.name)
    return {"pixels": pixels, "state": pixels.with_suffix(".state.npy")}


def test_holds_what_the_recipe_makes(index: Films, folder: Path, progress: Progress) -> None:
    cache = pixel_cache(index, folder, SIZE, progress)
    assert cache.pixels.shape == (60, SIZE, SIZE)
    assert cache.readable.all()
    assert cache.unreadable == {}
    for i in (0, 17, 59):
        assert (cache.pixels[i] == to_tensor(open_image(index[i].path), SIZE)[:, :, 1]).all()
    with pytest.raises(ValueError, match="read-only"):
        cache.pixels[0] = 1
    assert isinstance(cache.pixels, np.memmap), "not in memory"
    assert (np.load(cache.path) == cache.pixels).all(), "an ordinary .npy"


def test_is_built_once(index: Films, folder: Path, progress: Progress, decoded: list[Path]) -> None:
    first = pixel_cache(index, folder, SIZE, progress)
    again = pixel_cache(index, folder, SIZE, progress)
    assert len(decoded) == 60
    assert (first.pixels == again.pixels).all()


def test_another_size_recipe_or_set_of_films_is_another_cache(
    index: Films, folder: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    for films, size in ((index, SIZE), (index, 48), (index[:30], SIZE)):
        pixel_cache(films, folder, size, progress)
    monkeypatch.setattr(module, "fingerprint", lambda _: "f" * 16)
    pixel_cache(index, folder, SIZE, progress)
    names = [p.name for p in folder.glob("*.npy") if ".state" not in p.name]
    assert len(names) == 4
    assert sum(name.startswith(f"{fingerprint(SIZE)}-32-") for name in names) == 2
    assert said.text.count("is of other films or another recipe") == 3


def test_a_folder_that_is_moved_keeps_its_cache(
    nih: Path, index: Films, folder: Path, progress: Progress, decoded: list[Path]
) -> None:
    pixel_cache(index, folder, SIZE, progress)
    moved = nih.rename(nih.with_name("elsewhere"))
    pixel_cache(read_index(moved / "Data_Entry_2017_v2020.csv", [moved]).films, folder, SIZE, progress)
    assert len(decoded) == 60


# ── films ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unreadable_films_are_black_named_and_tried_again(
    index: Films, folder: Path, progress: Progress, said: pytest.LogCaptureFixture
) -> None:
    whole = index[7].path.read_bytes()
    index[7].path.write_bytes(whole[:100])
    index[9].path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    for _ in range(2):  # the reason is there the second time too
        cache = pixel_cache(index, folder, SIZE, progress)
        assert np.flatnonzero(~cache.readable).tolist() == [7, 9]
        assert not cache.pixels[7].any()
        assert list(cache.unreadable) == [index[7].name, index[9].name]
        assert "neither PNG, WebP nor JPEG" in cache.unreadable[index[9].name]
        right(cache, index)
    listed = cache.path.with_suffix(".unreadable.csv").read_text().splitlines()
    assert listed[0] == "Image Index,path,reason"
    assert listed[1].startswith(f"{index[7].name},{index[7].path},")
    assert f"2 of 60 films cannot be read, named in {cache.path.with_suffix('.unreadable.csv')}" in said.text
    index[7].path.write_bytes(whole)
    index[9].path.write_bytes(whole)
    cache = pixel_cache(index, folder, SIZE, progress)
    assert cache.readable.all()
    assert (cache.pixels[9] == cache.pixels[7]).all()
    right(cache, index)
    assert not cache.path.with_suffix(".unreadable.csv").exists()


def test_no_readable_film_is_an_error(index: Films, folder: Path, progress: Progress) -> None:
    for film in index:
        film.path.write_bytes(b"")
    with pytest.raises(CacheFailed, match=r"none of the 60 films can be read.*00000000_000\.png"):
        pixel_cache(index, folder, SIZE, progress)
    with pytest.raises(CacheFailed, match="no films"):
        pixel_cache((), folder, SIZE, progress)


def test_a_film_that_has_changed_is_decoded_again(
    index: Films, folder: Path, progress: Progress, decoded: list[Path], said: pytest.LogCaptureFixture
) -> None:
    pixel_cache(index, folder, SIZE, progress)
    decoded.clear()
    Image.new("L", (48, 48), 200).save(index[5].path)
    cache = pixel_cache(index, folder, SIZE, progress)
    assert decoded == [index[5].path]
    assert (cache.pixels[5] == 200).all()
    assert "1 films have changed since" in said.text


def test_a_film_that_is_gone_or_forbidden_stops_it_by_name(
    index: Films, folder: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that went away in the middle must not become a cache of black films."""

    def forbidden(path: Path, size: int) -> GrayImage:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(module, "square", forbidden)
        with pytest.raises(CacheFailed, match=r"0_000\.png: cannot be read \(Permission denied\); let this user"):
            pixel_cache(index, folder, SIZE, progress)
    pixel_cache(index, folder, SIZE, progress)
    index[3].path.unlink()
    with pytest.raises(CacheFailed, match=rf"{index[3].path}: cannot be read .*index again"):
        pixel_cache(index, folder, SIZE, progress)


# ── interruption ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_goes_on_where_it_was_stopped(
    index: Films, folder: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch, decoded: list[Path]
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 10)

    def stopped(path: Path, size: int) -> GrayImage:
        if path == index[35].path:
            raise KeyboardInterrupt
        return square(path, size)

    with monkeypatch.context() as patch:
        patch.setattr(module, "square", stopped)
        with pytest.raises(KeyboardInterrupt):
            pixel_cache(index, folder, SIZE, progress)
    cache = pixel_cache(index, folder, SIZE, progress)
    assert sorted(decoded) == [film.path for film in index[30:]], "the three chunks that were marked stay"
    assert cache.readable.all()
    right(cache, index)


CHILD = """
import resource, sys, time
from pathlib import Path
from rich.progress import Progress
from training import pixel_cache as module
from training.films import square
from training.nih_index import read_index

def held(path, size):
    while path.name == "00000015_000.png" and not Path(sys.argv[3]).exists():
        time.sleep(0.01)
    return square(path, size)

module.square, module._CHUNK = held, 5
if limit := int(sys.argv[4]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
nih = Path(sys.argv[1])
films = read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films
module.pixel_cache(films, Path(sys.argv[2]), 32, Progress(disable=True))
"""


def child(nih: Path, folder: Path, go: Path, limit: int = 0) -> subprocess.Popen[str]:
    """A build that stops at the thirtieth of 60 films until the file `go` is there."""
    words = [sys.executable, "-c", CHILD, str(nih), str(folder), str(go), str(limit)]
    return subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def records(folder: Path) -> int:
    """How many films are marked as done on disk."""
    found = list(folder.glob("*.state.npy"))
    return int((np.load(found[0])["mark"] == 1).sum()) if found else 0


def test_goes_on_after_it_was_killed(
    nih: Path, index: Films, folder: Path, tmp_path: Path, progress: Progress, decoded: list[Path]
) -> None:
    """SIGKILL in the middle; what is marked on disk is there, and only the rest is decoded."""
    process = child(nih, folder, tmp_path / "never")
    wait_for(lambda: records(folder) >= 15)
    process.kill()
    process.communicate()
    marked = records(folder)
    assert 15 <= marked < 60
    cache = pixel_cache(index, folder, SIZE, progress)
    assert len(decoded) == 60 - marked
    assert cache.readable.all()
    right(cache, index)


def test_a_second_process_waits_for_the_first(
    nih: Path,
    index: Films,
    folder: Path,
    tmp_path: Path,
    progress: Progress,
    decoded: list[Path],
    said: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = child(nih, folder, tmp_path / "go")
    wait_for(lambda: records(folder) > 0)
    sleep = time.sleep

    def wait(seconds: float) -> None:
        (tmp_path / "go").touch()
        sleep(seconds)

    monkeypatch.setattr(module.time, "sleep", wait)
    cache = pixel_cache(index, folder, SIZE, progress)
    assert process.wait(60) == 0
    process.communicate()
    assert decoded == [], "all of it was the other's work"
    assert "another process builds" in said.text
    right(cache, index)


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def overwrite_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 20)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, lengthen, overwrite_header, empty, Path.unlink])
@pytest.mark.parametrize("which", ["pixels", "state"])
def test_a_damaged_file_is_built_anew(
    index: Films,
    folder: Path,
    progress: Progress,
    decoded: list[Path],
    said: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    which: str,
) -> None:
    pixel_cache(index, folder, SIZE, progress)
    decoded.clear()
    damage(files(folder)[which])
    right(pixel_cache(index, folder, SIZE, progress), index)
    assert len(decoded) == 60
    if (which, damage) != ("pixels", Path.unlink):
        assert "is damaged or half-made: built anew" in said.text


def test_pixels_that_are_not_what_was_written_are_decoded_again(
    index: Films, folder: Path, progress: Progress, decoded: list[Path], said: pytest.LogCaptureFixture
) -> None:
    """One bit; and a stretch of zeros, as a disk leaves where power failed before the pixels were written."""
    pixel_cache(index, folder, SIZE, progress)
    decoded.clear()
    path, header = files(folder)["pixels"], 128
    content = bytearray(path.read_bytes())
    content[header + 8 * SIZE**2] ^= 1
    content[header + 40 * SIZE**2 : header + 42 * SIZE**2] = bytes(2 * SIZE**2)
    path.write_bytes(content)
    cache = pixel_cache(index, folder, SIZE, progress)
    assert sorted(decoded) == [index[i].path for i in (8, 40, 41)]
    assert "pixels of 3 films are damaged" in said.text
    right(cache, index)


# ── disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_room_is_asked_for_before_anything_is_written(
    index: Films, folder: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch, decoded: list[Path]
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000))
    with pytest.raises(DiskFull, match=r"0\.1 MB needed, 0\.1 MB free on that disk; make room there") as caught:
        pixel_cache(index, folder, SIZE, progress)
    assert str(folder) in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)
    assert decoded == []
    assert list(folder.glob("*.n*")) == []


@pytest.mark.parametrize("which", ["pixels", "records"])
def test_a_disk_that_fills_up_in_the_middle(
    index: Films, folder: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch, decoded: list[Path], which: str
) -> None:
    """What was marked stays, the rest is not taken for whole, and the next run needs no more than that."""
    monkeypatch.setattr(module, "_CHUNK", 10)
    room = [25 * SIZE**2 + 24 * module._RECORD.itemsize if which == "pixels" else 40 * SIZE**2 + 35 * 21]
    write = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[: room[0]]  # a disk takes what there is room for, and only then refuses
        room[0] -= len(part)
        return write(fd, part, offset)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "pwrite", full)
        with pytest.raises(DiskFull, match=r"\.npy: cannot be written, the disk is full .* what is decoded stays"):
            pixel_cache(index, folder, SIZE, progress)
    marked = records(folder)
    assert 0 < marked < 60
    decoded.clear()
    cache = pixel_cache(index, folder, SIZE, progress)
    assert len(decoded) == 60 - marked
    right(cache, index)


def test_a_disk_that_takes_no_such_file(nih: Path, folder: Path) -> None:
    """For real: the system refuses the length (RLIMIT_FSIZE), in a process of its own."""
    process = child(nih, folder, nih, limit=30 * SIZE**2)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "DiskFull" in error.splitlines()[-1]
    assert list(folder.glob("*.n*")) == []


def test_a_folder_that_cannot_be_made(index: Films, nih: Path, progress: Progress) -> None:
    with pytest.raises(CacheFailed, match=r"test_list\.txt: cannot be made"):
        pixel_cache(index, nih / "test_list.txt", SIZE, progress)


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_progress_is_a_bar_with_the_rate(index: Films, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, tasks = StringIO(), list[Task]()
    monkeypatch.setattr(Progress, "remove_task", lambda self, task: tasks.append(self.tasks[task]))
    console = Console(file=screen, force_terminal=True, width=100)
    with Progress(*Progress.get_default_columns(), FilmsPerSecond(), console=console) as progress:
        pixel_cache(index, folder, SIZE, progress)
    assert [(task.description, task.completed, task.total) for task in tasks] == [("decode to 32 px", 60, 60)]
    assert "films/s" in screen.getvalue()


def test_and_lines_in_the_log_where_nobody_watches(
    index: Films,
    folder: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
    said: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "_EVERY", 0.0)
    pixel_cache(index, folder, SIZE, progress)
    lines = [r.getMessage() for r in said.records if r.getMessage().startswith("decode to 32 px: ")]
    assert len(lines) == 60
    assert lines[30].startswith("decode to 32 px: 31 of 60, ")
    assert "films/s" in lines[30]
    assert "min left" in lines[30]
