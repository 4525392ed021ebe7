from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.card import Calibration
from schemas.findings import FINDINGS, LABELS
from training import pictures, report, whole_file
from training.calibrate import reliability
from training.evaluate import COLUMNS, Curves, Readings, compare, measure
from training.report import InService, gain, percent, share, signed, summary, verdict, write_report, wrongest

HOSTILE = "\"><script>alert(1)</script><img src=http://h.example/x onerror=alert(1)>{{ 7*7 }}{% raw %}'$x^2$\n&amp;"
CALIBRATION = {name: Calibration() for name in COLUMNS}
THRESHOLDS = dict.fromkeys(COLUMNS, 0.5)


def readings(films: int = 120, name: str = "{:08}_000.png") -> Readings:
    rng = np.random.default_rng(0)
    labels = (rng.random((films, len(FINDINGS))) < 0.08).astype(np.uint8)
    labels[:, 7] = 0  # nobody has a hernia: its curves cannot be drawn
    any_finding = labels.max(axis=1, keepdims=True)
    truth = np.concatenate([any_finding, labels, 1 - any_finding], axis=1)
    return Readings(
        names=np.array([name.format(i) for i in range(films)]),
        patients=np.arange(films) // 2,
        ages=rng.integers(18, 80, films),
        sexes=rng.choice(["F", "M"], films),
        views=rng.choice(["PA", "AP"], films),
        truth=truth,
        logits=(1.5 * truth + rng.normal(-0.7, 1.0, truth.shape)).astype(np.float32),
    )


FILMS = readings()
METRICS = measure(FILMS, CALIBRATION, THRESHOLDS, prevalence={"binary": 0.3}, rounds=30)
OTHER = InService(name="starter 0.1.0", metrics=METRICS, comparison=compare(FILMS, FILMS, rounds=20))


def picture(name: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    film = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    return film, np.eye(7, dtype=np.float32) + len(column)


def written(tmp_path: Path, **over: Any) -> str:
    path = tmp_path / "run" / "report.html"
    arguments: dict[str, Any] = {
        "metrics": METRICS,
        "readings": FILMS,
        "calibration": CALIBRATION,
        "thresholds": THRESHOLDS,
        "card": {
            "name": "mine",
            "version": "1.2.3",
            "limits": ("One hospital.",),
            "training": {"films": {"train": 10}},
        },
        "run": {"name": "mine", "loss": {"kind": "focal"}, "multilabel": [{"name": "a", "size": 96}]},
        "histories": {
            "multilabel": [
                ("96 px", [{"epoch": 1, "loss": 0.5, "auroc": 0.6}, {"epoch": 2, "loss": 0.4, "auroc": 0.7}])
            ],
            "binary": [("head", [{"epoch": 1, "loss": float("nan"), "auroc": None}])],
        },
        "in_service": OTHER,
    }
    write_report(path, **(arguments | over))
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Elements with their attributes, and the text between them."""

    VOID = frozenset({"meta", "img", "br", "link", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Mapping[str, str]]] = []
        self.text, self.open = "", []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words alone: fifty pictures take seconds."""
    nothing = {"roc": None, "precision_recall": None, "reliability": None}
    monkeypatch.setattr(report, "_pictures", lambda *_: dict.fromkeys(COLUMNS, nothing))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("report"))


def harmless(text: str) -> Page:
    """Nothing runs, nothing is fetched, every reference leads somewhere in the page."""
    page = Page(text)
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form"}
        assert not [key for key in attrs if key.startswith("on")], (tag, attrs)
        for key in ("src", "href", "xlink:href"):
            if key in attrs:
                target = attrs[key]
                assert target.startswith("data:image/jpeg;base64,") or target.removeprefix("#") in ids, (tag, target)
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target.removeprefix("#") in ids
    assert "@import" not in text
    return page


def test_the_page_needs_nothing_else_and_is_small(page: str) -> None:
    harmless(page)
    assert "default-src 'none'" in page
    assert len(page.encode()) < 1_500_000


def test_it_says_what_it_is_not(page: str) -> None:
    text = Page(page).text
    assert "Not a medical device" in text
    assert "not an all-clear" in text
    assert not re.search(r"\bnormal", page, re.I)


def test_every_part_is_there(page: str) -> None:
    text = Page(page).text
    for words in (
        *(label.replace("_", " ") for label in LABELS),
        *("Summary", "Against others", "Training loss", "Reliability", "For whom", "Model card", "One hospital."),
        *("CheXNet replica", "0.783", "72.2 %", "Student project", "starter 0.1.0", "focal"),
        *("female", "80 and over", "PA", "Cohen's kappa"),
        share(METRICS["binary"]["auroc"], 2).partition(" ")[0],
    ):
        assert words in text, words
    assert "nan" not in text.lower().replace("finance", "")
    assert "None" not in text


def test_pictures_speak(page: str) -> None:
    elements = Page(page).elements
    drawn = [attrs for tag, attrs in elements if tag == "svg"]
    assert len(drawn) == 4 + 3 * len(COLUMNS) - 2  # histories of two tasks; a hernia has no ROC, no precision
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawn)
    assert all(attrs.get("alt") for tag, attrs in elements if tag == "img")
    assert "width" not in drawn[0]  # as wide as its place


def test_without_films_no_film_and_no_name(page: str) -> None:
    assert "data:image" not in page
    assert not [name for name in FILMS.names.tolist() if name.removesuffix(".png") in page]


@pytest.mark.usefixtures("undrawn")
def test_films_with_their_maps(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def shown(name: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        asked.append((name, column))
        return picture(name, column)

    text = written(tmp_path, films=True, picture=shown)
    page = harmless(text)
    sheet = wrongest(FILMS, CALIBRATION, THRESHOLDS)
    assert asked == [(wrong.name, wrong.column) for wrongs in sheet.values() for wrong in wrongs]
    images = [attrs["src"] for tag, attrs in page.elements if tag == "img"]
    assert len(images) == 2 * len(asked)
    film, overlaid = (Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in images[:2])
    assert film.mode == "L"
    assert overlaid.mode == "RGB"
    assert "must not leave the hospital" in page.text


@pytest.mark.usefixtures("undrawn")
def test_films_are_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="picture"):
        written(tmp_path, films=True)
    bad = (np.zeros((8, 8), np.float32), np.zeros((7, 7)))
    with pytest.raises(ValueError, match="uint8"):
        written(tmp_path, films=True, picture=lambda *_: bad)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undrawn")
def test_names_from_outside_are_letters(tmp_path: Path) -> None:
    hostile = readings(name=HOSTILE.replace("{", "{{").replace("}", "}}") + "{}")
    text = written(
        tmp_path,
        readings=hostile,
        card={
            "name": HOSTILE,
            "version": HOSTILE,
            "limits": [HOSTILE],
            "provenance": HOSTILE,
            "training": {HOSTILE: HOSTILE},
        },
        run={HOSTILE: HOSTILE, "loss": {HOSTILE: [HOSTILE]}, "stages" + HOSTILE: [{HOSTILE: HOSTILE}]},
        histories={HOSTILE: [(HOSTILE, [{"loss": HOSTILE, "auroc": 0.5}])]},
        in_service=InService(name=HOSTILE, metrics=METRICS, comparison=OTHER.comparison),
        films=True,
        picture=picture,
    )
    page = harmless(text)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text


def test_the_same_run_gives_the_same_page(page: str, tmp_path: Path) -> None:
    assert written(tmp_path) == page


def test_what_cannot_be_told_is_a_dash(tmp_path: Path) -> None:
    """Six films of one kind, no histories, nothing in service, an empty card."""
    truth = np.zeros((6, 16), np.uint8)
    truth[:, 15] = 1
    few = Readings(
        **{name: getattr(FILMS, name)[:6] for name in ("names", "patients", "ages", "sexes", "views", "logits")},
        truth=truth,
    )
    metrics = measure(few, CALIBRATION, THRESHOLDS, rounds=10)
    text = written(tmp_path, readings=few, metrics=metrics, card={}, run={}, histories={}, in_service=None)
    page = harmless(text)
    assert "cannot be told" in page.text
    assert "nan" not in page.text.lower()
    assert "None" not in page.text


@pytest.mark.usefixtures("undrawn")
def test_an_older_card_in_service_is_read(tmp_path: Path) -> None:
    old = {
        "films": 777,
        "macro_auroc": {"value": 0.63, "low": 0.6, "high": 0.66},
        "binary": {"auroc": {"value": 0.58, "low": 0.52, "high": 0.64}},
    }
    text = Page(written(tmp_path, in_service=InService(name="old", metrics=old))).text
    assert "0.580" in text
    assert "from its card" in text


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole_file.os, "fsync", full)
    with pytest.raises(whole_file.Unwritten, match=r"report\.html.*No space left"):
        written(tmp_path, run={})
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") == before
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["report.html"]


# the most confidently wrong


def test_wrongest_are_wrong_and_in_order() -> None:
    sheet = wrongest(FILMS, CALIBRATION, THRESHOLDS, count=5)
    taken = [wrong.film for wrongs in sheet.values() for wrong in wrongs]
    assert len(taken) == len(set(taken))
    for kind, wrongs in sheet.items():
        assert 0 < len(wrongs) <= 5
        for wrong in wrongs:
            k = COLUMNS.index(wrong.column)
            assert wrong.present == bool(FILMS.truth[wrong.film, k]) == ("missed" in kind)
            assert (wrong.probability >= wrong.threshold) != wrong.present
            assert (wrong.column == "binary") == kind.startswith("binary")
        if kind.startswith("finding"):
            assert len({wrong.column for wrong in wrongs}) == len(wrongs)
            assert "No Finding" not in {wrong.column for wrong in wrongs}
    raised = [wrong.probability for wrong in sheet["binary raised"]]
    assert raised == sorted(raised, reverse=True)
    p = 1 / (1 + np.exp(-FILMS.logits[:, 0].astype(float)))
    assert raised[0] == pytest.approx(p[FILMS.truth[:, 0] == 0].max())
    missed = [wrong.probability for wrong in sheet["binary missed"]]
    assert missed == sorted(missed)


def test_nothing_wrong_is_an_empty_sheet() -> None:
    right = Readings(
        **{name: getattr(FILMS, name) for name in ("names", "patients", "ages", "sexes", "views", "truth")},
        logits=(FILMS.truth * 10.0 - 5.0).astype(np.float32),
    )
    assert not any(wrongest(right, CALIBRATION, THRESHOLDS).values())


# words


def test_figures_as_a_person_writes_them() -> None:
    figure = {"value": 0.786, "low": 0.759, "high": 0.809}
    assert share(figure) == "0.786 (0.759–0.809)"
    assert percent(figure) == "79 % (76–81)"
    assert signed({"value": 0.05, "low": -0.01, "high": 0.11}) == "+0.050 (−0.010 to +0.110)"
    assert gain({"value": -0.02, "low": None, "high": None}) == "−2 points"
    for write in (share, percent, signed, gain):
        assert write({"value": None, "low": None, "high": None}) == "–"


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "better by 0.030"),
        (-0.05, -0.01, "worse by 0.030"),
        (-0.01, 0.05, "no difference"),
        (None, None, "cannot"),
    ],
)
def test_only_an_interval_without_zero_is_a_verdict(low: float | None, high: float | None, words: str) -> None:
    value = None if low is None or high is None else (low + high) / 2
    assert words in verdict({"value": value, "low": low, "high": high})


def test_the_summary_counts_false_alarms() -> None:
    text = " ".join(summary(METRICS))
    specificity = METRICS["binary"]["specificity"]["value"]
    assert f"it flags {100 * (1 - specificity):.0f} (" in text


# pictures


def test_a_map_covers_where_it_is_high_and_never_more_than_half() -> None:
    film = np.zeros((70, 70), np.uint8)
    heat = np.zeros((7, 7), np.float32)
    heat[0, 0] = 3.0
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures.overlaid(film, heat).partition(",")[2]))), int)
    assert pixels[2, 2].max() > 60
    assert pixels.max() <= 0.5 * 255 + 8
    assert pixels[40:, 40:].max() < 8
    flat = pictures.overlaid(film, np.full((7, 7), 2.0, np.float32))
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(flat.partition(",")[2])))).max() < 8


def test_a_large_film_is_made_small() -> None:
    uri = pictures.jpeg(np.zeros((900, 1800), np.uint8))
    assert Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).size == (320, 160)


def test_a_picture_takes_the_pages_colours_and_escapes_its_words() -> None:
    line = np.array([0.0, 1.0])
    bins = reliability(line, line)
    curves = Curves(alarms=line, hits=line, recall=line, precision=line, before=bins, after=bins)
    text = pictures.roc(curves, HOSTILE, point=(0.2, 0.6))
    assert "var(--accent)" in text
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]", text)
    assert "<script" not in text
    assert "http" not in text.replace("src=http://h.example", "")


PALETTES = re.findall(r":root \{(.*?)\}", (resources.files("training") / "report.html").read_text(), re.S)


@pytest.mark.parametrize("palette", PALETTES, ids=["dark", "light", "paper"])
def test_contrast_is_enough(palette: str) -> None:
    """WCAG 2.2, 1.4.3: letters 4.5 : 1; the curves too, for small ones are hard to see."""
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", palette))

    def luminance(name: str) -> float:
        digits = colours[name].removeprefix("#")
        digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
        channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    pairs = [(ink, ground) for ink in ("text", "quiet", "accent", "second") for ground in ("ground", "raised")]
    for ink, ground in [*pairs, ("warn", "warn-ground")]:
        light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)
