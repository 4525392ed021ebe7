"""The pictures of a report: curves as SVG that takes the page's colours and letters, films as JPEG. All of it inline.

Matplotlib draws through its object API: no pyplot, no global state, no display. Colours are placeholders that become
CSS variables, so that one picture serves a dark page, a light page and paper.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray
from PIL import Image

from training.calibrate import Reliability
from training.evaluate import Curves

# Placeholder → CSS variable of the page.
INK, QUIET, LINE, MINE, OTHER = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES: Final = {INK: "--text", QUIET: "--quiet", LINE: "--line", MINE: "--accent", OTHER: "--second"}
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # letters stay letters: small, searchable, in the page's font
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.solid_capstyle": "round",
}
SHARES: Final = (0.0, 0.5, 1.0)
SIDE: Final = 320  # pixels, of a film in the report

Epochs = Sequence[Mapping[str, Any]]


def roc(curves: Curves, alt: str, *, point: tuple[float, float] | None = None, small: bool = False) -> str:
    """Sensitivity against 1 - specificity; `point` is (1 - specificity, sensitivity) at the operating point."""
    drawing, axes = _square(small)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.plot(curves.alarms, curves.hits, color=MINE, linewidth=1.3 if small else 1.8)
    if point is not None and np.isfinite(point).all():
        axes.plot(*point, "o", color=OTHER, markersize=4 if small else 6)
    _label(axes, "1 − specificity", "sensitivity", small)
    return _svg(drawing, alt)


def precision_recall(curves: Curves, alt: str, *, prevalence: float, small: bool = False) -> str:
    """Precision (PPV) against recall (sensitivity), over the share of positives: what chance reaches."""
    drawing, axes = _square(small)
    axes.axhline(prevalence, color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.plot(curves.recall, curves.precision, color=MINE, linewidth=1.3 if small else 1.8)
    _label(axes, "recall", "precision", small)
    return _svg(drawing, alt)


def reliability(before: Reliability, after: Reliability, alt: str, *, small: bool = False) -> str:
    """Share of positives against mean probability, before and after calibration; rare findings get a closer look."""
    drawing, axes = _square(small)
    largest = max(x.max() for x in (before.predicted, before.observed, after.predicted, after.observed))
    top = next(t for t in (0.1, 0.2, 0.5, 1.0) if largest <= t or t == 1.0)
    axes.set(xlim=(0, top), ylim=(0, top), xticks=(0, top / 2, top), yticks=(0, top / 2, top))
    axes.plot([0, top], [0, top], color=QUIET, linewidth=0.8, linestyle=(0, (2, 3)))
    size = 2.5 if small else 4
    axes.plot(before.predicted, before.observed, "-o", color=OTHER, linewidth=0.9, markersize=size, alpha=0.75)
    axes.plot(after.predicted, after.observed, "-o", color=MINE, linewidth=1.3, markersize=size)
    _label(axes, "predicted", "observed", small)
    return _svg(drawing, alt)


def history(stages: Sequence[tuple[str, Epochs]], key: str, words: str, alt: str) -> str:
    """One figure over all epochs of all stages, one after the other; a thin line where a stage begins.

    Parameters
    ----------
    stages:
        Name and epochs of each; an epoch without a finite number under `key` is left out.
    """
    with mpl.rc_context(_STYLE):
        drawing = Drawing(figsize=(5.2, 2.5))
        axes = drawing.subplots()
        drawing.subplots_adjust(left=0.11, right=0.985, bottom=0.17, top=0.88)
    axes.grid(axis="y")
    start = 0
    for number, (name, epochs) in enumerate(stages):
        at = np.arange(start + 1, start + 1 + len(epochs))
        values = np.array([_finite(epoch.get(key)) for epoch in epochs])
        axes.plot(at, values, "-o", color=MINE, linewidth=1.6, markersize=3.5)
        if number:
            axes.axvline(start + 0.5, color=LINE, linewidth=1)
        middle = start + len(epochs) / 2 + 0.5
        axes.text(
            middle,
            1.03,
            " ".join(name.split())[:24],
            parse_math=False,  # a name from outside is no formula
            transform=axes.get_xaxis_transform(),
            ha="center",
            fontsize=8.5,
            color=QUIET,
        )
        start += len(epochs)
    if not axes.lines or not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        axes.set(ylim=(0.0, 1.0), yticks=[])  # no figure, no scale
    axes.set(xlim=(0.5, max(1, start) + 0.5), xticks=_whole(start))
    axes.locator_params(axis="y", nbins=5)
    axes.tick_params(labelsize=9)
    axes.set_xlabel("epoch", fontsize=9)
    axes.set_ylabel(words, fontsize=9)
    return _svg(drawing, alt)


def jpeg(film: NDArray[np.uint8]) -> str:
    """A data URI of a film, uint8 (H, W), at most `SIDE` pixels high and wide."""
    return _jpeg(_small(film))


def overlaid(film: NDArray[np.uint8], heat: NDArray[np.floating]) -> str:
    """A data URI of the film with its activation map over it.

    The map is stretched from its least to its greatest value, so it shows where, not how much; it covers the film from
    not at all (least) to half (greatest). A map that is the same everywhere covers nothing.

    Parameters
    ----------
    film, heat:
        uint8 (H, W); float (h, w), finite.
    """
    small = _small(film)
    spread = float(np.ptp(heat))
    level = (heat.astype(np.float32) - heat.min()) / spread if spread > 0 else np.zeros(heat.shape, np.float32)
    wide = Image.fromarray(level.astype(np.float32)).resize(small.size, Image.Resampling.BICUBIC)
    share = np.asarray(wide, np.float32).clip(0.0, 1.0)
    colours = mpl.colormaps["inferno"](0.25 + 0.7 * share)[..., :3] * 255.0
    opacity = 0.5 * share[..., None]
    grey = np.asarray(small, np.float32)[..., None]
    return _jpeg(Image.fromarray((grey * (1.0 - opacity) + colours * opacity).round().astype(np.uint8)))


def _square(small: bool) -> tuple[Drawing, Axes]:
    with mpl.rc_context(_STYLE):
        drawing = Drawing(figsize=(2.05, 1.95) if small else (3.5, 3.4))
        axes = drawing.subplots()
        if small:
            drawing.subplots_adjust(left=0.17, right=0.945, bottom=0.14, top=0.955)
        else:
            drawing.subplots_adjust(left=0.155, right=0.96, bottom=0.145, top=0.965)
    axes.grid()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.015), xticks=SHARES, yticks=SHARES)
    return drawing, axes


def _label(axes: Axes, across: str, up: str, small: bool) -> None:
    axes.tick_params(labelsize=8 if small else 9.5)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    if not small:
        axes.set_xlabel(across, fontsize=10)
        axes.set_ylabel(up, fontsize=10)


def _whole(epochs: int) -> list[int]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, epochs or 1) if epochs / s <= 12)
    return list(range(step, epochs + 1, step))


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else np.nan


def _svg(drawing: Drawing, alt: str) -> str:
    """The drawing as an element of a page: no header, no names, no fixed size, two decimals."""
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": alt}):  # references inside a picture stay its own, and repeatable
        FigureCanvasSVG(drawing)  # the drawing's canvas from here on
        drawing.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None  # noqa: S101 - Matplotlib writes one
    text = text[text.index("</defs>", text.index("<style")) + len("</defs>") :]  # the style would be the whole page's
    text = re.sub(r"<[^>]*>", lambda tag: _plain(tag[0]), text)
    text = text.replace("<g/>", "")
    text = re.sub(r"\s*\n\s*", "\n", text).strip()
    return f'<svg {box[0]} role="img" aria-label="{escape(alt)}">{text}'


def _plain(tag: str) -> str:
    """A tag without a name that nothing refers to, a font, or more digits than can be seen; colours by variable."""
    tag = re.sub(r'<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    tag = re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), tag)
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, f"var({variable})")
    return tag


def _small(film: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(film)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
