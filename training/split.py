"""Train, validation, test: NIH's official lists, validation carved out of the training list by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import HilumError
from training.nih_index import NihFilm


class PatientLeak(HilumError):
    """A patient stands on two sides of the split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Positions in the sequence of films. No patient on two sides."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    digest: str  # over names and sides; travels in the model card


def read_list(path: Path) -> frozenset[str]:
    """Film names, one a line, as NIH publishes them."""
    return frozenset(path.read_text(encoding="utf-8").split())


def split(
    films: Sequence[NihFilm],
    *,
    train_list: Collection[str],
    test_list: Collection[str],
    validation: float = 0.1,
    seed: int = 0,
) -> Split:
    """Divide the films; those on neither list are left out.

    Which training patients become validation depends on the patient and the seed alone, so that the same patient stays
    on the same side when films are added.

    Raises
    ------
    PatientLeak
        The lists put films of one patient, or one film, on both sides.
    """
    sides: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    side_of: dict[int, str] = {}
    for i, film in enumerate(films):
        if film.name in test_list:
            side = "test"
            if film.name in train_list:
                raise PatientLeak(f"{film.name} is on both lists")
        elif film.name in train_list:
            side = "validation" if _uniform(film.patient, seed) < validation else "train"
        else:
            continue
        if side_of.setdefault(film.patient, side) != side:
            raise PatientLeak(f"patient {film.patient} is in {side_of[film.patient]} and in {side}")
        sides[side].append(i)
    lines = sorted(f"{films[i].name}:{side}\n" for side, members in sides.items() for i in members)
    return Split(
        **{side: tuple(members) for side, members in sides.items()},
        digest=hashlib.sha256("".join(lines).encode()).hexdigest()[:16],
    )


def _uniform(patient: int, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8], "big") / 2**64
