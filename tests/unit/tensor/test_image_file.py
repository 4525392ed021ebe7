"""Plain image files: every mode that NIH or a user sends becomes uint8 grey; what is broken says so."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import Undecodable
from schemas.not_analysed import NotAnalysed
from worker.tensor.image_file import open_image
from worker.tensor.recipe import golden_film

GREY = golden_film(60, 80)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_grey_png_and_lossless_webp_are_exact(tmp_path: Path) -> None:
    assert (open_image(save(tmp_path / "a.png", Image.fromarray(GREY))) == GREY).all()
    assert (open_image(save(tmp_path / "a.webp", Image.fromarray(GREY), lossless=True)) == GREY).all()


def test_the_suffix_is_not_believed(tmp_path: Path) -> None:
    save(tmp_path / "a.png", Image.fromarray(GREY)).rename(tmp_path / "a.jpg")
    assert (open_image(tmp_path / "a.jpg") == GREY).all()


def test_rgba_ignores_alpha(tmp_path: Path) -> None:
    alpha = np.full_like(GREY, 255)
    alpha[:30] = 0
    rgba = np.stack([GREY, GREY, GREY, alpha], axis=2)
    assert (open_image(save(tmp_path / "a.png", Image.fromarray(rgba))) == GREY).all()


def test_palette_grey_alpha_and_one_bit(tmp_path: Path) -> None:
    palette = Image.fromarray(GREY, "L").convert("P")
    assert (open_image(save(tmp_path / "p.png", palette)) == GREY).all()
    la = Image.merge("LA", (Image.fromarray(GREY), Image.new("L", (80, 60), 7)))
    assert (open_image(save(tmp_path / "la.png", la)) == GREY).all()
    one = Image.fromarray(GREY > 100)
    assert set(np.unique(open_image(save(tmp_path / "one.png", one)))) == {0, 255}


def test_sixteen_bits_scale_from_the_full_range(tmp_path: Path) -> None:
    wide = GREY.astype(np.uint16) * 257
    assert (open_image(save(tmp_path / "a.png", Image.fromarray(wide))) == GREY).all()


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    got = open_image(save(tmp_path / "a.jpeg", Image.fromarray(smooth), quality=95))
    assert np.abs(got.astype(int) - smooth.astype(int)).max() < 8


def test_result_is_a_film(tmp_path: Path) -> None:
    film = open_image(save(tmp_path / "a.png", Image.fromarray(GREY)))
    assert film.dtype == np.uint8
    assert film.shape == (60, 80)


@pytest.mark.parametrize(("suffix", "share"), [("png", 0.2), ("png", 0.6), ("png", 0.95), ("webp", 0.5), ("jpg", 0.5)])
def test_truncated_files_say_so(tmp_path: Path, suffix: str, share: float) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(golden_film(300, 300)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(Undecodable) as caught:
        open_image(path)
    assert caught.value.code is NotAnalysed.UNREADABLE
    assert caught.value.detail


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff", b"%PDF-1.4 no film"]
)
def test_what_is_no_image_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(Undecodable):
        open_image(path)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Undecodable, match="neither PNG, WebP nor JPEG"):
        open_image(save(tmp_path / "a.gif", Image.fromarray(GREY)))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )
    with pytest.raises(Undecodable, match="more pixels"):
        open_image(tmp_path / "a.png")


def test_corrupt_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(golden_film(64, 64)).save(buffer, "PNG")
    whole = bytearray(buffer.getvalue())
    rng = np.random.default_rng(0)
    path = tmp_path / "a.png"
    for _ in range(300):
        broken = bytearray(whole)
        for at in rng.integers(0, len(broken), 3):
            broken[at] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            film = open_image(path)
        except Undecodable:
            continue
        assert film.ndim == 2


def test_a_missing_file_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "none.png")


def test_an_rgba_film_of_nih(films: Path) -> None:
    path = films / "png_dicom_pairs" / "00001369_000.png"
    with Image.open(path) as image:
        assert image.mode == "RGBA"
        red = np.asarray(image)[:, :, 0]
    assert (open_image(path) == red).all()
