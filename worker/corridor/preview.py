"""What past studies would have been under an edited policy: decided anew from their stored probabilities.

Films are decided, and studies settled, by the functions that readers decide by: the dry run is what then happens.
Studies are read from the record once and kept for some minutes, so that a preview follows a threshold that is dragged.
"""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from schemas.card import ModelCard, model_id
from schemas.decision import Policy, Reason, Urgency
from schemas.errors import ConfigurationError
from schemas.findings import Label
from schemas.policy import BINARY, OUTPUTS, policy_to_json
from schemas.preview import Changed, Curve, Load, Preview, Raised, Share, Span
from worker.corridor.operating import Prevalence, Source, goodness, prevalence_of, source_of
from worker.corridor.rehearsal import points_under, standings
from worker.decide.policy import thresholds
from worker.record.history import History, PastStudy
from worker.record.judged import ANY_FINDING, Judged

KEEP: Final = 300.0  # seconds for which studies are kept
MOST_DAYS: Final = 31
MOST_STUDIES: Final = 20_000  # about 100 MB
MOST_KNOWN: Final = 8  # policies whose flags are kept
MOST_CHANGED: Final = 200  # studies that are named
MOST_JUDGED: Final = 5_000  # reports, and as many words of readers
JUDGED_DAYS: Final = 365
# Thresholds that are drawn: even steps on the logit scale from 0.001 to 0.999, where most of a score's life is.
GRID: Final = tuple(1 / (1 + 10 ** (-3 + n / 20)) for n in range(120, -1, -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Flags:
    """What a policy raises."""

    raised: Mapping[str, Raised]  # by Study Instance UID
    findings: Mapping[str, int]  # studies, by output


@dataclass(frozen=True, kw_only=True)
class Past:
    """What previews of one period are made from."""

    since: datetime
    until: datetime
    studies: Sequence[PastStudy]
    films: int
    hours: float  # that were looked at: from the first film on
    peaks: Mapping[str, Sequence[float]]  # by output the highest probability of each study, rising
    card: ModelCard
    model_id: str
    sources: Mapping[str, Source | None]
    prevalences: Mapping[str, Prevalence]
    known: dict[str, Flags] = field(default_factory=dict)  # by policy: the one in force is asked for again and again


class Previews:
    """Previews of the site's policy. Thread-safe; reads only."""

    def __init__(
        self,
        history: History,
        judged: Judged,
        card: Callable[[], ModelCard],
        clock: Callable[[], datetime],
        *,
        keep: float = KEEP,
    ) -> None:
        """`card` is that of the model in service."""
        self._history, self._judged, self._card, self._clock, self._keep = history, judged, card, clock, keep
        self._lock = threading.Lock()
        self._kept: dict[float, tuple[float, Past]] = {}  # by days: until when, what

    def preview(self, edited: Policy, in_force: Policy, days: float, *, fresh: bool = False) -> Preview:
        """The studies of the last `days` under both; `fresh`: with what came in this moment.

        Raises
        ------
        ConfigurationError
            Too many days or studies, or a finding that has an operating point neither in the policy nor in the card.
        """
        with self._lock:
            past = self._past(days, fresh=fresh)
            before, after = (_flags(past, policy) for policy in (in_force, edited))
        changed = _changed(before.raised, after.raised)
        points = thresholds(edited, past.card.thresholds)
        return Preview(
            since=past.since,
            until=past.until,
            studies=len(past.studies),
            films=past.films,
            before=_load(before.raised, past.hours),
            after=_load(after.raised, past.hours),
            gained=sum(change.before is None for change in changed),
            lost=sum(change.after is None for change in changed),
            other_urgency=sum(change.before is not None and change.after is not None for change in changed),
            changed=tuple(changed[:MOST_CHANGED]),
            days=_days(past, before.raised, after.raised),
            hours=_hours(past, before.raised, after.raised),
            shares={
                output: _share(
                    past, output, points[output], before.findings.get(output, 0), after.findings.get(output, 0)
                )
                for output in OUTPUTS
            },
            flags=after.raised,
        )

    def curves(self, days: float) -> dict[str, Curve]:
        """Every finding at every threshold of the grid, and where it was measured. Raises `ConfigurationError`."""
        with self._lock:
            past = self._past(days)
        return {output: _curve(past, output) for output in OUTPUTS}

    def _past(self, days: float, *, fresh: bool = False) -> Past:
        if not 0 < days <= MOST_DAYS:
            raise ConfigurationError(f"days: more than 0 and at most {MOST_DAYS}")
        good_until, past = self._kept.get(days, (0.0, None))
        if past is None or fresh or time.monotonic() > good_until or model_id(self._card()) != past.model_id:
            past = self._read(days)
            self._kept = {days: (time.monotonic() + self._keep, past)}
        return past

    def _read(self, days: float) -> Past:
        until = self._clock()
        since = until - timedelta(days=days)
        if self._history.count(since, until) > MOST_STUDIES:
            raise ConfigurationError(f"days: more than {MOST_STUDIES} studies came in that time; choose fewer")
        studies = list(self._history.studies(since, until))
        card = self._card()
        model = model_id(card)
        judged = self._judged.studies(model, until - timedelta(days=JUDGED_DAYS), MOST_JUDGED)
        films = [film for study in studies for film in study.films if film.prediction is not None]
        first = min((film.concluded_at for film in films), default=since)
        return Past(
            since=since,
            until=until,
            studies=studies,
            films=len(films),
            hours=max(1.0, (until - max(first, since)).total_seconds() / 3600),
            peaks=_peaks(studies),
            card=card,
            model_id=model,
            sources={output: source_of(card, judged, output) for output in OUTPUTS},
            prevalences={output: prevalence_of(card, judged, output) for output in OUTPUTS},
        )


def _flags(past: Past, policy: Policy) -> Flags:
    key = json.dumps(policy_to_json(replace(policy, budget=None)), sort_keys=True)
    known = past.known.get(key)
    if known is None:
        while len(past.known) >= MOST_KNOWN:
            del past.known[next(iter(past.known))]
        known = past.known[key] = _raise(past, policy)
    else:
        past.known[key] = past.known.pop(key)  # the latest goes last
    return known


def _raise(past: Past, policy: Policy) -> Flags:
    points = points_under(policy, past.model_id, past.card.thresholds)
    raised: dict[str, Raised] = {}
    findings: Counter[str] = Counter()
    for study in past.studies:
        at: datetime | None = None
        urgency, reasons = Urgency.ROUTINE, tuple[Reason, ...]()
        for standing in standings(study, policy, points):
            urgency, reasons = standing.urgency, standing.reasons
            if at is None and urgency > Urgency.ROUTINE:
                at = standing.film.concluded_at
        if at is None:
            continue
        raised[study.study_uid] = Raised(at=at, urgency=urgency, reasons=reasons)
        findings.update(BINARY if r.finding == ANY_FINDING else r.finding for r in reasons)
    return Flags(raised=raised, findings=findings)


def _changed(before: Mapping[str, Raised], after: Mapping[str, Raised]) -> list[Changed]:
    changes = [
        Changed(study_uid=uid, before=before.get(uid), after=after.get(uid))
        for uid in before.keys() | after.keys()
        if (uid in before) != (uid in after) or before[uid].urgency != after[uid].urgency
    ]

    def latest_first(change: Changed) -> tuple[datetime, str]:
        flag = change.after or change.before
        assert flag is not None  # noqa: S101  it is in one of them
        return flag.at, change.study_uid

    return sorted(changes, key=latest_first, reverse=True)


def _load(raised: Mapping[str, Raised], hours: float) -> Load:
    by_clock = Counter(flag.at.astimezone().replace(minute=0, second=0, microsecond=0) for flag in raised.values())
    urgencies = Counter(flag.urgency for flag in raised.values())
    return Load(
        urgencies={urgency: urgencies[urgency] for urgency in (Urgency.STAT, Urgency.URGENT)},
        per_hour=len(raised) / hours,
        busiest=max(by_clock.values(), default=0),
    )


def _days(past: Past, before: Mapping[str, Raised], after: Mapping[str, Raised]) -> tuple[Span, ...]:
    first, last = (moment.astimezone().date() for moment in (past.since, past.until))
    counts = [Counter(flag.at.astimezone().date() for flag in flags.values()) for flags in (before, after)]
    dates = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return tuple(Span(name=f"{d:%a} {d.day}", before=counts[0][d], after=counts[1][d]) for d in dates)


def _hours(past: Past, before: Mapping[str, Raised], after: Mapping[str, Raised]) -> tuple[Span, ...]:
    days = max(1.0, past.hours / 24)
    counts = [Counter(flag.at.astimezone().hour for flag in flags.values()) for flags in (before, after)]
    return tuple(
        Span(name=f"{hour:02}", before=counts[0][hour] / days, after=counts[1][hour] / days) for hour in range(24)
    )


def _peaks(studies: Sequence[PastStudy]) -> dict[str, list[float]]:
    peaks: dict[str, list[float]] = {output: [] for output in OUTPUTS}
    for study in studies:
        said = [film.prediction for film in study.films if film.prediction is not None]
        if said:
            for output, highest in peaks.items():
                highest.append(max(p.binary if output == BINARY else p.findings[Label(output)] for p in said))
    return {output: sorted(highest) for output, highest in peaks.items()}


def _reached(past: Past, output: str, threshold: float) -> int:
    return len(past.peaks[output]) - bisect_left(past.peaks[output], threshold)


def _share(past: Past, output: str, threshold: float, before: int, after: int) -> Share:
    return Share(
        threshold=threshold,
        reached=_reached(past, output, threshold),
        before=before,
        after=after,
        goodness=goodness(past.sources[output], past.prevalences[output], threshold),
    )


def _curve(past: Past, output: str) -> Curve:
    source, prevalence = past.sources[output], past.prevalences[output]
    card = past.card.thresholds.get(output)
    measured_at = source.measured_at if source is not None else ()
    grid = tuple(sorted({*GRID, *measured_at}))
    return Curve(
        thresholds=grid,
        flags_per_hour=tuple(_reached(past, output, t) / past.hours for t in grid),
        goodness=tuple(goodness(source, prevalence, t) for t in grid),
        card_threshold=card,
        measured_at=measured_at,
        words="the model's card has no figures of it" if source is None else source.words,
        prevalence=prevalence.value,
        prevalence_words=prevalence.words,
    )
