from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.findings import LABELS, Label
from training.nih_index import TableInvalid, read_index, targets

from .conftest import write_table


def row(name: str, labels: str, patient: object = 1) -> dict[str, object]:
    return {"Image Index": name, "Finding Labels": labels, "Patient ID": patient}


def test_joins_table_and_films(nih: Path) -> None:
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih])
    assert len(index.films) == 60
    assert index.films[2].name == "00000001_000.png"
    assert index.films[2].patient == 1
    assert index.films[2].labels == {Label.EFFUSION, Label.MASS}
    assert index.without_film == index.without_row == ()


def test_reports_what_is_missing_on_either_side(nih: Path) -> None:
    (nih / "images" / "00000003_001.png").unlink()
    (nih / "images" / "00000004_000.png").rename(nih / "images" / "stray.png")
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih])
    assert len(index.films) == 58
    assert index.without_film == ("00000003_001.png", "00000004_000.png")
    assert index.without_row == ("stray.png",)


def test_labels_are_whole_words(nih: Path) -> None:
    """No label is found inside another word, and none is guessed."""
    for labels in ("Pleural", "Effusions", "effusion", "Effusion|", "", "No Finding|Massive"):
        with pytest.raises(TableInvalid, match="row 2"):
            read_index(write_table(nih, [row("00000001_000.png", labels)]), [nih])


@pytest.mark.parametrize("patient", ["", "x", None])
def test_a_patient_is_a_number(nih: Path, patient: object) -> None:
    with pytest.raises(TableInvalid):
        read_index(write_table(nih, [row("00000001_000.png", "Mass", patient)]), [nih])


def test_a_film_has_one_row_and_the_table_its_columns(nih: Path) -> None:
    with pytest.raises(TableInvalid, match="two rows"):
        read_index(write_table(nih, [row("00000001_000.png", "Mass"), row("00000001_000.png", "Mass")]), [nih])
    with pytest.raises(TableInvalid, match="Finding Labels"):
        read_index(write_table(nih, [{"Image Index": "00000001_000.png", "Patient ID": 1}]), [nih])


def test_the_earlier_folder_wins_and_the_suffix_does_not_matter(nih: Path, tmp_path: Path) -> None:
    sharp = tmp_path / "sharp"
    sharp.mkdir()
    (sharp / "00000001_000.webp").write_bytes(b"")
    table = write_table(nih, [row("00000001_000.png", "Mass")])
    assert read_index(table, [sharp, nih]).films[0].path == sharp / "00000001_000.webp"
    assert read_index(table, [nih, sharp]).films[0].path.parent == nih / "images"


def test_a_missing_folder_is_an_error(nih: Path) -> None:
    with pytest.raises(NotADirectoryError):
        read_index(nih / "Data_Entry_2017_v2020.csv", [nih / "none"])


def test_targets_are_in_the_order_of_the_labels(nih: Path) -> None:
    films = read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films[2:3]
    wanted = targets(films)
    assert wanted.shape == (1, 15)
    assert wanted.dtype == np.float32
    assert [LABELS[k] for k in np.flatnonzero(wanted[0])] == [Label.EFFUSION, Label.MASS]


def test_the_real_table(films: Path) -> None:
    nih = films / "nih"
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih])
    assert len(index.films) == 9770
    assert index.without_film == index.without_row == ()
