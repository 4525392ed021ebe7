from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from training.nih_index import NihFilm, read_index
from training.split import PatientLeak, Split, read_list, split


def divide(films: tuple[NihFilm, ...], nih: Path, **options: float) -> Split:
    return split(
        films,
        train_list=read_list(nih / "train_val_list.txt"),
        test_list=read_list(nih / "test_list.txt"),
        **options,  # type: ignore[arg-type]
    )


def patients(films: tuple[NihFilm, ...], members: tuple[int, ...]) -> set[int]:
    return {films[i].patient for i in members}


@pytest.fixture
def index(nih: Path) -> tuple[NihFilm, ...]:
    return read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films


def test_no_patient_on_two_sides(nih: Path, index: tuple[NihFilm, ...]) -> None:
    sides = divide(index, nih, validation=0.3)
    train, validation, test = (patients(index, s) for s in (sides.train, sides.validation, sides.test))
    assert test == {25, 26, 27, 28, 29}
    assert validation
    assert train
    assert not train & validation
    assert not (train | validation) & test
    assert len(sides.train) + len(sides.validation) + len(sides.test) == 60


def test_a_patient_on_both_lists_is_refused(nih: Path, index: tuple[NihFilm, ...]) -> None:
    moved = tuple(replace(f, patient=0) if f.patient == 29 else f for f in index)
    with pytest.raises(PatientLeak, match="patient 0"):
        divide(moved, nih)


def test_a_film_on_both_lists_is_refused(nih: Path, index: tuple[NihFilm, ...]) -> None:
    with (nih / "train_val_list.txt").open("a") as file:
        file.write("00000029_000.png\n")
    with pytest.raises(PatientLeak, match="both lists"):
        divide(index, nih)


def test_films_on_neither_list_are_left_out(nih: Path, index: tuple[NihFilm, ...]) -> None:
    (nih / "test_list.txt").write_text("")
    sides = divide(index, nih)
    assert sides.test == ()
    assert patients(index, sides.train + sides.validation) == set(range(25))


def test_a_patient_stays_on_its_side_when_films_are_added(nih: Path, index: tuple[NihFilm, ...]) -> None:
    fewer = index[:30]
    before, after = divide(fewer, nih, validation=0.4), divide(index, nih, validation=0.4)
    assert patients(fewer, before.validation) <= patients(index, after.validation)
    assert patients(fewer, before.train) <= patients(index, after.train)


def test_digest_tells_splits_apart(nih: Path, index: tuple[NihFilm, ...]) -> None:
    same, again, other = (divide(index, nih, validation=0.3, seed=s) for s in (0, 0, 1))
    assert same == again
    assert same.digest != other.digest


def test_the_real_lists(films: Path) -> None:
    nih = films / "nih"
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films
    sides = divide(index, nih)
    assert len(sides.train) + len(sides.validation) == 8993
    assert len(sides.test) == 777
    sets = [patients(index, s) for s in (sides.train, sides.validation, sides.test)]
    assert sum(map(len, sets)) == len(set.union(*sets))
    assert 0.07 < len(sides.validation) / 8993 < 0.13
