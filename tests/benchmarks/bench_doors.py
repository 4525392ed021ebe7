"""The DICOM door beside the PNG door: the test list's films through both, and what it costs in AUROC.

Each film is wrapped as a modality might send it, by code: JPEG baseline (as RSNA did with NIH's films), and 12 bits,
MONOCHROME1, with a rescale and a window. Run alone: `python -m tests.benchmarks.bench_doors [BUNDLE]`.
"""

from __future__ import annotations

import csv
import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from sklearn.metrics import roc_auc_score

from schemas.decision import Urgency
from schemas.findings import FINDINGS, LABELS
from schemas.gate import GateRules
from schemas.image import GrayImage, Tensor
from tests.conftest import films_folder
from tests.unit.decode.films import encoded, film
from worker import assemble
from worker.decode.film import read_film
from worker.infer.engine import Engine
from worker.settings import Model, Settings
from worker.tensor.image_file import open_image
from worker.tensor.recipe import to_tensor

RULES = GateRules(minimum_size=64, minimum_age_years=0.0)  # the small set has films of 128 px, and children
TOLERATED = 0.005


def run(bundle: str = "starter") -> list[tuple[str, str, str]]:
    """Rows (figure, measured, goal)."""
    settings = Settings(model=Model(bundle=bundle, runtime="openvino"))
    model = assemble.bundle(settings)
    engine = assemble.engine(settings, model)
    size = model.card.input_size
    rows = []
    try:
        paths, truth = _test_films(films_folder() / "nih")
        png = _read(engine, (to_tensor(open_image(path), size) for path in paths))
        for words, wrap in (("JPEG baseline", _jpeg), ("12 bit, MONOCHROME1, window", _twelve_bits)):
            with tempfile.TemporaryDirectory() as folder:
                through = partial(_through_dicom, wrap=wrap, folder=Path(folder), size=size)
                doors = ThreadPoolExecutor(2).map(through, paths)
                dicom = _read(engine, doors)
            for name, columns in (("binary", [0]), ("macro", list(range(1, 1 + len(FINDINGS))))):
                one, two = (np.mean([roc_auc_score(truth[:, k], p[:, k]) for k in columns]) for p in (png, dicom))
                rows.append(
                    (
                        f"{len(paths)} test films as {words}: {name} AUROC",
                        f"PNG {one:.4f}, DICOM {two:.4f}, difference {abs(one - two):.4f}",
                        f"≤ {TOLERATED}",
                    )
                )
            rows.append(("  largest difference of a probability", f"{np.abs(png - dicom).max():.4f}", ""))
        rows.append(_real_pairs(engine, size))
        rows.append(_real_dicom(engine, size))
    finally:
        engine.close()
    return rows


def _test_films(nih: Path) -> tuple[list[Path], NDArray[np.uint8]]:
    """Paths, and truth (N, 16): any finding, then the 15 labels."""
    members = set((nih / "test_list.txt").read_text().split())
    found = {path.stem: path for folder in ("128px", "256px") for path in (nih / folder).iterdir()}
    paths, truth = [], []
    with (nih / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["Image Index"] in members:
                labels = row["Finding Labels"].split("|")
                paths.append(found[Path(row["Image Index"]).stem])
                truth.append(["No Finding" not in labels, *(label in labels for label in LABELS)])
    return paths, np.array(truth, np.uint8)


def _read(engine: Engine, tensors: Iterator[Tensor]) -> NDArray[np.float64]:
    """Probabilities (N, 16)."""
    answers = [engine.submit(tensor, Urgency.ROUTINE) for tensor in tensors]
    return np.array([[p.binary, *(p.findings[label] for label in LABELS)] for p in (a.result() for a in answers)])


def _through_dicom(path: Path, wrap: Callable[[GrayImage], Dataset], folder: Path, size: int) -> Tensor:
    file = folder / f"{path.stem}.dcm"
    file.write_bytes(encoded(wrap(open_image(path))))
    return to_tensor(read_film(file, RULES).pixels, size)


def _jpeg(grey: GrayImage) -> Dataset:
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=92)
    ds = film(grey, PixelData=encapsulate([stream.getvalue()]))
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds["PixelData"].is_undefined_length = True
    return ds


def _twelve_bits(grey: GrayImage) -> Dataset:
    stored = 4095 - np.round(grey.astype(np.float64) / 255.0 * 3600.0 + 200.0).astype(np.uint16)
    return film(
        stored,
        PhotometricInterpretation="MONOCHROME1",
        BitsStored=12,
        HighBit=11,
        RescaleSlope=1,
        RescaleIntercept=-100,
        WindowCenter=4095 - 2000 - 100,
        WindowWidth=3601,
    )


def _real_pairs(engine: Engine, size: int) -> tuple[str, str, str]:
    """NIH's PNG beside the DICOM that RSNA or SIIM made of it."""
    dicoms = sorted((films_folder() / "png_dicom_pairs").glob("*.dcm"))
    one = _read(engine, (to_tensor(open_image(path.with_suffix(".png")), size) for path in dicoms))
    two = _read(engine, (to_tensor(read_film(path, RULES).pixels, size) for path in dicoms))
    return f"{len(dicoms)} real pairs: largest difference of a probability", f"{np.abs(one - two).max():.4f}", ""


def _real_dicom(engine: Engine, size: int) -> tuple[str, str, str]:
    """RSNA's DICOM of NIH's test patients: too few for more than a look."""
    folder = films_folder() / "dicom"
    with (folder / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith("nih_rsna/")]
    read = _read(engine, (to_tensor(read_film(folder / row["file"], RULES).pixels, size) for row in rows))
    truth: Sequence[bool] = [row["nih_labels"] != "No Finding" for row in rows]
    return (
        f"{len(rows)} real DICOM films of NIH's test patients: binary AUROC",
        f"{roc_auc_score(truth, read[:, 0]):.3f} ({sum(truth)} with a finding)",
        "",
    )


if __name__ == "__main__":
    for line in run(*sys.argv[1:]):
        print(*line, sep="  ")
