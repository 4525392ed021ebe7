"""Soft targets: another model's probabilities mixed into the labels of the films that it has read.

A teacher's table is a CSV with a column "Image Index" and one "prob_<label>" for each of the 14 findings; a column
"prob_No Finding" is taken where there is one. Distillation: Hinton, Vinyals and Dean, 2015, arXiv:1503.02531.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS, LABELS, Label
from training.nih_index import NihRow

log = logging.getLogger("hilum.training")

_NAME: Final = "Image Index"
_SHOWN: Final = 5  # faults in a message


class TeacherInvalid(ConfigurationError):
    """The teacher's table is not there, lacks a column, or has rows that cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """What the teacher says of the films at hand."""

    probabilities: NDArray[np.float32]  # (N, 15) in `LABELS` order; NaN where the teacher says nothing
    films: int  # of the N that the teacher has read
    unknown: tuple[str, ...]  # names in the table that are none of the N


def soften(hard: NDArray[np.float32], films: Sequence[NihRow], table: Path, share: float) -> NDArray[np.float32]:
    """Mix the teacher's probabilities into the targets of the films that it has read.

    Parameters
    ----------
    hard:
        float32 (N, 15), zeros and ones in `LABELS` order.
    films:
        The N films.
    share:
        Of the teacher in the target, 0 to 1.

    Returns
    -------
        float32 (N, 15) of [0, 1]: (1 - share) * label + share * probability; the label where there is no probability.

    Raises
    ------
    ConfigurationError
        See `read_teacher`; or the share is none.
    """
    if not 0 <= share <= 1:
        raise ConfigurationError(f"teacher_share = {share}: a share is 0 to 1")
    if hard.shape != (len(films), len(LABELS)):
        raise ValueError(f"targets of {len(films)} films are ({len(films)}, {len(LABELS)}), not {hard.shape}")
    soft = read_teacher(table, films).probabilities
    return np.where(np.isnan(soft), hard, (1 - share) * hard + share * soft).astype(np.float32)


def read_teacher(table: Path, films: Sequence[NihRow]) -> Teacher:
    """The teacher's probabilities of these films; what it says of others is counted and logged.

    Raises
    ------
    TeacherInvalid
        Not there, not UTF-8, or cut off; a column is missing; a probability is no number or not in [0, 1]; a film has
        two rows; none of the films is in it. The message names the file, the rows and the mend.
    """
    lines = csv.reader(io.StringIO(_text(table), newline=""))
    row_of = {film.name: i for i, film in enumerate(films)}
    probabilities = np.full((len(films), len(LABELS)), np.nan, np.float32)
    seen: set[str] = set()
    faults: list[str] = []
    try:
        name_at, column = _columns(table, next(lines, []))
        for cells in lines:
            if not any(cells):
                continue
            try:
                name, values = _row(cells, name_at, column)
                if name in seen:
                    raise ValueError(f"{name} has two rows; take one of them away")
                seen.add(name)
                if (i := row_of.get(name)) is not None:
                    probabilities[i, [LABELS.index(label) for label in column]] = values
            except ValueError as fault:
                faults.append(f"row {lines.line_num}: {fault}")
    except csv.Error as error:
        raise TeacherInvalid(f"{table}: row {lines.line_num}: {error}; write the table anew") from error
    if faults:
        more = f"\n  and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        raise TeacherInvalid(f"{table}: {len(faults):,} fault(s)\n  " + "\n  ".join(faults[:_SHOWN]) + more)
    unknown = tuple(sorted(seen - row_of.keys()))
    known = len(seen) - len(unknown)
    if not known:
        raise TeacherInvalid(
            f"{table}: none of its {len(seen):,} films is among the {len(films):,} at hand; take the teacher's table "
            'of these films, named as in NIH\'s "Image Index"'
        )
    log.info("%s: soft targets for %d of %d films", table.name, known, len(films))
    if unknown:
        log.warning("%s: %d films are not at hand, first %s", table.name, len(unknown), unknown[0])
    return Teacher(probabilities=probabilities, films=known, unknown=unknown)


def _text(table: Path) -> str:
    try:
        return table.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise TeacherInvalid(f"{table}: no such table of soft targets; name another, or none") from error
    except UnicodeDecodeError as error:
        raise TeacherInvalid(f"{table}: not UTF-8 (byte {error.start:,}); save it as CSV in UTF-8") from error
    except OSError as error:
        raise TeacherInvalid(f"{table}: cannot be read ({error.strerror}); make it a file that may be read") from error


def _columns(table: Path, header: list[str]) -> tuple[int, dict[Label, int]]:
    """Position of the name, and of each label that the teacher answers for."""
    names = [name.strip() for name in header]
    wanted = [_NAME, *(f"prob_{label}" for label in FINDINGS)]
    if lacking := [name for name in wanted if name not in names]:
        found = ", ".join(name for name in names if name) or "none"
        raise TeacherInvalid(
            f"{table}: no column {', '.join(lacking)}. Columns found: {found}. Name the columns {_NAME}, prob_<label>, "
            "parted by commas"
        )
    return names.index(_NAME), {label: names.index(f"prob_{label}") for label in LABELS if f"prob_{label}" in names}


def _row(cells: list[str], name_at: int, column: dict[Label, int]) -> tuple[str, list[float]]:
    """Name and probabilities. ValueError: what is wrong, and the mend."""
    if len(cells) <= max(name_at, *column.values()):
        raise ValueError(f"{len(cells)} cells where the header has more; the table is cut off, write it anew")
    name = cells[name_at].strip()
    values = []
    for label, i in column.items():
        try:
            value = float(cells[i])
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise ValueError(f'{name}: prob_{label} is "{cells[i]}"; a probability is a number from 0 to 1')
        values.append(value)
    return name, values
