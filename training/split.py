"""Train, validation, test: NIH's official lists, validation carved out of the training list by patient.

Without the lists, and only if asked, all three sides are drawn by patient (`by_hash`). A patient's draw depends on the
patient and the seed alone, so that the same patient stays on the same side when films are added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from schemas.errors import ConfigurationError
from training.nih_index import Counts, NihFilm, count

SIDES: Final = ("train", "validation", "test")
_SHOWN: Final = 3  # names in a message


class ListInvalid(ConfigurationError):
    """An official list is not there or cannot be read."""


class PatientLeak(ConfigurationError):
    """A patient stands on two sides of the split."""


class SideEmpty(ConfigurationError):
    """A side of the split has no film: nothing to train on, to choose by, or to measure with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Positions in the sequence of films. No patient on two sides."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    digest: str  # over names and sides; travels in the model card


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitReport:
    """How the films were divided, and what the lists and the films do not have in common."""

    rule: str
    digest: str
    sides: dict[str, Counts]
    unlisted: tuple[str, ...]  # films on neither list: used nowhere
    without_film: tuple[str, ...]  # on a list and in the table, no film on disk
    without_row: tuple[str, ...]  # on a list, not in the table

    def to_json(self) -> str:
        """Everything, names included."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def words(self) -> Iterator[str]:
        """For a person: some five lines."""
        yield f"split by {self.rule}, {self.digest}"
        for side, counts in self.sides.items():
            healthy = counts.labels["No Finding"] / max(counts.films, 1)
            yield f"  {side}: {counts.films:,} films of {counts.patients:,} patients, {healthy:.0%} without a finding"
        lists = (
            ("films on neither list, used nowhere", self.unlisted),
            ("names on the lists without a film", self.without_film),
            ("names on the lists that the table lacks", self.without_row),
        )
        for what, names in lists:
            if names:
                yield f"  {len(names):,} {what}: {_some(names)}"


def read_list(path: Path) -> frozenset[str]:
    """Film names, one a line, as NIH publishes them.

    Raises
    ------
    ListInvalid
        Not there, not text, or empty; the message names the mend.
    """
    mend = f"put NIH's {path.name} there, or divide by patient without lists (--split hash)"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise ListInvalid(f"{path}: no such list; {mend}") from error
    except UnicodeDecodeError as error:
        raise ListInvalid(f"{path}: not a text of film names; {mend}") from error
    except OSError as error:
        raise ListInvalid(f"{path}: cannot be read ({error.strerror}); {mend}") from error
    if names := frozenset(name for line in lines if (name := line.strip())):
        return names
    raise ListInvalid(f"{path}: empty; {mend}")


def split(
    films: Sequence[NihFilm],
    *,
    train_list: Collection[str],
    test_list: Collection[str],
    validation: float = 0.1,
    seed: int = 0,
) -> Split:
    """Divide the films by the official lists; those on neither are left out.

    Raises
    ------
    PatientLeak
        The lists put films of one patient, or one film, on both sides.
    SideEmpty
        No film is left for a side.
    """
    train_list, test_list = frozenset(train_list), frozenset(test_list)
    if both := sorted(train_list & test_list):
        raise PatientLeak(f"{_some(both)}: on both lists, train and test; take the name(s) off one of them")
    side_of: dict[str, str] = {}
    for film in films:
        if film.name in test_list:
            side_of[film.name] = "test"
        elif film.name in train_list:
            side_of[film.name] = "validation" if _uniform(film.patient, seed) < validation else "train"
    return _split(films, side_of)


def by_hash(films: Sequence[NihFilm], *, validation: float = 0.1, test: float = 0.2, seed: int = 0) -> Split:
    """Divide all films by patient, without lists. Not comparable with figures on NIH's official test list.

    Raises
    ------
    SideEmpty
        No film is left for a side.
    """
    side_of = {}
    for film in films:
        draw = _uniform(film.patient, seed)
        side_of[film.name] = "validation" if draw < validation else "test" if draw >= 1 - test else "train"
    return _split(films, side_of)


def by_lists(films: Sequence[NihFilm], train: Path, test: Path, *, validation: float = 0.1, seed: int = 0) -> Split:
    """`split` by the lists in two files, which errors name."""
    lists = read_list(train), read_list(test)
    try:
        return split(films, train_list=lists[0], test_list=lists[1], validation=validation, seed=seed)
    except (PatientLeak, SideEmpty) as error:
        raise type(error)(f"{train}, {test}: {error}") from error


def report(
    sides: Split,
    films: Sequence[NihFilm],
    *,
    rule: str,
    listed: Collection[str] = (),
    without_film: Collection[str] = (),
) -> SplitReport:
    """Count what stands on each side.

    Parameters
    ----------
    rule:
        In words: "the official lists", "patient hash".
    listed:
        Every name on either list; none where the split was made without lists.
    without_film:
        Rows of the table whose film is not there, from the index.
    """
    used = {films[i].name for side in SIDES for i in getattr(sides, side)}
    absent = frozenset(listed) - used
    known = frozenset(without_film)
    return SplitReport(
        rule=rule,
        digest=sides.digest,
        sides={side: count(films[i] for i in getattr(sides, side)) for side in SIDES},
        unlisted=tuple(sorted(film.name for film in films if film.name not in used)),
        without_film=tuple(sorted(absent & known)),
        without_row=tuple(sorted(absent - known)),
    )


def _split(films: Sequence[NihFilm], side_of: Mapping[str, str]) -> Split:
    """Check what is promised, whatever rule made it."""
    sides: dict[str, list[int]] = {side: [] for side in SIDES}
    first: dict[int, NihFilm] = {}
    for i, film in enumerate(films):
        if (side := side_of.get(film.name)) is None:
            continue
        other = first.setdefault(film.patient, film)
        if side_of[other.name] != side:
            raise PatientLeak(
                f"patient {film.patient} is in {side_of[other.name]} ({other.name}) and in {side} ({film.name}); "
                "put all films of a patient on one list"
            )
        sides[side].append(i)
    if empty := [side for side in SIDES if not sides[side]]:
        raise SideEmpty(
            f"no film is left for {' and '.join(empty)}: {len(films):,} films of {len({f.patient for f in films}):,} "
            f"patients ({_some([film.name for film in films])}), of which {len(side_of):,} were put on a side; add "
            "films, take lists that name them, or take a larger share of patients for validation"
        )
    lines = sorted(f"{films[i].name}:{side}\n" for side, members in sides.items() for i in members)
    return Split(
        **{side: tuple(members) for side, members in sides.items()},
        digest=hashlib.sha256("".join(lines).encode()).hexdigest()[:16],
    )


def _uniform(patient: int, seed: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}:{patient}".encode()).digest()[:8], "big") / 2**64


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
