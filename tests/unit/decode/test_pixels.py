"""Pixel Data to pixel cells: formats, bounds before allocation, colour that is none, code streams that disagree."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from schemas.errors import NotAnalysable, Undecodable
from schemas.not_analysed import NotAnalysed
from tests.unit.decode.films import encoded, film, shown, source_of
from worker.decode import apart, pixels
from worker.decode.header import open_source
from worker.decode.pixels import MAX_PIXELS, read_frame, stored_pixels
from worker.simulate import phantom

GREY = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) % 4096


def colour(planes: NDArray[np.uint8], photometric: str = "RGB", planar: int = 0) -> Dataset:
    """A three-sample film of uint8 (Rows, Columns, 3)."""
    data = planes.transpose(2, 0, 1) if planar else planes
    ds = film(planes[:, :, 0].copy())
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, photometric, planar
    ds.PixelData = data.tobytes()
    return ds


@pytest.mark.parametrize("allocated", [0, 1, 12, 32, 64])
def test_bits_allocated_of_no_film(allocated: int) -> None:
    with pytest.raises(Undecodable, match="Bits Allocated"):
        stored_pixels(source_of(film(GREY, BitsAllocated=allocated)))


@pytest.mark.parametrize(("rows", "columns"), [(65535, 65535), (8192, 8193), (0, 10), (10, 0)])
def test_absurd_sizes_are_refused_before_anything_is_allocated(rows: int, columns: int) -> None:
    assert rows * columns > MAX_PIXELS or rows * columns == 0
    with pytest.raises(Undecodable, match="Rows x Columns"):
        stored_pixels(source_of(film(GREY, Rows=rows, Columns=columns)))


def test_short_pixel_data_is_refused() -> None:
    with pytest.raises(Undecodable, match="6144 bytes of 6240"):
        stored_pixels(source_of(film(GREY, Rows=65)))


def test_long_pixel_data_is_cut() -> None:
    assert np.array_equal(stored_pixels(source_of(film(GREY, Rows=63)))[0], GREY[:63])


@pytest.mark.parametrize(("stored", "high"), [(0, 0), (17, 16), (12, 5), (12, 16), (None, None)])
def test_nonsense_depth_is_made_consistent(stored: int | None, high: int | None) -> None:
    _, form = stored_pixels(source_of(film(GREY, BitsStored=stored, HighBit=high)))
    assert form.bits_stored <= form.high_bit + 1 <= 16


@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_eight_bits_in_big_endian(vr: str) -> None:
    cells = np.arange(64, dtype=np.uint8).reshape(8, 8)
    ds = film(cells, syntax=ExplicitVRBigEndian)
    ds["PixelData"].VR = vr
    if vr == "OW":  # PS3.5 8.1.2: each pair of cells is one word, swapped
        ds.PixelData = np.frombuffer(cells.tobytes(), "<u2").astype(">u2").tobytes()
    assert np.array_equal(stored_pixels(source_of(ds))[0], cells)


@pytest.mark.parametrize("planar", [0, 1])
def test_grey_in_three_samples_is_a_grey_film(planar: int) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(shown(colour(np.dstack([grey] * 3), planar=planar)), grey)


def test_grey_in_ybr_is_a_grey_film() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    zero = np.full_like(grey, 128)
    assert np.array_equal(shown(colour(np.dstack([grey, zero, zero]), "YBR_FULL")), grey)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_is_not_analysed(photometric: str) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with pytest.raises(NotAnalysable) as error:
        stored_pixels(source_of(colour(planes, photometric)))
    assert error.value.code is NotAnalysed.COLOUR


@pytest.mark.parametrize(("samples", "photometric"), [(1, "MONOCHROME2"), (3, "YBR_FULL_422"), (3, "RGB")])
def test_a_grey_jpeg_of_three_components(samples: int, photometric: str) -> None:
    grey = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    file = io.BytesIO()
    Image.fromarray(np.dstack([grey] * 3)).save(file, "JPEG", quality=95)
    ds = film(grey, syntax=JPEGBaseline8Bit, PixelData=encapsulate([file.getvalue()]))
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = samples, photometric, 0
    assert np.abs(shown(ds).astype(int) - grey).max() <= 3


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_grey_in_three_compressed_samples(syntax: str) -> None:
    grey = phantom.draw(1, rows=96, columns=80)
    ds = colour(np.dstack([grey] * 3))
    ds.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(shown(ds), grey)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_lossless_syntaxes_give_the_stored_values(syntax: str, signed: bool, bits: int) -> None:
    options = {"rows": 96, "columns": 80, "bits_stored": bits, "signed": signed}
    plain = phantom.dataset(1, **options)
    assert np.array_equal(shown(phantom.dataset(1, transfer_syntax=syntax, **options)), shown(plain))


def test_a_code_stream_of_another_size_is_refused() -> None:
    ds = phantom.dataset(1, rows=96, columns=80, transfer_syntax=JPEGLSLossless)
    ds.Rows, ds.Columns = 80, 96
    with pytest.raises(Undecodable, match="code stream is 96 x 80, header 80 x 96"):
        stored_pixels(source_of(ds))


def test_a_code_stream_that_would_fill_the_memory_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    siz = struct.pack(">HHIIIIIIIIHBBB", 41, 0, 60000, 60000, 0, 0, 60000, 60000, 0, 0, 1, 11, 1, 1)
    ds = phantom.dataset(1, rows=96, columns=80, transfer_syntax=JPEG2000Lossless)
    ds.PixelData = encapsulate([b"\xff\x4f\xff\x51" + siz + b"\0" * 64])
    monkeypatch.setattr(pixels, "decode_apart", lambda *_: pytest.fail("decoded"))
    with pytest.raises(Undecodable, match="60000 x 60000"):
        stored_pixels(source_of(ds))


def test_a_wrong_offset_table_and_several_fragments_are_no_fault() -> None:
    ds = phantom.dataset(1, rows=96, columns=80, transfer_syntax=JPEGLSLossless)
    right = shown(ds)
    whole = next(generate_frames(ds.PixelData, number_of_frames=1))
    pieces = [whole[:100], whole[100:202], whole[202:]]
    items = (struct.pack("<HHI", 0xFFFE, 0xE000, len(p) + len(p) % 2) + p + b"\0" * (len(p) % 2) for p in pieces)
    table = struct.pack("<HHIII", 0xFFFE, 0xE000, 8, 4711, 815)
    ds.PixelData = table + b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert np.array_equal(shown(ds), right)


@pytest.mark.parametrize("codestream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9\0\0", b"\xff\x4f\xff\x51\0", b"GIF89a"])
def test_no_frame_header(codestream: bytes) -> None:
    with pytest.raises(Undecodable):
        read_frame(codestream)


def test_a_syntax_without_decoder() -> None:
    form = pixels.pixel_format(source_of(film(GREY)))
    with pytest.raises(Undecodable, match=r"no decoder for Transfer Syntax 1\.2\.840\.10008\.1\.2\.4\.100"):
        pixels.decode(b"", "1.2.840.10008.1.2.4.100", form)


def test_defined_length_in_a_compressed_syntax() -> None:
    plain = encoded(film(GREY))
    data = plain.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0")
    with pytest.raises(Undecodable, match="not encapsulated"):
        stored_pixels(open_source(io.BytesIO(data)))


def test_a_decoder_killed_while_idle_is_replaced() -> None:
    ds = phantom.dataset(1, rows=96, columns=80, transfer_syntax=JPEGLSLossless)
    first = shown(ds)
    for cell in apart._idle:
        os.kill(cell._process.pid, signal.SIGKILL)
        cell._process.wait()
    assert np.array_equal(shown(ds), first)


def test_a_film_that_kills_its_decoder_is_undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart.cell, "__file__", os.devnull)  # a process that ends at once
    monkeypatch.setattr(apart, "_idle", [])
    with pytest.raises(Undecodable, match="decoder died"):
        shown(phantom.dataset(1, rows=96, columns=80, transfer_syntax=JPEGLSLossless))


def test_a_decoder_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "hang.py"
    script.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(apart.cell, "__file__", str(script))
    monkeypatch.setattr(apart, "_idle", [])
    monkeypatch.setattr(apart, "TIMEOUT", 0.2)
    with pytest.raises(Undecodable, match="silent"):
        shown(phantom.dataset(1, rows=96, columns=80, transfer_syntax=JPEGLSLossless))


def test_a_decoder_ends_with_its_owner(tmp_path: Path) -> None:
    owner = (
        "import os, signal, sys\n"
        "from worker.decode.apart import _Cell\n"
        "print(_Cell()._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", owner], capture_output=True, text=True, check=False, cwd=Path.cwd())
    decoder = Path("/proc") / done.stdout.strip()
    deadline = time.monotonic() + 30
    while decoder.exists() and "Z" not in (decoder / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not decoder.exists() or "Z" in (decoder / "stat").read_text().split()[2]
