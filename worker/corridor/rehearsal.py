"""What would have been told of past studies under another policy and other destinations. Nothing is sent or changed.

Each study is gone through as it came: film by film in the order in which they were concluded, decided anew from the
stored probabilities, settled and routed as `worker.corridor.reading` and the record do it. What was withdrawn or
reported since then is left out on both sides: that is not for a policy to decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from schemas.decision import Policy, Reason, Urgency
from schemas.flag import FilmResult
from schemas.outcome import ModelRef, News, Route
from worker.decide.policy import decide, thresholds
from worker.decide.study import settle
from worker.record.history import PastFilm, PastStudy
from worker.record.shapes import digest


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is tried. `operating_points` gives those for a film."""

    policy: Policy
    operating_points: Callable[[PastFilm], Mapping[str, float]]
    route: Route


@dataclass(slots=True)
class WouldHear:
    """What a destination would have heard of a study in the end."""

    urgency: Urgency = Urgency.ROUTINE
    findings: frozenset[str] = frozenset()
    messages: int = 0


@dataclass(slots=True)
class Tally:
    """One destination, in numbers of studies; of messages, there may be several to a study."""

    was: int = 0
    would: int = 0
    gained: int = 0
    lost: int = 0
    other_urgency: int = 0
    messages: int = 0
    urgencies: Counter[Urgency] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)

    def add(self, was: Urgency | None, would: WouldHear | None) -> None:
        """One study."""
        self.was += was is not None
        self.would += would is not None
        self.gained += would is not None and was is None
        self.lost += was is not None and would is None
        if would is not None:
            self.other_urgency += was is not None and was != would.urgency
            self.messages += would.messages
            self.urgencies[would.urgency] += 1
            self.findings.update(would.findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a study stood after one of its films, and what was known of all of them."""

    film: PastFilm
    urgency: Urgency
    reasons: tuple[Reason, ...]
    results: tuple[FilmResult, ...]
    called_ae: frozenset[str]  # that its films had come in under


def points_under(policy: Policy, model_id: str, card: Mapping[str, float]) -> Callable[[PastFilm], Mapping[str, float]]:
    """Operating points by film: the policy's, else those of the card; for another model's, those in force then.

    Raises
    ------
    ConfigurationError
        Neither the policy nor the card of `model_id` has one for some finding.
    """
    of_card = thresholds(policy, card)

    @cache
    def of_then(points: tuple[tuple[str, float], ...]) -> Mapping[str, float]:
        return thresholds(policy, dict(points))

    def points(film: PastFilm) -> Mapping[str, float]:
        if film.prediction is not None and film.prediction.model_id == model_id:
            return of_card
        return of_then(tuple(sorted(film.operating_points.items())))

    return points


def standings(
    study: PastStudy, policy: Policy, points: Callable[[PastFilm], Mapping[str, float]]
) -> Iterator[Standing]:
    """The study film by film, from the first on that was read: before that nothing is told of it."""
    latest: dict[str, tuple[int, FilmResult]] = {}  # by instance: version and result
    earlier: list[FilmResult] = []
    called: set[str] = set()
    urgency, reasons = Urgency.ROUTINE, tuple[Reason, ...]()
    was_read = False
    for film in study.films:
        called.add(film.called_ae)
        result = _decide(film, policy, points)
        version, before = latest.get(film.instance.sop_uid, (film.version, None))
        if before is not None and version != film.version and before.not_analysed is None:
            earlier.append(before)
        latest[film.instance.sop_uid] = (film.version, result)
        was_read = was_read or film.prediction is not None
        if not was_read:
            continue
        results = tuple(each for _, each in latest.values())
        verdict = settle((*results, *earlier))
        if verdict.urgency >= urgency:  # else what raised it stands
            urgency, reasons = verdict.urgency, verdict.reasons
        yield Standing(film=film, urgency=urgency, reasons=reasons, results=results, called_ae=frozenset(called))


def rehearse(study: PastStudy, plan: Plan) -> dict[str, WouldHear]:
    """Who would have heard of `study`, and what."""
    hears: dict[str, WouldHear] = {}
    model = said = ""
    for standing in standings(study, plan.policy, plan.operating_points):
        film, reasons = standing.film, standing.reasons
        model = model if film.prediction is None else film.prediction.model_id
        content = digest(ModelRef(id=model, name="", version=""), standing.urgency, reasons, standing.results)
        if content == said:
            continue
        said = content
        findings = frozenset(reason.finding for reason in reasons)
        news = News(
            urgency=standing.urgency,
            findings=findings,
            called_ae=standing.called_ae,
            modality=study.modality,
            decided_at=film.concluded_at,
        )
        for name in plan.route(news, hears.keys()):
            heard = hears.setdefault(name, WouldHear())
            heard.urgency, heard.findings = standing.urgency, findings
            heard.messages += 1
    return hears


def compare(tallies: dict[str, Tally], study: PastStudy, hears: Mapping[str, WouldHear]) -> None:
    """Count one study for everybody who heard of it or would have."""
    for name in {*study.told, *hears}:
        tallies.setdefault(name, Tally()).add(study.told.get(name), hears.get(name))


def _decide(film: PastFilm, policy: Policy, points: Callable[[PastFilm], Mapping[str, float]]) -> FilmResult:
    if film.prediction is None:
        return FilmResult(instance=film.instance, not_analysed=film.not_analysed)
    decision = decide(film.prediction, policy, points(film))
    return FilmResult(
        instance=film.instance,
        binary=film.prediction.binary,
        findings=film.prediction.findings,
        reasons=decision.reasons,
    )
