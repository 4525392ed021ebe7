"""The input of QuCAD, the FDA's simulator of what triage saves in waiting time (github.com/DIDSR/QuCAD).

Its configuration file (`run_sim.py --configFile`, read by `scripts/tools/inputHandler.py`) has a key and a value on a
line, "#" before a remark. It makes a number of TPFThresh, but not of FPFThresh: an operating point goes in as a curve
that runs through it (`rocFile`: FPF,TPF), from which the simulator, as it assumes two normal distributions, reads the
same specificity again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

from schemas.card import ModelCard
from schemas.decision import Policy
from schemas.errors import ConfigurationError
from schemas.findings import FINDINGS
from worker.record.times import Arrivals

FIGURES: Final = ("sensitivity", "specificity", "prevalence")
BUSIEST: Final = 0.95  # traffic above which QuCAD does not run
_CURVE: Final = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # FPF
_EDGE: Final = 1e-4  # no normal distribution has a sensitivity of 1
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatingPoint:
    """How good the flag is, and where that is known from."""

    sensitivity: float
    specificity: float
    prevalence: float
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What is simulated. Arrivals are per minute, reading times in minutes."""

    arrivals: Arrivals
    since: datetime
    until: datetime
    radiologists: int
    minutes: float
    minutes_diseased: float
    point: OperatingPoint

    @property
    def service(self) -> float:
        """Minutes for a study, on average."""
        return self.point.prevalence * self.minutes_diseased + (1 - self.point.prevalence) * self.minutes

    @property
    def traffic(self) -> float:
        """Arrival rate over what all radiologists together can read."""
        return (self.arrivals.per_minute or 0.0) * self.service / self.radiologists


def operating_point(
    policy: Policy, card: ModelCard, finding: str | None, known: Mapping[str, tuple[float, str]]
) -> OperatingPoint:
    """`known` sensitivity, specificity and prevalence, each with its source; what is not, from the card.

    Raises
    ------
    ConfigurationError
        Neither is known, or no such finding.
    """
    named = {str(label): rule for label, rule in policy.findings.items()}
    name = finding or max(named, key=lambda label: (named[label].urgency, label), default="")
    if name not in map(str, FINDINGS):
        raise ConfigurationError(f"--finding: {name!r}: choose among {', '.join(FINDINGS)}")
    measured = _on_test_films(card, name)
    own = named[name].threshold if name in named else "card"
    values = []
    sources = []
    for key in FIGURES:
        if key in known:
            values.append(known[key][0])
            sources.append(f"{key} {known[key][1]}")
            continue
        if key not in measured or (own != "card" and key != "prevalence"):
            why = "the policy sets a threshold of its own" if own != "card" else "the model's card does not say"
            raise ConfigurationError(f"{key} of {name}: {why}; give --{key} as it was measured at this site")
        sources.append(f"{key} of the card's test films")
        values.append(measured[key])
    return OperatingPoint(
        sensitivity=values[0], specificity=values[1], prevalence=values[2], words=f"{name}: {', '.join(sources)}"
    )


def write(file: Path, site: Site) -> Path:
    """The configuration file, and the ROC file beside it, whose path is returned. Raises `ConfigurationError`."""
    roc = file.with_name(f"{file.stem}-roc.csv").resolve()
    if any(c.isspace() or c == "#" for c in str(roc)):
        raise ConfigurationError(f"{roc}: QuCAD reads no path with a space or a # in it; choose another folder")
    if site.traffic > BUSIEST:
        raise ConfigurationError(
            f"traffic is {site.traffic:.2f}: more comes in than {site.radiologists} can read in {site.service:g} "
            f"minutes each, and QuCAD ends at {BUSIEST}; check --radiologists and --minutes, or choose quieter days"
        )
    try:
        roc.write_text(_curve(site.point), encoding="ascii")
        file.write_text(_config(site, roc), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be written ({error.strerror})") from error
    return roc


def _on_test_films(card: ModelCard, name: str) -> dict[str, float]:
    found: Any = card.metrics.get("test")
    for key in ("findings", name):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        return {}
    figures = {key: found.get(key) for key in ("sensitivity", "specificity")}
    measured = {key: float(f["value"]) for key, f in figures.items() if isinstance(f, dict) and "value" in f}
    if isinstance(found.get("prevalence"), float):
        measured["prevalence"] = found["prevalence"]
    return measured


def _curve(point: OperatingPoint) -> str:
    """Points of the ROC curve of two normal distributions of equal width that runs through the operating point."""
    apart = _quantile(point.sensitivity) - _quantile(1 - point.specificity)
    return "".join(f"{fpf:.6f},{_NORMAL.cdf(apart + _quantile(fpf)):.6f}\n" for fpf in _CURVE)


def _quantile(p: float) -> float:
    return _NORMAL.inv_cdf(min(1 - _EDGE, max(_EDGE, p)))


def _config(site: Site, roc: Path) -> str:
    point, arrivals = site.point, site.arrivals
    days = (site.until - site.since).total_seconds() / 86400
    return f"""\
## Written by hilum for QuCAD. {site.since:%Y-%m-%d %H:%M} to {site.until:%Y-%m-%d %H:%M} UTC, {days:.1f} days.
## Arrivals: {arrivals.studies} studies, {arrivals.per_minute:.5f} a minute. hilum read {arrivals.films_read} films.
## Service: {site.radiologists} radiologist(s), {1 / site.service:.5f} studies a minute each, as given, not measured.
## The flag: {point.words}. Specificity {point.specificity:.4f}.
traffic                        {site.traffic:.5f}
fractionED                     0.0
nRadiologists                  {site.radiologists}
meanServiceTimeDiseasedMin     {site.minutes_diseased:g}
meanServiceTimeNonDiseasedMin  {site.minutes:g}
meanServiceTimeInterruptingMin {site.minutes:g}
prevalence                     {point.prevalence:.5f}
TPFThresh                      {point.sensitivity:.5f}
FPFThresh                      None
rocFile                        {roc}
"""
