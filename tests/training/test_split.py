from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from training.nih_index import NihFilm, read_index
from training.split import (
    ListInvalid,
    PatientLeak,
    SideEmpty,
    Split,
    by_hash,
    by_lists,
    read_list,
    report,
    split,
)

SIDES = ("train", "validation", "test")


def divide(films: tuple[NihFilm, ...], nih: Path, validation: float = 0.3, seed: int = 0) -> Split:
    return by_lists(films, nih / "train_val_list.txt", nih / "test_list.txt", validation=validation, seed=seed)


def patients(films: tuple[NihFilm, ...], members: tuple[int, ...]) -> set[int]:
    return {films[i].patient for i in members}


def film(patient: int, visit: int = 0) -> NihFilm:
    name = f"{patient:08}_{visit:03}.png"
    return NihFilm(name=name, patient=patient, labels=frozenset(), path=Path(name))


@pytest.fixture
def index(nih: Path) -> tuple[NihFilm, ...]:
    return read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films


def test_no_patient_on_two_sides(nih: Path, index: tuple[NihFilm, ...]) -> None:
    sides = divide(index, nih)
    train, validation, test = (patients(index, s) for s in (sides.train, sides.validation, sides.test))
    assert test == {25, 26, 27, 28, 29}
    assert validation
    assert train
    assert not train & validation
    assert not (train | validation) & test
    assert len(sides.train) + len(sides.validation) + len(sides.test) == 60


FILMS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 4)), unique=True, max_size=80).map(
    lambda pairs: tuple(film(*pair) for pair in pairs)
)


@settings(deadline=None)  # a busy machine is no fault
@given(films=FILMS, listed=st.data(), validation=st.floats(0.01, 0.49), seed=st.integers(0, 9))
def test_never_a_patient_on_two_sides(
    films: tuple[NihFilm, ...], listed: st.DataObject, validation: float, seed: int
) -> None:
    """Whatever is on the lists: the split keeps patients apart, or it is refused, and nothing on a list is lost."""
    places = listed.draw(st.lists(st.sampled_from(SIDES[::2]), min_size=len(films), max_size=len(films)))
    on = {side: {f.name for f, s in zip(films, places, strict=True) if s == side} for side in SIDES[::2]}
    of = {side: {f.patient for f in films if f.name in on[side]} for side in SIDES[::2]}
    for mended in (False, True):
        if mended:  # the same lists with every film of a test patient on the test list: as NIH's are
            on["test"] = {f.name for f in films if f.patient in of["test"]}
            on["train"] -= on["test"]
        try:
            sides = split(films, train_list=on["train"], test_list=on["test"], validation=validation, seed=seed)
        except PatientLeak:
            assert not mended
            assert of["train"] & of["test"]
        except SideEmpty:
            pass
        else:
            keep_apart(films, sides)
            assert sorted(sides.train + sides.validation + sides.test) == list(range(len(films)))
            assert {films[i].name for i in sides.test} == on["test"]


@settings(deadline=None)  # a busy machine is no fault
@given(films=FILMS, validation=st.floats(0.01, 0.45), test=st.floats(0.01, 0.45), seed=st.integers(0, 9))
def test_nor_without_lists(films: tuple[NihFilm, ...], validation: float, test: float, seed: int) -> None:
    try:
        sides = by_hash(films, validation=validation, test=test, seed=seed)
    except SideEmpty:
        return
    keep_apart(films, sides)
    assert sorted(sides.train + sides.validation + sides.test) == list(range(len(films)))


def keep_apart(films: tuple[NihFilm, ...], sides: Split) -> None:
    sets = [patients(films, getattr(sides, side)) for side in SIDES]
    assert all(sets)
    assert sum(map(len, sets)) == len(set.union(*sets))


def test_a_patient_on_both_lists_is_refused(nih: Path, index: tuple[NihFilm, ...]) -> None:
    moved = tuple(replace(f, patient=0) if f.patient == 29 else f for f in index)
    with pytest.raises(
        PatientLeak, match=r"patient 0 is in train .*00000000_000.* and in test .*00000029_000"
    ) as caught:
        divide(moved, nih)
    assert str(nih / "test_list.txt") in str(caught.value)


def test_a_film_on_both_lists_is_refused_even_without_its_file(nih: Path, index: tuple[NihFilm, ...]) -> None:
    for name in ("00000029_000.png", "99999999_000.png"):
        for path in (nih / "train_val_list.txt", nih / "test_list.txt"):
            with path.open("a") as file:
                file.write(f"{name}\n")
        with pytest.raises(PatientLeak, match=rf"{name}.*on both lists"):
            divide(index, nih)


def test_films_on_neither_list_are_left_out_and_told(nih: Path, index: tuple[NihFilm, ...]) -> None:
    (nih / "test_list.txt").write_text("\ufeff00000029_000.png\r\n\r\n00000029_001.png \r\nghost.png\r\ngone.png\r\n")
    sides = divide(index, nih)
    assert patients(index, sides.test) == {29}
    assert patients(index, sides.train + sides.validation) == set(range(25))
    listed = read_list(nih / "train_val_list.txt") | read_list(nih / "test_list.txt")
    told = report(sides, index, rule="the official lists", listed=listed, without_film=["gone.png", "other.png"])
    assert told.unlisted == tuple(f.name for f in index if 25 <= f.patient < 29)
    assert told.without_row == ("ghost.png",)
    assert told.without_film == ("gone.png",)
    assert {side: counts.films for side, counts in told.sides.items()} == {
        side: len(getattr(sides, side)) for side in SIDES
    }
    assert told.sides["test"].labels["Nodule"] == 2
    words = "\n".join(told.words())
    for line in ("8 films on neither list", "1 names on the lists that the table lacks: ghost.png", sides.digest):
        assert line in words
    assert json.loads(told.to_json())["digest"] == sides.digest


def test_an_empty_side_is_an_error(nih: Path, index: tuple[NihFilm, ...]) -> None:
    with pytest.raises(SideEmpty, match="no film is left for validation"):
        divide(index, nih, validation=0.0001)
    (nih / "test_list.txt").write_text("another_hospital.png\n")
    with pytest.raises(SideEmpty, match=r"test_list\.txt: no film is left for test: 60 films of 30 patients"):
        divide(index, nih)
    with pytest.raises(SideEmpty, match="train and validation and test"):
        by_hash([])


def test_a_list_that_is_none_is_named_with_the_mend(nih: Path, index: tuple[NihFilm, ...]) -> None:
    path = nih / "test_list.txt"
    for content, words in ((b" \r\n", "empty"), (b"\xff\xfe0\0", "not a text"), (None, "no such list")):
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ListInvalid, match=rf"test_list\.txt: {words}.*--split hash"):
            divide(index, nih)
    path.mkdir()
    with pytest.raises(ListInvalid, match="cannot be read"):
        divide(index, nih)


def test_all_errors_are_the_administrators() -> None:
    assert all(issubclass(kind, ConfigurationError) for kind in (ListInvalid, PatientLeak, SideEmpty))


def test_a_patient_stays_on_its_side_when_films_are_added(nih: Path, index: tuple[NihFilm, ...]) -> None:
    fewer = tuple(f for f in index if f.patient < 15 or f.patient == 29)
    before, after = divide(fewer, nih, validation=0.4), divide(index, nih, validation=0.4)
    assert patients(fewer, before.validation) <= patients(index, after.validation)
    assert patients(fewer, before.train) <= patients(index, after.train)


def test_digest_tells_splits_apart(nih: Path, index: tuple[NihFilm, ...]) -> None:
    same, again, other = (divide(index, nih, seed=s) for s in (0, 0, 1))
    assert same == again
    assert same.digest != other.digest


def test_without_lists_about_70_10_20_and_the_same_validation_patients() -> None:
    films = tuple(film(patient) for patient in range(5000))
    sides = by_hash(films)
    shares = [len(getattr(sides, side)) / 5000 for side in SIDES]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    names = {f.name for f in films}
    listed = split(films, train_list=names - {films[0].name}, test_list={films[0].name})
    assert patients(films, listed.validation) == patients(films, sides.validation) - {0}


def test_the_real_lists(films: Path) -> None:
    """The digest that models in service carry: another rule would train on their validation patients."""
    nih = films / "nih"
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films
    sides = divide(index, nih, validation=0.1)
    assert sides.digest == "9921621661d25126"
    assert len(sides.train) + len(sides.validation) == 8993
    assert len(sides.test) == 777
    assert 0.07 < len(sides.validation) / 8993 < 0.13
    keep_apart(index, sides)
