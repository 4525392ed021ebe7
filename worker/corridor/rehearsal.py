"""What would have been told of past studies under another policy and other destinations. Nothing is sent or changed.

Each study is gone through as it came: film by film in the order in which they were concluded, decided anew from the
stored probabilities, settled and routed as `worker.corridor.reading` and the record do it. What was withdrawn or
reported since then is left out on both sides: that is not for a policy to decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from schemas.decision import Policy, Reason, Urgency
from schemas.flag import FilmResult
from schemas.outcome import ModelRef, News, Route
from worker.decide.policy import decide
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


def rehearse(study: PastStudy, plan: Plan) -> dict[str, WouldHear]:
    """Who would have heard of `study`, and what."""
    latest: dict[str, tuple[int, FilmResult]] = {}  # by instance: version and result
    earlier: list[FilmResult] = []
    called: set[str] = set()
    hears: dict[str, WouldHear] = {}
    urgency, reasons = Urgency.ROUTINE, tuple[Reason, ...]()
    model = said = ""
    for film in study.films:
        called.add(film.called_ae)
        result = _decide(film, plan)
        version, before = latest.get(film.instance.sop_uid, (film.version, None))
        if before is not None and version != film.version and before.not_analysed is None:
            earlier.append(before)
        latest[film.instance.sop_uid] = (film.version, result)
        if film.prediction is None and not said:
            continue  # nothing is told of a study of which nothing was read
        results = [each for _, each in latest.values()]
        verdict = settle((*results, *earlier))
        if verdict.urgency >= urgency:  # else what raised it stands
            urgency, reasons = verdict.urgency, verdict.reasons
        model = model if film.prediction is None else film.prediction.model_id
        content = digest(ModelRef(id=model, name="", version=""), urgency, reasons, results)
        if content == said:
            continue
        said = content
        findings = frozenset(reason.finding for reason in reasons)
        news = News(
            urgency=urgency,
            findings=findings,
            called_ae=frozenset(called),
            modality=study.modality,
            decided_at=film.concluded_at,
        )
        for name in plan.route(news, hears.keys()):
            heard = hears.setdefault(name, WouldHear())
            heard.urgency, heard.findings = urgency, findings
            heard.messages += 1
    return hears


def compare(tallies: dict[str, Tally], study: PastStudy, hears: Mapping[str, WouldHear]) -> None:
    """Count one study for everybody who heard of it or would have."""
    for name in {*study.told, *hears}:
        tallies.setdefault(name, Tally()).add(study.told.get(name), hears.get(name))


def _decide(film: PastFilm, plan: Plan) -> FilmResult:
    if film.prediction is None:
        return FilmResult(instance=film.instance, not_analysed=film.not_analysed)
    decision = decide(film.prediction, plan.policy, plan.operating_points(film))
    return FilmResult(
        instance=film.instance,
        binary=film.prediction.binary,
        findings=film.prediction.findings,
        reasons=decision.reasons,
    )
