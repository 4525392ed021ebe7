"""Figures in Prometheus' text format (0.0.4): a name, what it is, and its values by label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPED: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Gauge:
    """Something that goes up and down. Each value has its labels."""

    name: str
    words: str
    values: tuple[tuple[Mapping[str, str], float], ...]


def gauge(name: str, words: str, value: float | None = None) -> Gauge:
    """One without labels; without a value too where that is not known."""
    return Gauge(name, words, () if value is None else (({}, value),))


def render(gauges: Iterable[Gauge]) -> str:
    """The page that Prometheus asks for. What has no value is left out."""
    lines: list[str] = []
    for found in gauges:
        if not found.values:
            continue
        lines += [f"# HELP {found.name} {found.words}", f"# TYPE {found.name} gauge"]
        for labels, value in found.values:
            inside = ",".join(f'{key}="{text.translate(_ESCAPED)}"' for key, text in labels.items())
            lines.append(f"{found.name}{{{inside}}} {value!r}" if inside else f"{found.name} {value!r}")
    return "\n".join(lines) + "\n"
