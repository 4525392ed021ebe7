"""What stands on the summary page, by what is drawn and where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import ImageDraw, ImageFont

from schemas.decision import Urgency
from schemas.flag import Flag, Withdrawal
from schemas.image import GrayImage
from schemas.not_analysed import NotAnalysed
from tests.unit.notify.flags import EFFUSION, PNEUMOTHORAX, VALID, film, flag, named
from worker.notify import summary_page
from worker.notify.summary_page import GONE, HEIGHT, MOST_FILMS, WIDTH, Shown, draw_page, films_of

LONG = named("N" * 300, patient_id="9" * 300, accession_number="A" * 64, study_description="W" * 64)
EVERY = VALID | {"long": LONG}
every_flag = pytest.mark.parametrize("example", EVERY.values(), ids=EVERY.keys())


@dataclass(frozen=True)
class Word:
    text: str
    box: tuple[float, float, float, float]
    font: ImageFont.FreeTypeFont


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Word]]:
    """Whatever is written, with the place that it takes."""
    written: list[Word] = []
    write = ImageDraw.ImageDraw.text

    def text(pen: ImageDraw.ImageDraw, at: tuple[int, int], what: str, **how: object) -> None:
        font = how["font"]
        assert isinstance(font, ImageFont.FreeTypeFont)
        written.append(Word(what, pen.textbbox(at, what, font=font, anchor=str(how["anchor"])), font))
        write(pen, at, what, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    yield written


def grey(value: int, rows: int = 500, columns: int = 400) -> GrayImage:
    return np.full((rows, columns), value, np.uint8)


def page(example: Flag, *pixels: GrayImage | None) -> GrayImage:
    films = films_of(example)
    of_each = pixels or (grey(99),) * len(films)
    return draw_page(example, [Shown(film, shown) for film, shown in zip(films, of_each, strict=True)])


def extent(drawn: GrayImage, value: int) -> tuple[int, int]:
    """Height and width of what has this grey; the edges of letters have it here and there."""
    film = drawn == value
    return int((film.sum(axis=1) > 5).sum()), int((film.sum(axis=0) > 5).sum())


@every_flag
def test_every_flag_has_a_page_and_the_same_one_each_time(example: Flag) -> None:
    drawn = page(example)
    assert (drawn.shape, drawn.dtype) == ((HEIGHT, WIDTH), np.uint8)
    assert np.array_equal(drawn, page(replace(example)))


@every_flag
def test_all_that_is_written_is_within_the_page_and_nothing_over_another(example: Flag, words: list[Word]) -> None:
    page(example)
    for word in words:
        left, top, right, bottom = word.box
        assert 0 <= left <= right <= WIDTH, word
        assert 0 <= top <= bottom <= HEIGHT, word
    boxes = sorted((word.box, word.text) for word in words)
    for index, ((left, top, right, bottom), text) in enumerate(boxes):
        for (left2, top2, right2, bottom2), text2 in boxes[index + 1 :]:
            assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top, (text, text2)


@every_flag
def test_no_letter_is_a_box(example: Flag, words: list[Word]) -> None:
    page(example)
    for word in words:
        missing = bytes(word.font.getmask("\U0010ffff"))
        assert all(letter == " " or bytes(word.font.getmask(letter)) != missing for letter in word.text), word.text


@every_flag
def test_no_page_is_an_all_clear_and_each_says_what_it_is_for(example: Flag, words: list[Word]) -> None:
    page(example)
    said = " ".join(word.text for word in words)
    assert "For triage only, not for diagnosis. The absence of a flag is not an all-clear." in said
    for forbidden in ("normal", "healthy", "unremarkable", "negative", "No Finding"):
        assert forbidden not in said
    assert "0.43" not in said, "what the policy is silent on is not told"


def test_it_says_what_why_and_by_whom(words: list[Word]) -> None:
    page(flag(film(reasons=[EFFUSION, PNEUMOTHORAX])))
    said = [word.text for word in words]
    assert said == [
        "STAT",
        "hilum triage",
        "not for diagnosis",
        "Doe, Jane",
        "ID 4711  |  born 1960-02-29  |  F",
        "Accession A-1  |  2025-01-02 10:15  |  Chest PA",
        "hilum raised this study: STAT.",
        "STAT",
        "Pneumothorax 0.91, threshold 0.62.",
        "URGENT",
        "Effusion 0.71, threshold 0.58.",
        "Model starter 1.0 (0123456789abcdef), revision 1.",
        "For triage only, not for diagnosis.",
        "The absence of a flag is not an all-clear.",
    ]
    assert words[0].box[3] - words[0].box[1] > 60, "the urgency in large letters"
    assert min(word.box[3] - word.box[1] for word in words) > 14, "the least of it can be read at half the size"


def test_the_band_tells_the_urgency_from_afar() -> None:
    bands = [
        page(flag(film(), urgency=urgency))[:100].mean() for urgency in (Urgency.STAT, Urgency.URGENT, Urgency.ROUTINE)
    ]
    assert bands[0] > bands[1] + 40 > bands[2] + 80


def test_more_reasons_than_lines_are_counted(words: list[Word]) -> None:
    page(VALID["every finding"])
    said = [word.text for word in words]
    assert "and 8 more" in said
    assert next(text for text in said if text.endswith("threshold 0.50.")).startswith("Pneumothorax 0.93")


# The films


@pytest.mark.parametrize("shape", [(500, 400), (400, 500), (4000, 3000), (64, 64), (30, 3000), (3000, 30)])
def test_a_film_keeps_its_proportions_and_takes_the_room_that_there_is(shape: tuple[int, int]) -> None:
    drawn = page(flag(), grey(99, *shape))
    height, width = extent(drawn, 99)
    if min(shape) > 50:
        assert height / width == pytest.approx(shape[0] / shape[1], rel=0.02)
    assert height > 600 or width > 900


def test_a_film_is_shown_as_it_is() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8).repeat(4), (1200, 1))
    drawn = page(flag(), ramp)
    row = drawn[HEIGHT // 2]
    shown = row[np.nonzero(row)[0].min() : np.nonzero(row)[0].max() + 1].astype(int)
    assert shown[-1] >= 253
    assert np.all(np.diff(shown) >= 0)
    assert abs(shown[len(shown) // 2] - 128) <= 2


def test_the_films_that_raised_the_study_are_shown_the_most_urgent_first() -> None:
    example = flag(film(1), film(2, reasons=[EFFUSION]), film(3, reasons=[EFFUSION, PNEUMOTHORAX]))
    assert [shown.instance.sop_uid[-1] for shown in films_of(example)] == ["3", "2"]
    drawn = page(example, grey(101), grey(102))
    places = [np.nonzero(drawn == value)[1].mean() for value in (101, 102)]
    assert places[0] < WIDTH / 2 < places[1]


def test_without_any_that_was_raised_those_that_were_read_are_shown() -> None:
    example = flag(film(1), film(2, not_analysed=NotAnalysed.LATERAL), film(3))
    assert [shown.instance.sop_uid[-1] for shown in films_of(example)] == ["1", "3"]


def test_of_many_films_four_are_shown_and_said_to_be(words: list[Word]) -> None:
    example = flag(*(film(n, reasons=[PNEUMOTHORAX, EFFUSION]) for n in range(1, 8)))
    assert len(films_of(example)) == MOST_FILMS
    drawn = page(example, *(grey(100 + n) for n in range(MOST_FILMS)))
    assert all(extent(drawn, 100 + n)[0] > 200 for n in range(MOST_FILMS))
    said = [word.text for word in words]
    assert said.count("Pneumothorax 0.91, Effusion 0.71") == MOST_FILMS
    assert "4 of the 7 raised films are shown." in said


def test_a_film_that_was_let_go_leaves_its_place_and_a_word(words: list[Word]) -> None:
    example = flag(film(1, reasons=[PNEUMOTHORAX]), film(2, reasons=[EFFUSION]))
    drawn = page(example, None, grey(99))
    assert [word.text for word in words].count(GONE) == 1
    assert extent(drawn, 99)[0] > 300
    page(flag(), None)
    assert words[-1].text == GONE


# Withdrawn


@pytest.mark.parametrize("why", Withdrawal)
def test_a_withdrawn_page_shows_no_film_and_gives_none_of_its_former_reasons(
    why: Withdrawal, words: list[Word]
) -> None:
    raised = flag(film(reasons=[PNEUMOTHORAX]), urgency=Urgency.ROUTINE, revision=2, predecessor=1)
    example = replace(raised, reasons=(), withdrawn=why)
    assert films_of(example) == []
    page(example)
    said = [word.text for word in words]
    assert said[0] == "WITHDRAWN"
    assert "neumothorax" not in " ".join(said)
    assert " ".join(said).count("hilum withdrew its flag, ") == 1


# Letters


def name(words: list[Word]) -> str:
    return words[3].text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Doe^Jane", "Doe, Jane"),
        ("Doe^Jane^Mary^Dr.^Jr.", "Doe, Jane Mary Dr. Jr."),
        ("Doe", "Doe"),
        ("^Jane", "Jane"),
        ("", "no patient name"),
        ("=山田^太郎", None),
        ("Müller^Jörg", "Müller, Jörg"),
        ("Люксембург^Анна", "Люксембург, Анна"),
    ],
)
def test_a_name_is_written_as_it_is_spoken_of(given: str, shown: str | None, words: list[Word]) -> None:
    page(named(given))
    assert name(words) == (shown or name(words))
    assert name(words)


def test_of_a_japanese_name_there_is_at_least_what_latin_letters_say(words: list[Word]) -> None:
    page(VALID["Japanese"])
    assert name(words) in {"Yamada, Tarou", "Yamada, Tarou (山田, 太郎)"}


def test_without_any_typeface_but_pillows_own_accents_go_and_the_rest_is_a_question_mark(
    monkeypatch: pytest.MonkeyPatch, words: list[Word]
) -> None:
    for faces in ("_REGULAR", "_BOLD"):
        monkeypatch.setattr(summary_page, faces, ("NoSuchTypeface.ttf",))
    page(named("Müller^Jörg", study_description="胸部正面"))
    assert name(words) == "Muller, Jorg"
    assert words[5].text == "Accession A-1  |  2025-01-02 10:15", "what cannot be written is left out"
    words.clear()
    page(named("Анна"))
    assert name(words) == "????"
    assert {word.font.getname()[0] for word in words} == {"Aileron"}
    words.clear()
    for example in EVERY.values():
        page(example)
    assert words


def test_what_never_fits_is_cut(words: list[Word]) -> None:
    page(LONG)
    assert name(words).startswith("NNNN")
    assert name(words).endswith("...")
