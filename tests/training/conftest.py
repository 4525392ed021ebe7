"""A small hospital of drawn films in NIH's layout, and a small model in DenseNet's place."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from PIL import Image
from rich.progress import Progress

from training import network

# NIH's own first line: the brackets of the last two columns hold commas, so that they are four.
HEADER = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
    *("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
)
USUAL = dict(zip(HEADER[2:], (0, 1, 57, "F", "PA", 2500, 2048, 0.168, 0.168), strict=True))
LABELS_OF_PATIENT = ("No Finding", "Effusion|Mass", "Cardiomegaly", "Pleural_Thickening|No Finding", "Nodule")


@pytest.fixture
def progress() -> Iterator[Progress]:
    with Progress(disable=True) as bar:
        yield bar


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    """60 films of 30 patients; patients 25 to 29 are the test list. An effusion is a white square, drawn."""
    folder = tmp_path / "nih"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, lists = [], {"train_val_list.txt": [], "test_list.txt": []}
    for patient in range(30):
        for visit in range(2):
            name = f"{patient:08}_{visit:03}.png"
            labels = LABELS_OF_PATIENT[patient % 5]
            film = rng.integers(0, 120, (48, 48), dtype=np.uint8)
            if "Effusion" in labels:
                film[24:, :] = 250
            Image.fromarray(film).save(folder / "images" / name)
            rows.append(
                {
                    "Image Index": name,
                    "Finding Labels": labels,
                    "Follow-up #": visit,
                    "Patient ID": patient,
                    "Patient Age": 21 + 2 * patient + visit,
                    "Patient Gender": "FM"[patient % 2],
                    "View Position": "AP" if patient % 3 == 0 else "PA",
                }
            )
            lists["test_list.txt" if patient >= 25 else "train_val_list.txt"].append(name)
    write_table(folder, rows)
    for name, members in lists.items():
        (folder / name).write_text("\n".join(members) + "\n")
    return folder


def write_table(folder: Path, rows: list[dict[str, object]], columns: Sequence[str] = HEADER) -> Path:
    """NIH's table; what a row does not say is as in any other film's."""
    path = folder / "Data_Entry_2017_v2020.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**USUAL, **row} for row in rows)
    return path


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """`small_build` in the place of `training.network.build`."""
    monkeypatch.setattr(network, "build", small_build)


def small_build(outputs: int, size: int = 224, backbone: str = "densenet121", **_: str | None) -> keras.Model:
    """Two convolutions instead of a hundred and twenty."""
    film = keras.Input((size, size, 3), dtype="uint8", name="film")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="imagenet")(film)
    for i in range(2):
        x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{i}")(x)
        x = keras.layers.Activation("relu", name=f"relu{i}")(x)
    maps = keras.layers.Conv2D(outputs, 1, dtype="float32", name="maps")(x)
    logits = keras.layers.GlobalAveragePooling2D(dtype="float32", name="logits")(maps)
    return keras.Model(film, {"logits": logits, "maps": maps}, name=backbone)
