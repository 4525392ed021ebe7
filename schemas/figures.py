"""Measured figures as a card carries them: a value and its 95 % interval, None where it could not be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.card import ModelCard


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One measure on the test films."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        """`{"value", "low", "high"}`, as a card has it."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def figure_in(metrics: Mapping[str, Any], *path: str) -> Figure | None:
    """The figure at `path` of a card's metrics on the test films; None where an older card has none."""
    return figure_at(metrics.get("test", metrics), *path)


def figure_at(at: Any, *path: str) -> Figure | None:
    """The figure at `path` of whatever part of a card."""
    for key in path:
        at = at.get(key) if isinstance(at, Mapping) else None
    if isinstance(at, Mapping):
        value, low, high = (_number(at.get(key)) for key in ("value", "low", "high"))
    else:
        value, low, high = _number(at), None, None
    return None if value is None else Figure(value=value, low=low, high=high)


def macro_auroc(card: ModelCard) -> Figure | None:
    """Mean AUROC over the findings, of the multilabel model."""
    return figure_in(card.metrics, "macro_auroc")


def binary_auroc(card: ModelCard) -> Figure | None:
    """AUROC of the binary model."""
    return figure_in(card.metrics, "binary", "auroc")


def of_output(card: ModelCard, output: str, measure: str) -> Figure | None:
    """A measure ("auroc", "sensitivity", "specificity", ...) of "binary" or of a label."""
    where = ("binary",) if output == "binary" else ("findings", output)
    return figure_in(card.metrics, *where, measure)


def _number(raw: object) -> float | None:
    return float(raw) if isinstance(raw, int | float) and not isinstance(raw, bool) else None
