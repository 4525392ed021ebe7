"""A flag as a picture: what a viewer without any notion of reports can show.

Grey, so that a diagnostic display shows it as a colour screen does. Nothing on it points at a place in the film: that
is not for a triage device to do. The films are those that raised the study, without any they are those that were read;
a withdrawn flag shows none and gives none of its former reasons.

The typeface is DejaVu Sans where the machine has it (Debian: fonts-dejavu-core): Latin, Greek, Cyrillic, Hebrew,
Arabic. Names that it cannot write are looked for in Noto Sans CJK (fonts-noto-cjk). Of a name that neither can, those
component groups are shown that can be, the alphabetic one nearly always (PS3.5 6.2.1.2); and without either, Pillow's
own typeface writes ASCII, accents left off, the rest as "?". The data set around the picture has the name in any case.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

from schemas.decision import Reason, Urgency
from schemas.flag import FilmResult, Flag
from worker.notify.study_module import patient_and_study
from worker.notify.wording import CAUTION, NOTHING_RAISED, because, headline, made_by, not_analysed

WIDTH: Final = 1024
HEIGHT: Final = 1280
MOST_FILMS: Final = 4
GONE: Final = "This film is no longer here."
_MOST_REASONS: Final = 6  # lines; the data set has them all
_MOST_REMARKS: Final = 3
_COLUMN: Final = 150  # pixels of width, of the urgency before a reason

_BLACK, _PANEL, _RULE, _MUTED, _TEXT, _WHITE = 0, 24, 72, 160, 228, 255  # grey levels
_MARGIN: Final = 40
_BAND: Final = 132  # pixels of height, of the band with the urgency
_GAP: Final = 12
_LEADING: Final = 1.32

_REGULAR: Final = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc")
_BOLD: Final = ("DejaVuSans-Bold.ttf", "NotoSansCJK-Bold.ttc")


class Shown(NamedTuple):
    """A film on the page; without pixels its place says so."""

    film: FilmResult
    pixels: NDArray[np.uint8] | None  # (Rows, Columns), as displayed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    text: str
    size: int
    grey: int = _TEXT
    bold: bool = False
    label: str = ""  # bold, in a column of its own before the text
    before: int = 0  # pixels of space above it

    @property
    def height(self) -> int:
        return self.before + ceil(self.size * _LEADING)


def films_of(flag: Flag) -> list[FilmResult]:
    """Which films the page shows, the most urgent first."""
    if flag.withdrawn is not None:
        return []
    raised = sorted((film for film in flag.films if film.reasons), key=_worst, reverse=True)
    read = [film for film in flag.films if film.not_analysed is None]
    return (raised or read)[:MOST_FILMS]


def draw_page(flag: Flag, shown: Sequence[Shown]) -> NDArray[np.uint8]:
    """The page, uint8 (HEIGHT, WIDTH). `shown` are the films of `films_of`."""
    page = Image.new("L", (WIDTH, HEIGHT), _BLACK)
    pen = ImageDraw.Draw(page)
    _band(pen, flag)
    top = _write(pen, _patient(flag), _BAND + 2 * _GAP) + 2 * _GAP
    words = _words(flag)
    begin = HEIGHT - 2 * _GAP - sum(line.height for line in words) if shown else top + 2 * _GAP
    pen.line((_MARGIN, begin - _GAP, WIDTH - _MARGIN, begin - _GAP), fill=_RULE, width=2)
    _write(pen, words, begin)
    _films(page, shown, (_MARGIN, top, WIDTH - _MARGIN, begin - 3 * _GAP))
    return np.asarray(page)


# What is said


def _title(flag: Flag) -> str:
    if flag.withdrawn is not None:
        return "WITHDRAWN"
    if flag.urgency > Urgency.ROUTINE:
        return flag.urgency.name
    return "NOT RAISED" if any(film.not_analysed is None for film in flag.films) else "NOT ANALYSED"


def _patient(flag: Flag) -> list[_Line]:
    elements = patient_and_study(flag.context)
    who = [
        f"ID {elements['PatientID']}" if elements["PatientID"] else "no patient ID",
        f"born {_date(elements['PatientBirthDate'])}" if elements["PatientBirthDate"] else "",
        elements["PatientSex"],
    ]
    what = [
        f"Accession {elements['AccessionNumber']}" if elements["AccessionNumber"] else "",
        " ".join(filter(None, (_date(elements["StudyDate"]), _time(elements["StudyTime"])))),
        _if_writable(elements.get("StudyDescription", "")),
    ]
    return [
        _Line(text=_name(elements["PatientName"]) or "no patient name", size=34, bold=True),
        _Line(text="  |  ".join(filter(None, who)), size=25),
        _Line(text="  |  ".join(filter(None, what)), size=25, grey=_MUTED),
    ]


def _words(flag: Flag) -> list[_Line]:
    lines = [_Line(text=text, size=28, bold=True) for text in _wrapped(headline(flag), 28, bold=True)]
    reasons = _by_urgency(flag.reasons)
    for reason in reasons[:_MOST_REASONS]:
        lines.append(_Line(label=reason.urgency.name, text=because([reason]), size=26))
    if len(reasons) > _MOST_REASONS:
        lines.append(_Line(text=f"and {len(reasons) - _MOST_REASONS} more", size=26))
    if not reasons and flag.withdrawn is None and films_of(flag):
        lines.append(_Line(text=NOTHING_RAISED, size=26))
    raised = sum(bool(film.reasons) for film in flag.films)
    if flag.withdrawn is None and raised > MOST_FILMS:
        lines.append(_Line(text=f"{MOST_FILMS} of the {raised} raised films are shown.", size=22, grey=_MUTED))
    for sentence in not_analysed(flag.films)[:_MOST_REMARKS]:
        lines.append(_Line(text=sentence, size=22, grey=_MUTED))
    lines.append(_Line(text=made_by(flag), size=22, grey=_MUTED))
    purpose, limit = CAUTION.split(". ", 1)
    lines.append(_Line(text=f"{purpose}.", size=26, bold=True, grey=_WHITE, before=_GAP))
    lines.append(_Line(text=limit, size=26, bold=True, grey=_WHITE))
    return lines


def _caption(film: FilmResult) -> str:
    """Briefly, for the sentences stand below: "Pneumothorax 0.91, Effusion 0.71"."""
    return ", ".join(because([reason]).partition(",")[0] for reason in _by_urgency(film.reasons)) or "nothing raised"


def _by_urgency(reasons: Iterable[Reason]) -> list[Reason]:
    return sorted(reasons, key=lambda reason: (-reason.urgency, -reason.probability))


def _worst(film: FilmResult) -> tuple[Urgency, float]:
    return max((reason.urgency, reason.probability) for reason in film.reasons)


def _date(value: str) -> str:
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if value else ""


def _time(value: str) -> str:
    return f"{value[:2]}:{value[2:4]}" if len(value) >= 4 else ""


def _name(value: str) -> str:
    """A person's name as it is spoken of: "Yamada, Tarou (山田, 太郎)", as far as there are letters for it."""
    groups = []
    for group in value.split("=")[:2]:
        family, *others = (part.strip() for part in group.split("^"))
        groups.append(", ".join(filter(None, (family, " ".join(filter(None, others))))))
    alphabetic, *ideographic = groups
    second = next((group for group in ideographic if group), "")
    if second and _can_write(second, _BOLD):
        return f"{alphabetic} ({second})" if alphabetic else second
    return alphabetic or second


# How it is drawn


def _band(pen: ImageDraw.ImageDraw, flag: Flag) -> None:
    """The urgency across the top: white for STAT, grey for URGENT, dark for the rest."""
    fill, ink = {Urgency.STAT: (_WHITE, _BLACK), Urgency.URGENT: (176, _BLACK)}.get(flag.urgency, (_PANEL, _TEXT))
    pen.rectangle((0, 0, WIDTH, _BAND), fill=fill)
    raised = flag.urgency > Urgency.ROUTINE
    title = _Line(text=_title(flag), size=96 if raised else 64, bold=True)
    _text(pen, title, (_MARGIN, _BAND // 2), ink, "lm")
    _text(pen, _Line(text="hilum triage", size=34, bold=True), (WIDTH - _MARGIN, _BAND // 2 - 20), ink, "rm")
    _text(pen, _Line(text="not for diagnosis", size=26), (WIDTH - _MARGIN, _BAND // 2 + 22), ink, "rm")


def _write(pen: ImageDraw.ImageDraw, lines: Iterable[_Line], top: int) -> int:
    """The lines one below the other, cut where they are too long; where the next would begin."""
    for line in lines:
        left = _MARGIN
        if line.label:
            _text(pen, replace(line, text=line.label, bold=True), (left, top + line.before), line.grey, "la")
            left += _COLUMN
        _text(pen, line, (left, top + line.before), line.grey, "la", WIDTH - _MARGIN - left)
        top += line.height
    return top


def _text(
    pen: ImageDraw.ImageDraw, line: _Line, at: tuple[int, int], ink: int, anchor: str, width: int = WIDTH - 2 * _MARGIN
) -> None:
    text = _writable(line.text, line.bold)
    font = _font_for(text, line.size, line.bold)
    pen.text(at, _cut(text, font, width), fill=ink, font=font, anchor=anchor)


def _films(page: Image.Image, shown: Sequence[Shown], box: tuple[int, int, int, int]) -> None:
    """Up to four films in equal fields; of several each says what it was raised for."""
    if not shown:
        return
    left, top, right, bottom = box
    columns = 1 if len(shown) == 1 else 2
    rows = ceil(len(shown) / columns)
    caption = _Line(text="", size=24)
    width = (right - left - 2 * _GAP * (columns - 1)) // columns
    height = (bottom - top - 2 * _GAP * (rows - 1)) // rows - (caption.height if columns > 1 else 0)
    pen = ImageDraw.Draw(page)
    for index, (film, pixels) in enumerate(shown):
        x = left + index % columns * (width + 2 * _GAP) + width // 2  # of its middle
        y = top + index // columns * (height + caption.height + 2 * _GAP)
        if pixels is None:
            low = y + height // columns
            pen.rectangle((x - width // 2, y, x + width // 2 - 1, low - 1), outline=_RULE)
            _text(pen, replace(caption, text=GONE), (x, (y + low) // 2), _MUTED, "mm", width)
        else:
            picture = _fitted(pixels, (width, height))
            page.paste(picture, (x - picture.width // 2, y))
            low = y + picture.height
        if columns > 1:
            _text(pen, replace(caption, text=_caption(film)), (x, low + 4), caption.grey, "ma", width)


def _fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """The film as large as fits, its proportions kept."""
    rows, columns = pixels.shape
    scale = min(size[0] / columns, size[1] / rows)
    fitted = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return Image.fromarray(pixels).resize(fitted, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _wrapped(text: str, size: int, *, bold: bool) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _font_for(longer, size, bold).getlength(longer) > WIDTH - 2 * _MARGIN and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cut(text: str, font: FreeTypeFont, width: int) -> str:
    """`text`, or as much of it as fits, and dots."""
    text = text[:300]  # what never fits need not be measured
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


# Letters


def _writable(text: str, bold: bool) -> str:
    """`text` in letters that one typeface has; accents are left off before a letter is."""
    faces = _BOLD if bold else _REGULAR
    bare = _without_accents(text)
    for spelling in (text, bare):
        if _can_write(spelling, faces):
            return spelling
    face = faces[0] if _font(faces[0], 20) else ""
    return "".join(c if _has(face, c) else "?" for c in bare)


def _if_writable(text: str) -> str:
    return text if _can_write(_without_accents(text), _REGULAR) else ""


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _can_write(text: str, faces: Sequence[str]) -> bool:
    return any(_has_all(face, text) for face in (*faces, ""))


def _font_for(text: str, size: int, bold: bool) -> FreeTypeFont:
    """The first typeface that has every letter of `text`; without one, the first that there is."""
    faces = [face for face in (*(_BOLD if bold else _REGULAR), "") if _font(face, size)]
    face = next((face for face in faces if _has_all(face, text)), faces[0])
    font = _font(face, size)
    assert font is not None  # noqa: S101 - Pillow's own is always there
    return font


@lru_cache(maxsize=64)
def _font(face: str, size: int) -> FreeTypeFont | None:
    """A typeface by its file name, wherever the system keeps it; "" is Pillow's own. None where there is none."""
    try:
        return ImageFont.truetype(face, size) if face else ImageFont.load_default(size)  # type: ignore[return-value]
    except OSError:
        return None


def _has_all(face: str, text: str) -> bool:
    return _font(face, 20) is not None and all(_has(face, letter) for letter in text)


@lru_cache(maxsize=4096)
def _has(face: str, letter: str) -> bool:
    """Whether the typeface has a glyph for it, and not only the box that stands for those it lacks."""
    font = _font(face, 20)
    if font is None or unicodedata.category(letter).startswith("C"):
        return False
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))
