"""A model's card as a page shows it: its figures beside those of the live model, and for whom they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from schemas.card import ModelCard
from schemas.figures import Figure, figure_at, figure_in, of_output
from schemas.findings import LABELS

WIDTH: Final = 160  # of an interval's drawing
LEFT, RIGHT = 0.4, 1.0  # AUROC at its ends: what is below chance is drawn at the edge


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure's place in its drawing."""

    at: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputRow:
    """One output of a model, on its test films."""

    name: str
    auroc: Figure | None
    other: Figure | None  # the live model's
    drawn: Interval | None
    drawn_other: Interval | None
    sensitivity: Figure | None
    specificity: Figure | None
    threshold: float | None
    positives: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRow:
    """A subgroup of the test films."""

    name: str
    films: int
    auroc: Figure | None
    macro: Figure | None
    sensitivity: Figure | None
    specificity: Figure | None


def outputs(card: ModelCard, live: ModelCard | None) -> list[OutputRow]:
    """ "Any finding", the mean, and each of the 15 labels."""
    macro = figure_in(card.metrics, "macro_auroc")
    other = None if live is None else figure_in(live.metrics, "macro_auroc")
    mean = OutputRow(
        name="mean over the findings",
        auroc=macro,
        other=other,
        drawn=_place(macro),
        drawn_other=_place(other),
        sensitivity=None,
        specificity=None,
        threshold=None,
        positives=None,
    )
    return [_row(card, live, "binary"), mean, *(_row(card, live, label) for label in LABELS)]


def _row(card: ModelCard, live: ModelCard | None, output: str) -> OutputRow:
    auroc = of_output(card, output, "auroc")
    other = None if live is None else of_output(live, output, "auroc")
    positives = of_output(card, output, "positives")
    return OutputRow(
        name="any finding" if output == "binary" else output.replace("_", " ").lower(),
        auroc=auroc,
        other=other,
        drawn=_place(auroc),
        drawn_other=_place(other),
        sensitivity=of_output(card, output, "sensitivity"),
        specificity=of_output(card, output, "specificity"),
        threshold=card.thresholds.get(output),
        positives=None if positives is None else int(positives.value),
    )


def _place(figure: Figure | None) -> Interval | None:
    if figure is None:
        return None
    ends = (figure.value if figure.low is None else figure.low, figure.value if figure.high is None else figure.high)
    at, low, high = (
        round(WIDTH * (min(max(x, LEFT), RIGHT) - LEFT) / (RIGHT - LEFT), 1) for x in (figure.value, *ends)
    )
    return Interval(at, low, high)


def groups(card: ModelCard) -> list[GroupRow]:
    """For whom it was measured."""
    found: Any = card.metrics.get("test", {})
    table = found.get("subgroups") if isinstance(found, dict) else None
    if not isinstance(table, dict):
        return []
    rows = []
    for name, group in table.items():
        films = figure_at(group, "films")
        rows.append(
            GroupRow(
                name=str(name),
                films=0 if films is None else int(films.value),
                auroc=figure_at(group, "binary_auroc"),
                macro=figure_at(group, "macro_auroc"),
                sensitivity=figure_at(group, "sensitivity"),
                specificity=figure_at(group, "specificity"),
            )
        )
    return rows


def films(card: ModelCard) -> int | None:
    """Of the test set."""
    found = figure_in(card.metrics, "films")
    return None if found is None else int(found.value)
