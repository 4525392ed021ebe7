"""The last day, drawn: how long flags took, and how many films came. The server draws; no script is needed for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from worker.record.traffic import Hour

WIDTH, HEIGHT = 560, 190  # of a plot, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 12, 24
_HOURS: Final = 24
_STEPS: Final = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0)  # seconds between which times are drawn


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One percentile, hour by hour; hours without a flag leave a gap."""

    name: str
    segments: tuple[str, ...]  # points of polylines
    dots: tuple[tuple[float, float, str], ...]  # x, y, words


@dataclass(frozen=True, kw_only=True, slots=True)
class TimesPlot:
    """Time to flag on a logarithmic axis."""

    lines: tuple[Line, ...]
    heights: tuple[tuple[float, str], ...]  # y, words
    hours: tuple[tuple[float, str], ...]  # x, words
    told: str  # for whoever does not see it


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One hour: films that were read, on top of them those that were not, and the studies that were raised."""

    x: float
    width: float
    read_y: float
    read_height: float
    rest_y: float
    rest_height: float
    flagged_y: float | None  # None: none was raised
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmsPlot:
    """Films by the hour."""

    bars: tuple[Bar, ...]
    heights: tuple[tuple[float, str], ...]
    hours: tuple[tuple[float, str], ...]
    told: str


def seconds(value: float) -> str:
    """ "80 ms", "2.1 s", "4 min", "3.0 h"."""
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 3600 else f"{value / 3600:.1f} h"


def times_plot(begins: Sequence[datetime], named: Sequence[tuple[str, Sequence[float | None]]]) -> TimesPlot | None:
    """Percentiles by the hour; None where there was no flag at all."""
    known = [value for _, values in named for value in values if value is not None]
    if not known:
        return None
    low = max((step for step in _STEPS if step <= min(known)), default=_STEPS[0])
    high = min((step for step in _STEPS if step >= max(known) and step > low), default=_STEPS[-1])

    def y(value: float) -> float:
        share = math.log(min(max(value, low), high) / low) / math.log(high / low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    lines = []
    for name, values in named:
        dots = [
            (_x(number + 0.5), y(value), f"{begins[number]:%H:%M}: {name} {seconds(value)}")
            for number, value in enumerate(values)
            if value is not None
        ]
        lines.append(Line(name=name, segments=_segments(values, y), dots=tuple(dots)))
    last = {name: next((v for v in reversed(values) if v is not None), None) for name, values in named}
    told = ", ".join(f"{name} {seconds(value)}" for name, value in last.items() if value is not None)
    return TimesPlot(
        lines=tuple(lines),
        heights=tuple((y(step), seconds(step)) for step in _STEPS if low <= step <= high),
        hours=_hours(begins),
        told=f"Time to flag in the last {len(begins)} hours; in the latest hour with a flag {told}",
    )


def films_plot(hours: Sequence[Hour]) -> FilmsPlot | None:
    """Films by the hour; None where there were none."""
    most = max((hour.films for hour in hours), default=0)
    if not most:
        return None
    top = _round_up(most)

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - value / top * (HEIGHT - _TOP - _BOTTOM), 1)

    bars = []
    for number, hour in enumerate(hours):
        rest = hour.not_analysed + hour.failed
        bars.append(
            Bar(
                x=_x(number + 0.15),
                width=round(0.7 * (_x(1) - _x(0)), 1),
                read_y=y(hour.read),
                read_height=round(y(0) - y(hour.read), 1),
                rest_y=y(hour.films),
                rest_height=round(y(hour.read) - y(hour.films), 1),
                flagged_y=y(hour.flagged) if hour.flagged else None,
                words=f"{hour.begins_at:%H:%M}: {hour.read} read, {rest} not analysed, {hour.flagged} raised",
            )
        )
    total, raised = sum(hour.films for hour in hours), sum(hour.flagged for hour in hours)
    return FilmsPlot(
        bars=tuple(bars),
        heights=tuple((y(top * part / 4), f"{top * part / 4:g}") for part in range(0, 5, 2 if top < 4 else 1)),
        hours=_hours([hour.begins_at for hour in hours]),
        told=f"{total} films in the last {len(hours)} hours, {most} in the busiest; {raised} studies raised",
    )


def _x(hour: float) -> float:
    return round(_LEFT + hour / _HOURS * (WIDTH - _LEFT - _RIGHT), 1)


def _hours(begins: Sequence[datetime]) -> tuple[tuple[float, str], ...]:
    return tuple((_x(number), f"{at:%H:%M}") for number, at in enumerate(begins) if number % 4 == 0)


def _segments(values: Sequence[float | None], y: Callable[[float], float]) -> tuple[str, ...]:
    segments: list[list[str]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            segments.append([])
        else:
            segments[-1].append(f"{_x(number + 0.5)},{y(value)}")
    return tuple(" ".join(points) for points in segments if len(points) > 1)


def _round_up(most: int) -> int:
    """A round number of four equal parts, not below `most`."""
    power: int = 10 ** max(0, math.floor(math.log10(most)) - 1)
    return next(n * power for n in (1, 2, 4, 8, 12, 16, 20, 40, 60, 80, 100) if n * power >= most)
