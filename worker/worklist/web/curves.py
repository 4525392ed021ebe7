"""How a training run goes, drawn: loss and AUROC by epoch. The server draws, so that a page needs no script for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from schemas.training_run import Curve

WIDTH, HEIGHT = 480, 168  # of a chart, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 26
_WORDS: Final = {"loss": "loss", "auroc": "AUROC on validation films"}
_LETTER: Final = 7  # width of one in a stage's name, with room to spare
_TICKS: Final = 5  # spaces between lines, about


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One figure of one model, epoch by epoch."""

    task: str
    figure: str  # in words
    told: str  # for whoever does not see it
    line: str  # points of a polyline
    dots: tuple[tuple[float, float], ...]
    heights: tuple[tuple[float, str], ...]  # y, words
    epochs: tuple[tuple[float, str], ...]  # x, words
    stages: tuple[tuple[float, str], ...]  # x at which each begins, name
    wide: int = WIDTH
    high: int = HEIGHT


def charts(curves: Sequence[Curve], planned: Sequence[tuple[str, str, int]]) -> list[Chart]:
    """Two charts for each model that has come to the end of an epoch.

    Parameters
    ----------
    planned:
        Task, stage and epochs, in order: how wide a chart is, so that its line grows into it.
    """
    found = []
    for task in dict.fromkeys(curve.task for curve in curves):
        own = [curve for curve in curves if curve.task == task]
        wide = max(sum(epochs for t, _, epochs in planned if t == task), sum(len(curve.epochs) for curve in own), 1)
        found += [chart for name in _WORDS if (chart := _chart(task, name, own, wide)) is not None]
    return found


def _chart(task: str, name: str, curves: Sequence[Curve], wide: int) -> Chart | None:
    points: list[tuple[int, float]] = []
    begins: list[tuple[int, str]] = []
    epoch = 0
    for curve in curves:
        begins.append((epoch, curve.stage))
        for number, figures in enumerate(curve.epochs, 1):
            value = figures.get(name)
            if isinstance(value, int | float):
                points.append((epoch + number, float(value)))
        epoch += len(curve.epochs)
    if not points:
        return None
    values = [value for _, value in points]
    low, high = (min(values), max(values)) if name == "loss" else (min(0.5, *values), 1.0)
    lines = _between(low, high)

    def x(at: float) -> float:
        return round(_LEFT + at / wide * (WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(_TOP + (lines[-1] - value) / (lines[-1] - lines[0]) * (HEIGHT - _TOP - _BOTTOM), 1)

    stages = zip(begins, [*(at for at, _ in begins[1:]), wide], strict=True)
    dots = tuple((x(at), y(value)) for at, value in points)
    every = max(1, math.ceil(wide / 10))
    last = points[-1]
    digits = max(2, -math.floor(math.log10(lines[1] - lines[0]))) if lines[1] - lines[0] < 0.1 else 2
    return Chart(
        task=task,
        figure=_WORDS[name],
        told=f"{_WORDS[name]} of the {task} model: {points[0][1]:.3f} after epoch {points[0][0]}, "
        f"{last[1]:.3f} after epoch {last[0]} of {wide}",
        line=" ".join(f"{a},{b}" for a, b in dots),
        dots=dots,
        heights=tuple((y(value), f"{value:.{digits}f}") for value in lines),
        epochs=tuple((x(at), str(at)) for at in range(every, wide + 1, every)),
        stages=tuple((x(at), stage if len(stage) * _LETTER < x(end) - x(at) else "") for (at, stage), end in stages),
    )


def _between(low: float, high: float) -> list[float]:
    """Round numbers from below `low` to above `high`."""
    if high <= low:
        low, high = low - 0.05 * max(abs(low), 1.0), high + 0.05 * max(abs(high), 1.0)
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power * _TICKS >= span * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]
