"""The reading list as other systems ask for it: every study that is open, whole, in reading order. Reads only.

What was read once is kept, and only studies that changed since are read again (`Study.changes` counts that): ten
thousand with their films take half a second, to see that none of them changed a few milliseconds.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Text, bindparam, cast, func, select

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from schemas.identity import StudyContext
from schemas.not_analysed import NotAnalysed
from schemas.tables import Job, Study
from worker.record.database import Database
from worker.record.rows import ON_LIST

_open = (
    select(Study.id, Study.changes).where(*ON_LIST).order_by(Study.rank.desc(), Study.received_at, Study.id).subquery()
)
# "7:3,2:15,…": number and changes of every open study in reading order, as one value; rows take three times as long.
_ORDER: Final = select(func.aggregate_strings(cast(_open.c.id, Text) + ":" + cast(_open.c.changes, Text), ","))
_STUDIES: Final = select(
    Study.id,
    Study.study_uid,
    Study.context,
    Study.rank,
    Study.urgency,
    Study.reasons,
    Study.revision,
    Study.received_at,
    Study.decided_at,
    Study.withdrawn,
).where(Study.id.in_(bindparam("ids", expanding=True)))
_FILMS: Final = (
    select(Job.study_id, Job.series_uid, Job.sop_class, Job.sop_uid, Job.calling_ae, Job.not_analysed)
    .where(Job.study_id.in_(bindparam("ids", expanding=True)), Job.current)
    .order_by(Job.study_id, Job.id)
)
_CHUNK: Final = 1000  # studies in one statement: SQLite takes 32,766 values


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedFilm:
    """A film of the study, by the latest version that was received of it."""

    series_uid: str
    sop_class: str
    sop_uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenStudy:
    """A study that waits to be read."""

    id: int  # hilum's own number of it
    study_uid: str
    context: StudyContext
    priority: Urgency  # its place in the order: the higher of what it was ordered as and what it was raised to
    urgency: Urgency  # what it was raised to
    reasons: tuple[str, ...]  # words
    not_analysed: tuple[NotAnalysed, ...]  # each code once
    revision: int  # 0: nothing decided yet
    received_at: datetime  # first film
    decided_at: datetime | None
    withdrawn: Withdrawal | None
    stations: tuple[str, ...]  # AE titles that sent its films
    films: tuple[ListedFilm, ...]


class ReadingList:
    """What waits to be read. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._order = ""
        self._known: dict[str, OpenStudy] = {}  # by number and changes when it was read, in reading order
        self._open: tuple[OpenStudy, ...] = ()

    def open(self) -> tuple[OpenStudy, ...]:
        """Every open study: the most urgent first, of equals the one that waits longest."""

        def work(connection: Connection) -> tuple[str, dict[str, OpenStudy]]:
            order = connection.scalar(_ORDER) or ""
            if order == self._order:
                return order, self._known
            versions = order.split(",") if order else []
            changed = {int(v.partition(":")[0]): v for v in versions if v not in self._known}
            fresh = {changed[study.id]: study for study in _read(connection, list(changed))}
            return order, {v: fresh[v] if v in fresh else self._known[v] for v in versions}

        with self._lock:
            order, self._known = self._database.read(work)
            if order != self._order:
                self._order, self._open = order, tuple(self._known.values())
            return self._open


def _read(connection: Connection, ids: Sequence[int]) -> Iterator[OpenStudy]:
    for start in range(0, len(ids), _CHUNK):
        chunk = {"ids": ids[start : start + _CHUNK]}
        films: dict[int, list[Any]] = defaultdict(list)
        for film in connection.execute(_FILMS, chunk):
            films[film.study_id].append(film)
        for study in connection.execute(_STUDIES, chunk):
            yield _open_study(study, films[study.id])


def _open_study(study: Any, films: Sequence[Any]) -> OpenStudy:
    return OpenStudy(
        id=study.id,
        study_uid=study.study_uid,
        context=StudyContext(**study.context),
        priority=Urgency(study.rank),
        urgency=Urgency(study.urgency),
        reasons=tuple(reason["words"] for reason in study.reasons),
        not_analysed=tuple(dict.fromkeys(NotAnalysed(f.not_analysed) for f in films if f.not_analysed is not None)),
        revision=study.revision,
        received_at=study.received_at,
        decided_at=study.decided_at,
        withdrawn=None if study.withdrawn is None else Withdrawal(study.withdrawn),
        stations=tuple(dict.fromkeys(film.calling_ae for film in films if film.calling_ae)),
        films=tuple(
            ListedFilm(series_uid=film.series_uid, sop_class=film.sop_class, sop_uid=film.sop_uid) for film in films
        ),
    )
