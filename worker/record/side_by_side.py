"""Two models on the same films: flags gained and lost, agreement, and who would have waited longer. Pure.

Waiting is played through, not measured: the studies arrive as they came, and one reader takes the most urgent that
waits, then the one that came first, at a pace that keeps him busy 90 % of the time. Played with the live model's
urgencies and with the shadow's, all else being equal, it shows what the other order would do.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from schemas.decision import Urgency
from schemas.registry import ShadowFilm

BUSY: Final = 0.9  # share of his time that the reader reads
PACE: Final = 600.0  # seconds to a study, at most: a night of three films says nothing of how fast one reads
LISTED: Final = 200  # studies that are told apart, of each kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One study by both models."""

    study_uid: str
    received_at: datetime
    order_urgency: Urgency
    live: Urgency
    shadow: Urgency
    live_findings: frozenset[str]
    findings: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingFlags:
    """Studies that a finding gave a reason to raise."""

    finding: str
    live: int
    shadow: int
    both: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """Minutes that a group of studies waits in either order."""

    group: str
    studies: int
    live_median: float
    live_longest: float
    median: float
    longest: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SideBySide:
    """Two models on the same films."""

    films: int
    studies: int
    both: int  # studies that either would have flagged
    gained: tuple[Pair, ...]  # flagged by the shadow alone, the latest first, `LISTED` at most
    lost: tuple[Pair, ...]  # by the live model alone
    gained_count: int
    lost_count: int
    neither: int
    urgencies: Mapping[tuple[Urgency, Urgency], int]  # (live, shadow) → studies
    findings: tuple[FindingFlags, ...]
    waits: tuple[Waits, ...]
    pace: float  # minutes to a study that `waits` were played with

    @property
    def agreement(self) -> float | None:
        """Share of studies that both flag, or neither; None without any."""
        return (self.both + self.neither) / self.studies if self.studies else None

    @property
    def kappa(self) -> float | None:
        """Cohen's: agreement beyond that of two who flag as often, at random. None where there is no telling."""
        if not self.studies:
            return None
        live = (self.both + self.lost_count) / self.studies
        shadow = (self.both + self.gained_count) / self.studies
        chance = live * shadow + (1 - live) * (1 - shadow)
        agreed = (self.both + self.neither) / self.studies
        return None if math.isclose(chance, 1.0) else (agreed - chance) / (1 - chance)

    def to_json(self) -> dict[str, Any]:
        """In numbers, for programs."""
        return {
            "films": self.films,
            "studies": self.studies,
            "both": self.both,
            "neither": self.neither,
            "gained": self.gained_count,
            "lost": self.lost_count,
            "agreement": self.agreement,
            "kappa": self.kappa,
            "findings": [asdict(finding) for finding in self.findings],
            "urgencies": [
                {"live": live.name, "shadow": shadow.name, "studies": count}
                for (live, shadow), count in sorted(self.urgencies.items())
            ],
            "waits_minutes": [asdict(wait) for wait in self.waits],
            "minutes_to_a_study": self.pace,
        }


def compare(films: Sequence[ShadowFilm]) -> SideBySide:
    """Study by study: a study is as urgent as the most urgent of its films."""
    pairs = _pairs(films)
    kinds: dict[tuple[bool, bool], list[Pair]] = {}
    for pair in pairs:
        flagged = pair.live > Urgency.ROUTINE, pair.shadow > Urgency.ROUTINE
        kinds.setdefault(flagged, []).append(pair)
    both, neither = kinds.get((True, True), []), kinds.get((False, False), [])
    lost, gained = kinds.get((True, False), []), kinds.get((False, True), [])
    pace = _pace(pairs)
    groups = {"all studies": pairs, "flagged by both": both, "flags gained": gained, "flags lost": lost}
    return SideBySide(
        films=len(films),
        studies=len(pairs),
        both=len(both),
        gained=tuple(_latest(gained)),
        lost=tuple(_latest(lost)),
        gained_count=len(gained),
        lost_count=len(lost),
        neither=len(neither),
        urgencies=Counter((pair.live, pair.shadow) for pair in pairs),
        findings=_by_finding(pairs),
        waits=tuple(_waits(pairs, groups, pace)),
        pace=pace / 60,
    )


def _pairs(films: Iterable[ShadowFilm]) -> list[Pair]:
    """In the order in which the studies came."""
    studies: dict[str, list[ShadowFilm]] = {}
    for film in films:
        studies.setdefault(film.study_uid, []).append(film)
    pairs = [
        Pair(
            study_uid=uid,
            received_at=of[0].received_at,
            order_urgency=of[0].order_urgency,
            live=max(film.live_urgency for film in of),
            shadow=max(film.urgency for film in of),
            live_findings=frozenset().union(*(film.live_findings for film in of)),
            findings=frozenset().union(*(film.findings for film in of)),
        )
        for uid, of in studies.items()
    ]
    return sorted(pairs, key=lambda pair: (pair.received_at, pair.study_uid))


def _latest(pairs: Sequence[Pair]) -> list[Pair]:
    return list(reversed(pairs[-LISTED:]))


def _by_finding(pairs: Iterable[Pair]) -> tuple[FindingFlags, ...]:
    live: Counter[str] = Counter()
    shadow: Counter[str] = Counter()
    both: Counter[str] = Counter()
    for pair in pairs:
        live.update(pair.live_findings)
        shadow.update(pair.findings)
        both.update(pair.live_findings & pair.findings)
    names = sorted({*live, *shadow}, key=lambda name: (-max(live[name], shadow[name]), name))
    return tuple(FindingFlags(finding=n, live=live[n], shadow=shadow[n], both=both[n]) for n in names)


def _pace(pairs: Sequence[Pair]) -> float:
    """Seconds to a study."""
    if len(pairs) < 2:
        return PACE
    span = (pairs[-1].received_at - pairs[0].received_at).total_seconds()
    return min(PACE, BUSY * span / (len(pairs) - 1))


def _waits(pairs: Sequence[Pair], groups: Mapping[str, Sequence[Pair]], pace: float) -> Iterable[Waits]:
    live = _play([(pair, max(pair.order_urgency, pair.live)) for pair in pairs], pace)
    shadow = _play([(pair, max(pair.order_urgency, pair.shadow)) for pair in pairs], pace)
    for group, members in groups.items():
        if members:
            one = sorted(live[pair.study_uid] / 60 for pair in members)
            other = sorted(shadow[pair.study_uid] / 60 for pair in members)
            middle = len(members) // 2
            yield Waits(
                group=group,
                studies=len(members),
                live_median=one[middle],
                live_longest=one[-1],
                median=other[middle],
                longest=other[-1],
            )


def _play(arrivals: Sequence[tuple[Pair, Urgency]], pace: float) -> dict[str, float]:
    """Seconds that each study waits until the reader opens it."""
    waited: dict[str, float] = {}
    waiting: list[tuple[int, float, str]] = []
    free = 0.0  # when the reader is, in seconds since the first arrival
    coming = [((pair.received_at - arrivals[0][0].received_at).total_seconds(), pair, rank) for pair, rank in arrivals]
    at = 0
    while at < len(coming) or waiting:
        if not waiting:
            free = max(free, coming[at][0])
        while at < len(coming) and coming[at][0] <= free:
            arrived, pair, rank = coming[at]
            heapq.heappush(waiting, (-int(rank), arrived, pair.study_uid))
            at += 1
        _, arrived, uid = heapq.heappop(waiting)
        waited[uid] = free - arrived
        free += pace
    return waited
