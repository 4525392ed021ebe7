"""NIH's table and the films on disk: which film has which labels, and what is missing.

`Data_Entry_2017.csv` and `Data_Entry_2017_v2020.csv` of NIH ChestX-ray14 (Wang et al., CVPR 2017,
doi:10.1109/CVPR.2017.369), plain or gzipped. Films are found by their stem anywhere below the data folder, so that the
twelve `images_0xx/images`, one folder, and reduced copies in another format all serve. Nothing is passed over in
silence: whatever is not used stands in the report.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import logging
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from schemas.findings import LABELS, Label
from training.films import area

log = logging.getLogger("hilum.training")

Sex: TypeAlias = Literal["F", "M", ""]
View: TypeAlias = Literal["PA", "AP", ""]

TABLE: Final = "Data_Entry_2017_v2020.csv"
TABLES: Final = (TABLE, f"{TABLE}.gz", "Data_Entry_2017.csv", "Data_Entry_2017.csv.gz")  # the newer first
SUFFIXES: Final = frozenset({".png", ".webp", ".jpg", ".jpeg"})

# Column → the names that NIH and its mirrors gave it. What stands right of them (sizes, spacings, the first release's
# trailing comma) is not read.
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "name": ("Image Index",),
    "labels": ("Finding Labels",),
    "patient": ("Patient ID",),
    "age": ("Patient Age",),
    "sex": ("Patient Gender", "Patient Sex"),
    "view": ("View Position",),
}
_OLDEST: Final = 120  # years; the first release has patients of 412
_AGE: Final = re.compile(r"(\d{1,4})(?:\.0+)?([YMWD]?)", re.ASCII)  # "58", and the first release's "058Y", "011M"
_PER_YEAR: Final = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
_SEXES: Final[Mapping[str, Sex]] = {"F": "F", "M": "M", "FEMALE": "F", "MALE": "M"}
_VIEWS: Final[Mapping[str, View]] = {"PA": "PA", "AP": "AP"}
_NIH_NAME: Final = re.compile(r"(\d{8})_\d{3}", re.ASCII)  # the patient is in the name
_SHOWN: Final = 5  # of a list, where a person reads it
_LABEL_OF: Final[Mapping[str, Label]] = {label.value: label for label in LABELS}


class TableInvalid(ConfigurationError):
    """NIH's table is not there, lacks a column, or has rows that cannot be read."""


class FilmsMissing(ConfigurationError):
    """There are no films, or none that the table knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NihRow:
    """One row of the table."""

    name: str  # NIH's "Image Index", e.g. "00000001_000.png"
    patient: int
    labels: frozenset[Label]
    age: int | None = None  # years; None where the table says nothing, or nothing that can be true
    sex: Sex = ""
    view: View = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class NihFilm(NihRow):
    """One row of the table whose film is there."""

    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class NihTable:
    """The table as it was read."""

    path: Path
    rows: tuple[NihRow, ...]  # sorted by name
    odd: tuple[str, ...]  # values of age, sex and view that were taken as not known: 'row 17: Patient Age "412"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many of what, in rows of the table or in films."""

    films: int
    patients: int
    labels: dict[str, int]  # all 15, in `LABELS` order; a film counts once for each of its labels
    sexes: dict[str, int]  # "F", "M", "" where not known
    views: dict[str, int]  # "PA", "AP", "" where not known
    groups: dict[str, int]  # "F PA", ...
    without_age: int
    contradictory: int  # "No Finding" beside a finding


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexReport:
    """What was found, what is missing, what was passed over."""

    table: str
    rows: Counts  # of the whole table
    films: Counts  # of the rows whose film is there
    without_film: tuple[str, ...]  # rows of the table, no file
    without_row: tuple[str, ...]  # files, no row
    superseded: tuple[str, ...] = ()  # copies of a film that a larger copy stands for
    broken: tuple[str, ...] = ()  # named like a film, but links to nothing or no files
    hidden: int = 0  # names that begin with a dot: macOS' "._x.png" and the like
    others: int = 0  # files that are no images
    odd: tuple[str, ...] = ()  # see NihTable

    def to_json(self) -> str:
        """Everything, names included."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def words(self) -> Iterator[str]:
        """For a person: some ten lines."""
        yield f"{self.table}: {self.rows.films:,} rows of {self.rows.patients:,} patients"
        yield f"films: {self.films.films:,} of {self.films.patients:,} patients"
        for counts, what in ((self.films.sexes, "sex"), (self.films.views, "view")):
            yield f"  {what}: " + ", ".join(f"{name or 'not known'} {n:,}" for name, n in counts.items() if n)
        yield "  " + ", ".join(f"{label} {n:,}" for label, n in self.films.labels.items())
        lists = (
            ("rows without a film", self.without_film),
            ("films without a row", self.without_row),
            ("smaller copies passed over", self.superseded),
            ("links to nothing", self.broken),
            ("values taken as not known", self.odd),
        )
        for what, names in lists:
            if names:
                yield f"{len(names):,} {what}: {_some(names)}"
        numbers = (
            ("films of unknown age", self.films.without_age),
            ('films with "No Finding" beside a finding', self.films.contradictory),
            ("hidden files passed over", self.hidden),
            ("files that are no images", self.others),
        )
        for what, number in numbers:
            if number:
                yield f"{number:,} {what}"


@dataclass(frozen=True, kw_only=True, slots=True)
class NihIndex:
    """What can be trained on, and what cannot."""

    films: tuple[NihFilm, ...]  # sorted by name
    without_film: tuple[str, ...]  # rows of the table, no file; sorted
    without_row: tuple[str, ...]  # files, no row; sorted
    report: IndexReport


def find_table(data: Path, name: str = TABLE) -> Path:
    """The table in the data folder; where NIH's newer one is not there, the older.

    Raises
    ------
    TableInvalid
        There is none. Another name than NIH's is taken literally.
    """
    for candidate in TABLES if name == TABLE else (name,):
        if (path := data / candidate).is_file():
            if candidate != name:
                log.info("%s is not in %s: %s is taken", name, data, candidate)
            return path
    if not data.is_dir():
        raise TableInvalid(f"{data}: no such folder of data; name the folder that holds {name} and the films")
    there = sorted(path.name for path in data.iterdir() if path.name.endswith((".csv", ".csv.gz")))
    raise TableInvalid(
        f"{data / name}: no such table (tables in that folder: {', '.join(there) or 'none'}); "
        f"put NIH's {TABLE} there, or name the table"
    )


def read_table(path: Path) -> NihTable:
    """Every row of NIH's table, whether its film is there or not.

    Raises
    ------
    TableInvalid
        The table is not there, is empty, is not UTF-8 or is cut off; a column is missing; a label is not one of the 15
        (they are compared as whole words); a patient is no number, or not the one in NIH's name of the film (the split
        by patient would leak); a film has two rows. The message names the file, the rows and the mend.
    """
    lines = csv.reader(io.StringIO(_text(path), newline=""))
    rows: list[NihRow] = []
    odd: list[str] = []
    faults: list[str] = []
    seen: set[str] = set()
    try:
        column = _columns(path, next(lines, []))
        for cells in lines:
            if not any(cells):
                continue
            here = f"row {lines.line_num}"
            try:
                row = _row(cells, column, here, odd)
                if (stem := _stem(row.name)) in seen:
                    raise ValueError(f"{row.name} has two rows; take one of them away")
                seen.add(stem)
                rows.append(row)
            except ValueError as fault:
                faults.append(f"{here}: {fault}")
    except csv.Error as error:
        raise TableInvalid(f"{path}: row {lines.line_num}: {error}; fetch the table again from NIH") from error
    if faults:
        more = f"\n  and {len(faults) - _SHOWN:,} more" if len(faults) > _SHOWN else ""
        raise TableInvalid(f"{path}: {len(faults):,} fault(s)\n  " + "\n  ".join(faults[:_SHOWN]) + more)
    if not rows:
        raise TableInvalid(f"{path}: no rows below the header; fetch the table again from NIH")
    return NihTable(path=path, rows=tuple(sorted(rows, key=lambda row: row.name)), odd=tuple(odd))


def read_index(table: Path, folders: Sequence[Path]) -> NihIndex:
    """Join the table with the films below `folders`.

    Where a film lies there more than once, the copy with the most pixels is taken; of equal ones that in the earlier
    folder, then the first by path. Headers are read of such films alone. Links are followed, each folder once.

    Raises
    ------
    TableInvalid
        See `read_table`.
    FilmsMissing
        A folder is not there or cannot be read, there are no films in them, or none that has a row.
    """
    read = read_table(table)
    found = _Found()
    for folder in folders:
        found.scan(folder)
    where = ", ".join(map(str, folders))
    if not found.copies:
        packed = f" Unpack {_some(found.packed)} first." if found.packed else ""
        raise FilmsMissing(
            f"{where}: no films ({', '.join(sorted(SUFFIXES))}) in this folder or below it.{packed} "
            "Name the folder that holds NIH's images_001 ... images_012, or copies of the films under NIH's names"
        )
    paths, superseded = found.largest()
    films: list[NihFilm] = []
    missing: list[str] = []
    for row in read.rows:
        if path := paths.pop(_stem(row.name), None):
            films.append(
                NihFilm(
                    name=row.name,
                    patient=row.patient,
                    labels=row.labels,
                    age=row.age,
                    sex=row.sex,
                    view=row.view,
                    path=path,
                )
            )
        else:
            missing.append(row.name)
    without_row = tuple(sorted(path.name for path in paths.values()))
    if not films:
        raise FilmsMissing(
            f"{where}: none of the {len(without_row):,} films ({_some(without_row)}) has a row in {table}, whose films "
            f"are called {_some(missing)}; the table belongs to other films, or they were renamed"
        )
    report = IndexReport(
        table=table.name,
        rows=count(read.rows),
        films=count(films),
        without_film=tuple(missing),
        without_row=without_row,
        superseded=superseded,
        broken=tuple(sorted(found.broken)),
        hidden=found.hidden,
        others=found.others,
        odd=read.odd,
    )
    return NihIndex(films=tuple(films), without_film=tuple(missing), without_row=without_row, report=report)


def count(rows: Iterable[NihRow]) -> Counts:
    """The counts that NIH publishes, of rows of the table or of films."""
    rows = tuple(rows)
    labels = Counter(label for row in rows for label in row.labels)
    sexes, views = Counter(row.sex for row in rows), Counter(row.view for row in rows)
    groups = Counter(f"{row.sex or '?'} {row.view or '?'}" for row in rows)
    return Counts(
        films=len(rows),
        patients=len({row.patient for row in rows}),
        labels={label.value: labels[label] for label in LABELS},
        sexes={sex: sexes[sex] for sex in ("F", "M", "")},
        views={view: views[view] for view in ("PA", "AP", "")},
        groups=dict(sorted(groups.items())),
        without_age=sum(row.age is None for row in rows),
        contradictory=sum(Label.NO_FINDING in row.labels and len(row.labels) > 1 for row in rows),
    )


def targets(films: Iterable[NihRow]) -> NDArray[np.float32]:
    """float32 (N, 15) of zeros and ones, columns in `LABELS` order."""
    return np.array([[label in film.labels for label in LABELS] for film in films], np.float32).reshape(-1, len(LABELS))


def _text(path: Path) -> str:
    """The table as text; gzip is known by its first bytes, whatever the name."""
    try:
        raw = path.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise TableInvalid(f"{path}: no such table; put NIH's {TABLE} there, or name the table") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TableInvalid(f"{path}: gzip file cut off or damaged ({error}); fetch it again") from error
    except UnicodeDecodeError as error:
        raise TableInvalid(
            f"{path}: not UTF-8 (byte {error.start:,}); save the table as CSV in UTF-8, or fetch it again from NIH"
        ) from error
    except OSError as error:
        raise TableInvalid(f"{path}: cannot be read ({error.strerror}); make it a file that may be read") from error
    if not text.strip():
        raise TableInvalid(f"{path}: empty; fetch the table again from NIH")
    return text


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """Field → position of its column."""
    names = [name.strip() for name in header]
    column = {}
    for key, spellings in _COLUMNS.items():
        positions = [i for i, name in enumerate(names) if name in spellings]
        if len(positions) > 1:
            raise TableInvalid(f"{path}: {len(positions)} columns are called {' or '.join(spellings)}; leave one")
        if positions:
            column[key] = positions[0]
    if lacking := [" or ".join(_COLUMNS[key]) for key in _COLUMNS if key not in column]:
        found = ", ".join(name for name in names if name) or "none"
        raise TableInvalid(
            f"{path}: no column {'; '.join(lacking)}. Columns found: {found}. Name NIH's own table, columns parted by "
            "commas and the first line as NIH has it"
        )
    return column


def _row(cells: list[str], column: Mapping[str, int], here: str, odd: list[str]) -> NihRow:
    """One row; ages, sexes and views that cannot be true go into `odd`. ValueError: what is wrong, and the mend."""
    if len(cells) <= max(column.values()):
        raise ValueError(f"{len(cells)} cells where the header has more; the table is cut off, fetch it again")
    cell = {key: cells[i].strip() for key, i in column.items()}
    if not (name := cell["name"]):
        raise ValueError("no Image Index; take the row away")
    try:
        labels = _labels(cell["labels"])
    except ValueError as fault:
        raise ValueError(f"{name}: {fault}") from fault
    if not (cell["patient"].isascii() and cell["patient"].isdigit()):
        raise ValueError(f'{name}: Patient ID "{cell["patient"]}" is no number; write NIH\'s number of the patient')
    patient = int(cell["patient"])
    if (named := _NIH_NAME.fullmatch(_stem(name))) and int(named[1]) != patient:
        raise ValueError(f"{name}: Patient ID {patient}, but the name says {int(named[1])}; fetch the table again")
    age, sex, view = _age(cell["age"]), _SEXES.get(cell["sex"].upper(), ""), _VIEWS.get(cell["view"].upper(), "")
    for key, value in (("age", age), ("sex", sex), ("view", view)):
        if value in (None, ""):
            odd.append(f'{here}: {_COLUMNS[key][0]} "{cell[key]}"')
    return NihRow(name=name, patient=patient, labels=labels, age=age, sex=sex, view=view)


@cache  # some 800 combinations stand in 112,120 rows
def _labels(text: str) -> frozenset[Label]:
    words = text.split("|")
    for word in words:
        if word not in _LABEL_OF:
            near = difflib.get_close_matches(word, list(_LABEL_OF), n=1, cutoff=0.85)
            hint = f'write "{near[0]}"' if near else f"write those of {', '.join(LABELS)} that hold, parted by |"
            raise ValueError(f'"{word}" is not one of NIH\'s labels; {hint}')
    return frozenset(_LABEL_OF[word] for word in words)


@cache
def _age(text: str) -> int | None:
    match = _AGE.fullmatch(text.upper())
    years = int(match[1]) // _PER_YEAR[match[2]] if match else None
    return years if years is not None and years <= _OLDEST else None


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in SUFFIXES else name


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


@dataclass(slots=True)
class _Found:
    """What lies below the folders. One `scandir` per folder, and no question about a file that the listing answers."""

    copies: dict[str, list[Path]] = field(default_factory=dict)  # stem → in order of preference where sizes are equal
    broken: list[str] = field(default_factory=list)
    packed: list[str] = field(default_factory=list)
    hidden: int = 0
    others: int = 0
    been: set[tuple[int, int]] = field(default_factory=set)

    def scan(self, root: Path) -> None:
        films: list[str] = []
        todo = [str(root)]
        while todo:
            folder = todo.pop()
            try:
                status = Path(folder).stat()
                if (status.st_dev, status.st_ino) in self.been:  # a link in a circle, or a folder named twice
                    continue
                self.been.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    for entry in entries:
                        self._sort(entry, films, todo)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise FilmsMissing(f"{folder}: no such folder of films; name the folder that holds them") from error
            except OSError as error:
                raise FilmsMissing(f"{folder}: cannot be listed ({error.strerror}); let this user read it") from error
        for path in map(Path, sorted(films)):
            self.copies.setdefault(path.stem, []).append(path)

    def _sort(self, entry: os.DirEntry[str], films: list[str], todo: list[str]) -> None:
        name = entry.name
        if name.startswith("."):
            self.hidden += 1
        elif entry.is_dir():
            todo.append(entry.path)
        elif _stem(name) == name:
            self.others += 1
            if name.endswith((".tar.gz", ".tgz", ".tar", ".zip")):
                self.packed.append(name)
        elif entry.is_file():
            films.append(entry.path)
        else:
            self.broken.append(name)

    def largest(self) -> tuple[dict[str, Path], tuple[str, ...]]:
        """Stem → its one path, and the copies that are passed over."""
        several = [path for paths in self.copies.values() if len(paths) > 1 for path in paths]
        with ThreadPoolExecutor(16) as pool:  # many more than cores: on a network disk a header is all waiting
            areas = dict(zip(several, pool.map(area, several), strict=True))
        chosen = {stem: max(paths, key=lambda path: areas.get(path, 0)) for stem, paths in self.copies.items()}
        return chosen, tuple(sorted(str(path) for path in several if chosen[path.stem] != path))
