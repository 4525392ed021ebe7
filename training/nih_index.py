"""NIH's table and the films on disk: which film has which labels, and what is missing.

`Data_Entry_2017_v2020.csv` of NIH ChestX-ray14 (Wang et al., CVPR 2017). Films are found by their stem, so that reduced
copies in another format serve as well as the original PNGs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import HilumError
from schemas.findings import LABELS, Label

SUFFIXES: Final = frozenset({".png", ".webp", ".jpg", ".jpeg"})


class TableInvalid(HilumError):
    """NIH's table lacks a column, or has a row that cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NihFilm:
    """One row of the table whose film is there."""

    name: str  # NIH's "Image Index", e.g. "00000001_000.png"
    patient: int
    labels: frozenset[Label]
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class NihIndex:
    """What can be trained on, and what cannot."""

    films: tuple[NihFilm, ...]  # sorted by name
    without_film: tuple[str, ...]  # rows of the table, no file
    without_row: tuple[str, ...]  # files, no row


def read_index(table: Path, folders: Sequence[Path]) -> NihIndex:
    """Join the table with the films below `folders`; where a film lies in two of them, the earlier folder wins.

    Raises
    ------
    TableInvalid
        A column is missing, a label is not one of the 15 (they are compared as whole words), a patient is no number,
        or a film has two rows.
    OSError
        The table or a folder cannot be read.
    """
    paths: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(_films_below(folder)):
            paths.setdefault(path.stem, path)
    films: list[NihFilm] = []
    missing: list[str] = []
    seen: set[str] = set()
    with table.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            try:
                name = row["Image Index"]
                labels = frozenset(Label(word) for word in row["Finding Labels"].split("|"))
                patient = int(row["Patient ID"])
            except (KeyError, ValueError, AttributeError) as error:
                raise TableInvalid(f"{table}: row {len(seen) + 2}: {error}") from error
            if name in seen:
                raise TableInvalid(f"{table}: {name} has two rows")
            seen.add(name)
            if (stem := Path(name).stem) in paths:
                films.append(NihFilm(name=name, patient=patient, labels=labels, path=paths.pop(stem)))
            else:
                missing.append(name)
    return NihIndex(
        films=tuple(sorted(films, key=lambda film: film.name)),
        without_film=tuple(sorted(missing)),
        without_row=tuple(sorted(path.name for path in paths.values())),
    )


def targets(films: Iterable[NihFilm]) -> NDArray[np.float32]:
    """float32 (N, 15) of zeros and ones, columns in `LABELS` order."""
    return np.array([[label in film.labels for label in LABELS] for film in films], np.float32).reshape(-1, len(LABELS))


def _films_below(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder of films")
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
