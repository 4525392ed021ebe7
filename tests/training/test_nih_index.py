from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ConfigurationError
from schemas.findings import LABELS, Label
from training import nih_index as module
from training.nih_index import FilmsMissing, TableInvalid, count, find_table, read_index, read_table, targets

from .conftest import HEADER, write_table

# In `LABELS` order, which is the alphabet's, "No Finding" last.
PUBLISHED = (11559, 2776, 4667, 2303, 13317, 2516, 1686, 227, 19894, 5782, 6331, 3385, 1431, 5302, 60361)


def row(name: str, labels: str = "Mass", patient: object = 1, **more: object) -> dict[str, object]:
    return {"Image Index": name, "Finding Labels": labels, "Patient ID": patient, **more}


def draw(path: Path, side: int, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (side, side), 90 if mode == "L" else (90, 90, 90, 255)).save(path)
    return path


def test_joins_table_and_films(nih: Path) -> None:
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih])
    assert len(index.films) == 60
    film = index.films[2]
    assert (film.name, film.patient, film.age, film.sex, film.view) == ("00000001_000.png", 1, 23, "M", "PA")
    assert film.labels == {Label.EFFUSION, Label.MASS}
    assert index.without_film == index.without_row == ()


def test_reports_what_is_missing_on_either_side(nih: Path) -> None:
    (nih / "images" / "00000003_001.png").unlink()
    (nih / "images" / "00000004_000.png").rename(nih / "images" / "stray.png")
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih])
    assert len(index.films) == index.report.films.films == 58
    assert index.report.rows.films == 60
    assert index.without_film == ("00000003_001.png", "00000004_000.png")
    assert index.without_row == ("stray.png",)
    words = "\n".join(index.report.words())
    assert "2 rows without a film: 00000003_001.png, 00000004_000.png" in words
    assert "1 films without a row: stray.png" in words
    assert json.loads(index.report.to_json())["without_row"] == ["stray.png"]


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_published_counts(films: Path) -> None:
    """The whole table, its films not there: 112,120 rows."""
    table = read_table(films / "nih" / "full_Data_Entry_2017_v2020.csv.gz")
    counts = count(table.rows)
    assert counts.labels == dict(zip(map(str, LABELS), PUBLISHED, strict=True))
    assert (counts.films, counts.patients) == (112_120, 30_805)
    assert counts.sexes == {"F": 48_780, "M": 63_340, "": 0}
    assert counts.views == {"PA": 67_310, "AP": 44_810, "": 0}
    assert sum(counts.groups.values()) == 112_120
    assert counts.contradictory == counts.without_age == 0
    assert table.odd == ()


def test_the_real_films(films: Path) -> None:
    nih = films / "nih"
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih])
    assert len(index.films) == 9770
    assert index.without_film == index.without_row == index.report.superseded == ()


def test_labels_are_whole_words(nih: Path) -> None:
    """No label is found inside another word, and none is guessed."""
    for labels in ("Pleural", "Effusions", "effusion", "Effusion|", "", "No Finding|Massive"):
        with pytest.raises(TableInvalid, match=r"row 2: 00000001_000\.png"):
            read_index(write_table(nih, [row("00000001_000.png", labels)]), [nih])


def test_an_unknown_label_is_named_with_file_row_and_mend(nih: Path) -> None:
    path = write_table(nih, [row("00000001_000.png"), row("00000001_001.png", "Mass|Effusions")])
    with pytest.raises(ConfigurationError) as caught:
        read_table(path)
    for words in (str(path), "row 3", "00000001_001.png", '"Effusions"', 'write "Effusion"'):
        assert words in str(caught.value)


def test_every_fault_is_counted_and_the_first_are_shown(nih: Path) -> None:
    with pytest.raises(TableInvalid) as caught:
        read_table(write_table(nih, [row(f"00000001_{i:03}.png", "Tumour") for i in range(40)]))
    assert "40 fault(s)" in str(caught.value)
    assert "and 35 more" in str(caught.value)
    assert str(caught.value).count("Tumour") == 5


@pytest.mark.parametrize("patient", ["", "x", None, "1.0", "-1", "1_0", "١"])
def test_a_patient_is_a_number(nih: Path, patient: object) -> None:
    with pytest.raises(TableInvalid, match="Patient ID"):
        read_table(write_table(nih, [row("00000001_000.png", "Mass", patient)]))


def test_a_patient_is_the_one_in_the_films_name(nih: Path) -> None:
    """Otherwise the split by patient would put one patient on two sides, unseen."""
    with pytest.raises(TableInvalid, match="Patient ID 2, but the name says 1"):
        read_table(write_table(nih, [row("00000001_000.png", patient=2)]))
    assert read_table(write_table(nih, [row("chest-1.png", patient=2)])).rows[0].patient == 2


def test_a_film_has_one_row(nih: Path) -> None:
    for again in ("00000001_000.png", "00000001_000.jpg"):
        with pytest.raises(TableInvalid, match=r"row 3: .* has two rows"):
            read_table(write_table(nih, [row("00000001_000.png"), row(again)]))


@pytest.mark.parametrize("column", [c for c in HEADER[:7] if c != "Follow-up #"])
def test_a_missing_column_is_named_with_those_found(nih: Path, column: str) -> None:
    path = write_table(nih, [row("00000001_000.png")], [c for c in HEADER if c != column])
    with pytest.raises(TableInvalid) as caught:
        read_table(path)
    assert f"{path}: no column {column}" in str(caught.value)
    assert "Columns found: " in str(caught.value)
    assert "Follow-up #" in str(caught.value).partition("found: ")[2]


def test_a_column_that_is_there_twice_is_refused(nih: Path) -> None:
    path = nih / "twice.csv"
    path.write_text(
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Sex,Patient Gender,View Position\n"
        "a.png,Mass,1,5,F,M,AP\n"
    )
    with pytest.raises(TableInvalid, match="Patient Gender or Patient Sex"):
        read_table(path)


FIRST_RELEASE = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\r\n"
    "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,\r\n"
    "00000002_000.png,No Finding,0,2,011M,F,AP,2500,2048,0.171,0.171,\r\n"
    "\r\n"
    "00000003_000.png,Hernia,0,3,412Y,F,PA,2500,2048,0.168,0.168,\r\n"
    "00000004_000.png,Mass,0,4,,X,LL,2500,2048,0.168,0.168,\r\n"
)


def test_the_first_release_is_read(tmp_path: Path) -> None:
    """Spilled columns, trailing commas, CRLF, a byte order mark, ages with units, ages that nobody has."""
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_bytes(b"\xef\xbb\xbf" + FIRST_RELEASE.encode())
    table = read_table(path)
    assert [(r.age, r.sex, r.view) for r in table.rows] == [
        (58, "M", "PA"),
        (0, "F", "AP"),
        (None, "F", "PA"),
        (None, "", ""),
    ]
    assert table.odd == (
        'row 5: Patient Age "412Y"',
        'row 6: Patient Age ""',
        'row 6: Patient Gender "X"',
        'row 6: View Position "LL"',
    )
    counts = count(table.rows)
    assert counts.without_age == 2
    assert counts.sexes == {"F": 2, "M": 1, "": 1}
    assert counts.groups == {"? ?": 1, "F AP": 1, "F PA": 1, "M PA": 1}


def test_odd_values_are_in_the_report(nih: Path) -> None:
    rows = [row("00000001_000.png", **{"Patient Age": 121}), row("00000001_001.png", "No Finding|Mass")]
    report = read_index(write_table(nih, rows), [nih]).report
    words = "\n".join(report.words())
    assert '1 values taken as not known: row 2: Patient Age "121"' in words
    assert '1 films with "No Finding" beside a finding' in words


def test_other_spellings_of_a_column_and_gzip_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"  # no .gz in the name
    path.write_bytes(gzip.compress(FIRST_RELEASE.replace("Patient Gender", "Patient Sex").encode()))
    assert len(read_table(path).rows) == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (",".join(HEADER).encode(), "no rows below the header"),
        (FIRST_RELEASE.encode("utf-16"), "not UTF-8"),
        (FIRST_RELEASE.replace("Hernia", "Hérnia").encode("latin-1"), "not UTF-8"),
        (FIRST_RELEASE.encode()[:-50], r"row 6: \d cells where the header has more"),
        (FIRST_RELEASE.replace(",", ";").encode(), "parted by commas"),
        (gzip.compress(FIRST_RELEASE.encode())[:-30], "gzip file cut off"),
        (b"\x1f\x8bnonsense, and more of it", "gzip file cut off or damaged"),
        (FIRST_RELEASE.replace("Hernia", "H" * 200_000).encode(), "row 5"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not UTF-8"),
        (b"\0" * 100, "no column Image Index"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(TableInvalid, match=words) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.csv", "no such table"), (tmp_path, "cannot be read")):
        with pytest.raises(TableInvalid, match=words):
            read_table(path)


def test_the_older_table_is_taken_where_the_newer_is_missing(nih: Path) -> None:
    assert find_table(nih).name == "Data_Entry_2017_v2020.csv"
    (nih / "Data_Entry_2017_v2020.csv").rename(nih / "Data_Entry_2017.csv")
    assert find_table(nih).name == "Data_Entry_2017.csv"
    with pytest.raises(TableInvalid, match=r"mine\.csv: no such table \(tables in that folder: Data_Entry_2017\.csv\)"):
        find_table(nih, "mine.csv")
    with pytest.raises(TableInvalid, match="no such folder"):
        find_table(nih / "none")


# ── the films ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_films_in_any_folder_and_format(tmp_path: Path) -> None:
    draw(tmp_path / "images_001" / "images" / "00000001_000.png", 8, "RGBA")
    draw(tmp_path / "images_012" / "images" / "00000001_001.PNG", 8)
    draw(tmp_path / "00000001_002.webp", 8)
    draw(tmp_path / "deep" / "er" / "00000001_003.jpg", 8)
    draw(tmp_path / "00000001_004.jpeg", 8)
    table = write_table(tmp_path, [row(f"00000001_{i:03}.png") for i in range(5)])
    index = read_index(table, [tmp_path])
    assert [film.path.name for film in index.films] == [
        *("00000001_000.png", "00000001_001.PNG", "00000001_002.webp", "00000001_003.jpg", "00000001_004.jpeg")
    ]
    assert index.report.others == 1, "the table itself"


def test_droppings_are_counted_not_taken(nih: Path) -> None:
    (nih / "images" / "._00000001_000.png").write_bytes(b"\0\5\x16\7")
    (nih / "images" / ".DS_Store").write_bytes(b"")
    draw(nih / ".ipynb_checkpoints" / "00000001_000.png", 99)
    (nih / "images" / "notes.txt").write_text("")
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [nih])
    assert len(index.films) == 60
    assert index.report.hidden == 3
    assert index.report.others == 4
    assert index.without_row == ()


def test_the_larger_copy_wins_then_the_earlier_folder(nih: Path, tmp_path: Path) -> None:
    name, table = "00000001_000.png", nih / "Data_Entry_2017_v2020.csv"
    small, same = draw(tmp_path / "a" / name, 16), draw(tmp_path / "b" / name, 48)
    large = draw(tmp_path / "c" / "00000001_000.webp", 64)

    def chosen(*folders: Path) -> Path:
        index = read_index(table, list(folders))
        assert len(index.films) == 60
        assert len(index.report.superseded) == len(folders) - 1
        return index.films[2].path

    original = nih / "images" / name
    assert chosen(small.parent, nih) == original
    assert chosen(nih, large.parent, small.parent) == large
    assert chosen(same.parent, nih) == same
    assert chosen(nih, same.parent) == original
    large.write_bytes(b"")  # a copy that is no image never wins
    assert chosen(large.parent, nih) == original


def test_headers_are_read_of_copies_alone(nih: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(module, "area", lambda path: asked.append(path) or 1)
    table = nih / "Data_Entry_2017_v2020.csv"
    read_index(table, [nih, nih])
    assert asked == [], "a folder that is named twice is looked at once"
    draw(tmp_path / "more" / "00000001_000.png", 8)
    read_index(table, [nih, tmp_path / "more"])
    assert len(asked) == 2


def test_links_are_followed_once_and_broken_ones_told(nih: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "link").symlink_to(nih / "images")
    (nih / "images" / "circle").symlink_to(data)
    (nih / "images" / "00000000_000.png").unlink()
    (nih / "images" / "00000000_000.png").symlink_to(tmp_path / "nowhere")
    (nih / "images" / "00000000_001.png").unlink()
    os.mkfifo(nih / "images" / "00000000_001.png")  # to open it would be to wait for ever
    index = read_index(nih / "Data_Entry_2017_v2020.csv", [data])
    assert len(index.films) == 58
    assert index.report.broken == index.without_film == ("00000000_000.png", "00000000_001.png")


def test_a_folder_without_films_is_an_error(nih: Path, tmp_path: Path) -> None:
    table, empty = nih / "Data_Entry_2017_v2020.csv", tmp_path / "empty"
    with pytest.raises(FilmsMissing, match=f"{empty}: no such folder"):
        read_index(table, [empty])
    empty.mkdir()
    with pytest.raises(FilmsMissing, match=f"{empty}: no films"):
        read_index(table, [empty])
    (empty / "images_001.tar.gz").write_bytes(b"")
    with pytest.raises(FilmsMissing, match=r"Unpack images_001\.tar\.gz first"):
        read_index(table, [empty])
    with pytest.raises(FilmsMissing, match="no such folder"):
        read_index(table, [table])


def test_films_of_another_table_are_an_error(nih: Path) -> None:
    with pytest.raises(FilmsMissing, match=r"none of the 60 films .*00000000_000\.png.* has a row in .*other\.png"):
        read_index(write_table(nih, [row("other.png")]), [nih])


def test_targets_are_in_the_order_of_the_labels(nih: Path) -> None:
    wanted = targets(read_index(nih / "Data_Entry_2017_v2020.csv", [nih]).films[2:3])
    assert wanted.shape == (1, 15)
    assert wanted.dtype == np.float32
    assert [LABELS[k] for k in np.flatnonzero(wanted[0])] == [Label.EFFUSION, Label.MASS]
    assert targets([]).shape == (0, 15)
