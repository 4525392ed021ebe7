from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS, LABELS, Label
from training.nih_index import NihRow, read_table, targets
from training.soft_targets import TeacherInvalid, read_teacher, soften

FILMS = tuple(
    NihRow(name=f"0000000{i}_000.png", patient=i, labels=frozenset({label}))
    for i, label in enumerate((Label.MASS, Label.EFFUSION, Label.NO_FINDING))
)
HARD = targets(FILMS)
COLUMNS = ("Image Index", *(f"prob_{label}" for label in reversed(FINDINGS)))  # any order will do


def table(folder: Path, *rows: tuple[str, ...], columns: tuple[str, ...] = COLUMNS) -> Path:
    path = folder / "teacher.csv"
    path.write_text("\n".join(",".join(cells) for cells in (columns, *rows)) + "\n")
    return path


def same(name: str, value: str) -> tuple[str, ...]:
    return (name, *[value] * len(FINDINGS))


def test_mixed_in_for_the_films_that_have_them(tmp_path: Path) -> None:
    soft = soften(HARD, FILMS, table(tmp_path, same(FILMS[1].name, "0.2"), same("x.png", "1")), 0.25)
    assert soft.dtype == np.float32
    effusion, hernia = LABELS.index(Label.EFFUSION), LABELS.index(Label.HERNIA)
    assert soft[1, effusion] == pytest.approx(0.75 + 0.25 * 0.2)
    assert soft[1, hernia] == pytest.approx(0.25 * 0.2)
    assert soft[1, 14] == HARD[1, 14], "the teacher does not speak of it"
    assert (np.delete(soft, 1, axis=0) == np.delete(HARD, 1, axis=0)).all()
    assert HARD.max() == 1, "what was given is left alone"


def test_columns_are_told_by_name_not_by_place(tmp_path: Path) -> None:
    values = [f"{0.01 * i:.2f}" for i in range(len(FINDINGS))]
    soft = soften(HARD, FILMS, table(tmp_path, (FILMS[2].name, *values)), 1.0)
    assert soft[2, :14] == pytest.approx([0.01 * i for i in reversed(range(14))])


def test_no_finding_is_taken_where_the_teacher_has_it(tmp_path: Path) -> None:
    path = table(tmp_path, (*same(FILMS[0].name, "0"), "0.75"), columns=(*COLUMNS, "prob_No Finding"))
    assert soften(HARD, FILMS, path, 1.0)[0, 14] == 0.75


def test_films_that_are_not_at_hand_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, same(FILMS[0].name, "0"), same("b.png", "0"), same("a.png", "0"))
    with caplog.at_level(logging.INFO, "hilum.training"):
        teacher = read_teacher(path, FILMS)
    assert teacher.films == 1
    assert teacher.unknown == ("a.png", "b.png")
    assert np.isnan(teacher.probabilities[1:]).all()
    assert "soft targets for 1 of 3 films" in caplog.text
    assert "2 films are not at hand, first a.png" in caplog.text


@pytest.mark.parametrize("value", ["1.01", "-0.1", "nan", "inf", "", "high", '"0,5"'])
def test_a_probability_is_a_number_from_0_to_1(tmp_path: Path, value: str) -> None:
    path = table(tmp_path, same(FILMS[0].name, "0"), (*same(FILMS[1].name, "0.5")[:-1], value))
    with pytest.raises(TeacherInvalid, match=r"teacher\.csv: 1 fault.*\n.*row 3: 00000001_000\.png: prob_Atelectasis"):
        soften(HARD, FILMS, path, 0.5)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    for lacking in ("Image Index", "prob_Hernia"):
        columns = tuple(c for c in COLUMNS if c != lacking)
        with pytest.raises(TeacherInvalid, match=rf"no column {lacking}\. Columns found: .*prob_Mass"):
            soften(HARD, FILMS, table(tmp_path, columns=columns), 0.5)


def test_tables_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "teacher.csv"
    for content, words in (
        (b"", "Columns found: none"),
        ("é".encode("latin-1"), "not UTF-8"),
        (",".join(COLUMNS).encode(), "none of its 0 films"),
        ((",".join(COLUMNS) + "\n00000000_000.png,0.1").encode(), "row 2: 2 cells where the header has more"),
    ):
        path.write_bytes(content)
        with pytest.raises(TeacherInvalid, match=words):
            soften(HARD, FILMS, path, 0.5)
    with pytest.raises(TeacherInvalid, match="no such table"):
        soften(HARD, FILMS, tmp_path / "none.csv", 0.5)
    with pytest.raises(TeacherInvalid, match="two rows"):
        soften(HARD, FILMS, table(tmp_path, same(FILMS[0].name, "0"), same(FILMS[0].name, "1")), 0.5)
    with pytest.raises(TeacherInvalid, match=r"none of its 1 films is among the 3 at hand"):
        soften(HARD, FILMS, table(tmp_path, same("00000001_000.webp", "0")), 0.5)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_0_to_1(tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigurationError, match="teacher_share"):
        soften(HARD, FILMS, table(tmp_path, same(FILMS[0].name, "0")), share)


def test_the_real_teacher(films: Path) -> None:
    """The published model agrees with the labels better than chance, in every column: none is in another's place."""
    rows = read_table(films / "nih" / "Data_Entry_2017_v2020.csv").rows
    teacher = read_teacher(films / "nih" / "teacher_densenet121.csv", rows)
    assert (teacher.films, teacher.unknown) == (2208, ())
    hard, said = targets(rows), ~np.isnan(teacher.probabilities[:, 0])
    for k, label in enumerate(FINDINGS):
        probability, has = teacher.probabilities[said, k], hard[said, k] == 1
        assert np.median(probability[has]) > np.median(probability[~has]), label
