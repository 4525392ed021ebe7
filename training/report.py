"""The report of a run: one HTML page that needs nothing but a browser.

No network, no script, no other file: pictures are inline, colours follow the scheme of who reads, and it prints. The
page is `report.html` beside this module; Jinja escapes whatever comes from outside. Without films (the default) it
holds no film, no film's name and no figure of a single patient, so that it may leave the hospital.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from schemas.card import Calibration
from schemas.findings import FINDINGS, LABELS, Label
from training import pictures
from training.evaluate import COLUMNS, Curves, Readings, curves, probabilities_of
from training.whole_file import write_whole

Epochs: TypeAlias = Sequence[Mapping[str, Any]]
Histories: TypeAlias = Mapping[str, Sequence[tuple[str, Epochs]]]  # task → its stages in order, each with its epochs
Picture: TypeAlias = Callable[[str, str], tuple[NDArray[np.uint8], NDArray[np.floating]]]

Told: TypeAlias = Mapping[str, float | None] | float | None  # a figure with its interval, a number, or nothing

DISCLAIMER: Final = (
    "Not a medical device; nothing here was cleared by anybody. The absence of a flag is not an all-clear: a "
    "radiologist reads every film."
)
UNTOLD: Final = "–"
_FIGURE: Final = ("value", "low", "high")

_GROUPS: Final = (
    ("Sex", (("F", "female"), ("M", "male"))),
    (
        "Age",
        (
            ("<18", "under 18"),
            ("18-39", "18 to 39"),
            ("40-59", "40 to 59"),
            ("60-79", "60 to 79"),
            ("80+", "80 and over"),
        ),
    ),
    ("View", (("PA", "PA"), ("AP", "AP"))),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class InService:
    """The bundle that is served today.

    Parameters
    ----------
    name:
        As a person knows it.
    metrics:
        What `evaluate.measure` said of it, or an older card's `metrics["test"]`.
    comparison:
        `evaluate.compare(new, this)` on the same films; None where it was not read on them.
    """

    name: str
    metrics: Mapping[str, Any]
    comparison: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wrong:
    """A film on the wrong side of an output's threshold."""

    film: int  # row of the readings
    name: str
    column: str
    present: bool  # the label says so; then the film was missed, else falsely flagged
    probability: float
    threshold: float


def wrongest(
    readings: Readings, calibration: Mapping[str, Calibration], thresholds: Mapping[str, float], *, count: int = 6
) -> dict[str, tuple[Wrong, ...]]:
    """The most confidently wrong films: at most `count` of each kind, the worst first, no film twice.

    Confidence is the distance from the threshold in log odds, so that rare and frequent findings can be compared. A
    finding contributes one film to a kind, so that one weak finding does not fill the sheet.

    Returns
    -------
    "binary raised", "binary missed", "finding raised", "finding missed" → films.
    """
    p = probabilities_of(readings, calibration).clip(1e-12, 1.0 - 1e-12)
    cuts = np.array([thresholds[name] for name in COLUMNS])
    t = cuts.clip(1e-12, 1.0 - 1e-12)
    distance = np.log(p / (1.0 - p)) - np.log(t / (1.0 - t))
    truth = readings.truth > 0
    above = p >= cuts
    taken: set[int] = set()
    sheet: dict[str, tuple[Wrong, ...]] = {}
    findings = list(range(1, 1 + len(FINDINGS)))
    for task, columns, each in (("binary", [0], count), ("finding", findings, 1)):
        for kind, wrong, far in (("raised", ~truth & above, distance), ("missed", truth & ~above, -distance)):
            candidates = np.argwhere(wrong[:, columns])
            order = np.argsort(-far[:, columns][wrong[:, columns]], kind="stable")
            found: list[Wrong] = []
            used = dict.fromkeys(columns, 0)
            for film, k in candidates[order].tolist():
                column = columns[k]
                if film not in taken and used[column] < each and len(found) < count:
                    taken.add(film)
                    used[column] += 1
                    found.append(
                        Wrong(
                            film=film,
                            name=str(readings.names[film]),
                            column=COLUMNS[column],
                            present=bool(truth[film, column]),
                            probability=float(p[film, column]),
                            threshold=float(cuts[column]),
                        )
                    )
            sheet[f"{task} {kind}"] = tuple(found)
    return sheet


def write_report(
    path: Path,
    *,
    metrics: Mapping[str, Any],
    readings: Readings,
    calibration: Mapping[str, Calibration],
    thresholds: Mapping[str, float],
    card: Mapping[str, Any],
    run: Mapping[str, Any],
    histories: Histories,
    in_service: InService | None = None,
    films: bool = False,
    picture: Picture | None = None,
) -> None:
    """Write the page; all of it or nothing.

    Parameters
    ----------
    metrics:
        What `evaluate.measure` said of `readings` with this calibration and these thresholds.
    card:
        Fields of a `ModelCard`, as many as are known: name, version, architecture, input_size, intended_use, limits,
        licence, provenance, split_hash, recipe_fingerprint, training.
    run:
        The run's description, as `Run.model_dump` gives it.
    histories:
        "multilabel" and "binary", as many as were trained; of an epoch "loss" and "auroc" are drawn.
    films:
        Show the most confidently wrong films, with their names. Such a page must not leave the hospital.
    picture:
        For them, (name, column) → film uint8 (H, W) and activation map float (h, w) of that column.

    Raises
    ------
    Unwritten
        The page cannot be written there.
    ValueError
        Films are asked for and `picture` is missing, or gives something else.
    """
    if films and picture is None:
        raise ValueError("films=True needs picture=")
    drawn = curves(readings, calibration)
    sheet = _sheet(readings, wrongest(readings, calibration, thresholds), picture) if films and picture else None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "share": share,
        "percent": percent,
        "gain": gain,
        "signed": signed,
        "stacked": stacked,
        "words": words,
        "bar": bar,
        "plain": plain,
    }
    template = (resources.files("training") / "report.html").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        card=card,
        run={key: value for key, value in run.items() if not _is_table(value)},
        stages={key: value for key, value in run.items() if _is_table(value)},
        metrics=metrics,
        binary=metrics["binary"],
        findings=_ranked(metrics["findings"]),
        summary=summary(metrics, in_service, unseen=card.get("training", {}).get("unseen", True)),
        references=_references(card, metrics, in_service),
        in_service=in_service,
        histories=_histories(histories),
        pictures=_pictures(drawn, metrics),
        groups=_GROUPS,
        sheet=sheet,
        disclaimer=DISCLAIMER,
    )
    write_whole(path, page)


def summary(metrics: Mapping[str, Any], in_service: InService | None = None, *, unseen: bool = True) -> list[str]:
    """What the figures mean, in a few plain sentences; `unseen`: no weight comes from where test patients may be."""
    binary = metrics["binary"]
    whom = "whom neither model has seen" if unseen else "whom a model may have seen (its weights come from elsewhere)"
    told = [
        f"Measured on {_many(metrics['films'], 'film')} of {_many(metrics['patients'], 'patient')} {whom}; "
        f"{_many(binary['positives'], 'film')} carry at least one finding. In brackets: 95 % intervals."
    ]
    if binary["sensitivity"]["value"] is not None and binary["specificity"]["value"] is not None:
        false_alarms = _turned(binary["specificity"])
        told.append(
            f"Of 100 films with a finding, the binary model flags {_of_100(binary['sensitivity'])}. Of 100 films "
            f"without a labelled finding, it flags {_of_100(false_alarms)} too."
        )
    if binary["auroc"]["value"] is not None:
        told.append(
            "Shown one film with a finding and one without, it gives the former the higher score in "
            f"{_of_100(binary['auroc'])} of 100 such pairs (AUROC; chance: 50)."
        )
    ranked = [(label, m["auroc"]) for label, m in _ranked(metrics["findings"]) if label != Label.NO_FINDING]
    known = [(label, figure) for label, figure in ranked if figure["value"] is not None]
    if len(known) > 1:
        (best, high), (worst, low) = known[0], known[-1]
        told.append(
            f"Of the findings it tells {words(best).lower()} best (AUROC {high['value']:.2f}) and "
            f"{words(worst).lower()} least ({low['value']:.2f})."
        )
        unsure = [words(label).lower() for label, figure in known if (figure["low"] or 0.0) <= 0.5]
        if unsure:
            told.append(f"Not shown to be better than chance: {', '.join(unsure)}.")
    if in_service is not None and in_service.comparison is not None:
        told.append(
            f"Against the bundle in service, {in_service.name}, on the same films: binary AUROC "
            f"{verdict(in_service.comparison['binary_auroc']['difference'])}, macro AUROC "
            f"{verdict(in_service.comparison['macro_auroc']['difference'])}."
        )
    return told


def verdict(difference: Mapping[str, float | None]) -> str:
    """A paired difference in words; only an interval that leaves out zero is called better or worse."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return "cannot be compared"
    if low > 0 or high < 0:
        return f"{'better' if low > 0 else 'worse'} by {abs(difference['value'] or 0.0):.3f}"
    return "no difference that these patients can show"


def share(figure: Told, digits: int = 3) -> str:
    """0.786 (0.759–0.809)."""
    return _told(figure, lambda value: f"{value:.{digits}f}")


def percent(figure: Told) -> str:
    """79 % (76–81)."""
    return _told(figure, lambda value: f"{100 * value:.0f}", unit=" %")


def signed(figure: Told) -> str:
    """+0.058 (+0.041 to +0.078)."""
    return _told(figure, lambda value: f"{value:+.3f}".replace("-", "−"), between=" to ")


def gain(figure: Told) -> str:
    """+15 points (+11 to +18)."""
    return _told(figure, lambda value: f"{100 * value:+.0f}".replace("-", "−"), unit=" points", between=" to ")


def stacked(told: str) -> Markup:
    """A figure as written above, its interval below it; a screen reader hears of what cannot be told."""
    if told == UNTOLD:
        return Markup('<span aria-hidden="true">–</span><span class="unseen">cannot be told</span>')
    value, _, between = told.partition(" (")
    return Markup("{}<small>{}</small>").format(value, between.removesuffix(")"))


def words(label: str) -> str:
    """NIH's spelling without its underscore."""
    return label.replace("_", " ")


def plain(value: Any) -> str:
    """A value of a description as a person writes it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{words(str(key))}: {plain(item)}" for key, item in value.items()) or UNTOLD
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or UNTOLD
    if isinstance(value, bool):
        return "yes" if value else "no"
    return UNTOLD if value is None or value == "" else str(value)


def bar(figure: Mapping[str, float | None], low: float = 0.4, high: float = 1.0, mark: float | None = 0.5) -> Markup:
    """Value and interval as a dot on a line from `low` to `high`; the table beside it says the same in numbers."""

    def at(value: float) -> float:
        return round(100.0 * min(1.0, max(0.0, (value - low) / (high - low))), 1)

    parts = [f'<i class="mark" style="left:{at(mark)}%"></i>' if mark is not None else ""]
    first, value, last = (figure[key] for key in ("low", "value", "high"))
    if first is not None and last is not None:
        parts.append(f'<i class="range" style="left:{at(first)}%;width:{round(at(last) - at(first), 1)}%"></i>')
    if value is not None:
        parts.append(f'<i class="dot" style="left:{at(value)}%"></i>')
    return Markup(f'<span class="bar" aria-hidden="true">{"".join(parts)}</span>')  # noqa: S704 - numbers alone


def _told(figure: Told, write: Callable[[float], str], *, unit: str = "", between: str = "–") -> str:
    value, low, high = (figure[k] for k in _FIGURE) if isinstance(figure, Mapping) else (figure, None, None)
    if value is None:
        return UNTOLD
    interval = "" if low is None or high is None else f" ({write(low)}{between}{write(high)})"
    return f"{write(value)}{unit}{interval}"


def _of_100(figure: Mapping[str, float | None]) -> str:
    return _told(figure, lambda value: f"{100 * value:.0f}", between=" to ")


def _turned(figure: Mapping[str, float | None]) -> dict[str, float | None]:
    value, low, high = (None if figure[k] is None else 1.0 - (figure[k] or 0.0) for k in ("value", "high", "low"))
    return {"value": value, "low": low, "high": high}


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _ranked(findings: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """By AUROC, the best first; what cannot be told next, "No Finding" last."""

    def place(item: tuple[str, Mapping[str, Any]]) -> tuple[bool, float, int]:
        label, m = item
        value = m["auroc"]["value"]
        return label == Label.NO_FINDING, 1.0 if value is None else -value, LABELS.index(Label(label))

    return sorted(findings.items(), key=place)


def _is_table(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _references(
    card: Mapping[str, Any], metrics: Mapping[str, Any], in_service: InService | None
) -> list[dict[str, str]]:
    """Rows of the table: ours, what is in service, and what others have published."""

    def row(name: str, note: str, m: Mapping[str, Any]) -> dict[str, str]:
        recall = m["binary"].get("accuracy_at_recall_50")
        return {
            "name": name,
            "note": note,
            "films": f"{m['films']:,}",
            "auroc": share(m["binary"]["auroc"]),
            "accuracy": percent(recall["accuracy"]) if recall else UNTOLD,
            "gain": gain(recall["gain"]) if recall else UNTOLD,
            "macro": share(m["macro_auroc"]),
        }

    rows = [row(f"{card.get('name', 'this run')} {card.get('version', '')}".strip(), "this run", metrics)]
    if in_service is not None:
        served = row(in_service.name, "in service; from its card, its own test films", in_service.metrics)
        if (pair := in_service.comparison) is not None:
            if pair["films"] != in_service.metrics["films"]:
                served |= {"accuracy": UNTOLD, "gain": UNTOLD}
            served |= {
                "note": "in service; the same films",
                "films": f"{pair['films']:,}",
                "auroc": share(pair["binary_auroc"]["other"]),
                "macro": share(pair["macro_auroc"]["other"]),
            }
        rows.append(served)
    return [*rows, *_PUBLISHED]


_PUBLISHED: Final = [
    {
        "name": "Student project",
        "note": "public; DenseNet121, 224 px, Keras, random weights",
        "films": UNTOLD,
        "auroc": UNTOLD,
        "accuracy": "70 %",
        "gain": "+10 points",
        "macro": "58 % accuracy, as always saying “No Finding”",
    },
    {
        "name": "Student project",
        "note": "the same, ImageNet layers frozen",
        "films": UNTOLD,
        "auroc": UNTOLD,
        "accuracy": "67 %",
        "gain": UNTOLD,
        "macro": "none better than the majority",
    },
    {
        "name": "CheXNet replica",
        "note": "reproduce-chexnet; all of NIH, ImageNet weights",
        "films": "22,433",
        "auroc": "0.783",
        "accuracy": "at most 72.2 % at any recall",
        "gain": UNTOLD,
        "macro": "0.84",
    },
]


def _histories(histories: Histories) -> list[dict[str, Any]]:
    drawn = []
    for task, stages in histories.items():
        told = [(str(name), list(epochs)) for name, epochs in stages if epochs]
        if not told:
            continue
        last = told[-1][1][-1]
        drawn.append(
            {
                "task": task,
                "epochs": sum(len(epochs) for _, epochs in told),
                "stages": [name for name, _ in told],
                "last": {key: last.get(key) for key in ("loss", "auroc")},
                "loss": Markup(pictures.history(told, "loss", "training loss", f"{task}: training loss by epoch")),  # noqa: S704
                "auroc": Markup(  # noqa: S704
                    pictures.history(told, "auroc", "AUROC", f"{task}: AUROC on validation films by epoch")
                ),
            }
        )
    return drawn


def _pictures(drawn: Mapping[str, Curves], metrics: Mapping[str, Any]) -> dict[str, dict[str, Markup | None]]:
    """Of each output: ROC, precision-recall and reliability; None where a kind of film is missing."""
    told: dict[str, dict[str, Markup | None]] = {}
    for name in COLUMNS:
        m = metrics["binary"] if name == "binary" else metrics["findings"][name]
        small, what = name != "binary", words(name).capitalize()
        entry: dict[str, Markup | None] = dict.fromkeys(("roc", "precision_recall"))
        if len(drawn[name].hits):
            point = (1.0 - m["specificity"]["value"], m["sensitivity"]["value"])
            area, precision = share(m["auroc"]), share(m["average_precision"])
            entry["roc"] = _inline(
                pictures.roc(drawn[name], f"{what}: ROC curve, area {area}", point=point, small=small)
            )
            alt = f"{what}: precision against recall, average precision {precision}, chance {m['prevalence']:.3f}"
            entry["precision_recall"] = _inline(
                pictures.precision_recall(drawn[name], alt, prevalence=m["prevalence"], small=small)
            )
        error = m["calibration_error"]
        alt = f"{what}: reliability; calibration error {error['before']:.3f} before, {error['after']:.3f} after"
        entry["reliability"] = _inline(pictures.reliability(drawn[name].before, drawn[name].after, alt, small=small))
        told[name] = entry
    return told


def _inline(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 - `training.pictures` has escaped what stands in it


_KINDS: Final = {
    "binary raised": "Flagged by the binary model, no finding labelled",
    "binary missed": "Not flagged by the binary model, a finding labelled",
    "finding raised": "A finding claimed that is not labelled",
    "finding missed": "A labelled finding not claimed",
}


def _sheet(
    readings: Readings, sheet: Mapping[str, Sequence[Wrong]], picture: Picture
) -> list[tuple[str, list[dict[str, Any]]]]:
    told = []
    for kind, wrongs in sheet.items():
        entries = []
        for wrong in wrongs:
            film, heat = picture(wrong.name, wrong.column)
            if film.ndim != 2 or film.dtype != np.uint8 or heat.ndim != 2 or not np.isfinite(heat).all():
                raise ValueError(f"{wrong.name}: a film is uint8 (H, W) and its map finite (h, w)")
            labels = [words(label) for k, label in enumerate(LABELS, start=1) if readings.truth[wrong.film, k]]
            entries.append(
                {
                    "name": wrong.name,
                    "output": words(wrong.column),
                    "probability": wrong.probability,
                    "threshold": wrong.threshold,
                    "labels": ", ".join(labels) or "none",
                    "film": pictures.jpeg(film),
                    "map": pictures.overlaid(film, heat),
                }
            )
        told.append((_KINDS[kind], entries))
    return told
