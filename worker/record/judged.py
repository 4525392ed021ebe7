"""Studies of which people have said what is on them, beside what a model said: to tell how good a threshold is here.

A signed report that codes findings says that the others are not there; one that says "negative" says so of all. A
reader's word on a flag is of what was flagged and of what the reader names; of the rest it says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.orm import aliased

from schemas.context import Verdict
from schemas.findings import FINDINGS
from schemas.lifecycle import JobState
from schemas.policy import BINARY, OUTPUTS
from schemas.readings import Judgement
from schemas.tables import FeedbackRow, Job, PredictionRow, ReportRow, Revision
from worker.record.database import Database
from worker.record.rows import word

CHUNK: Final = 500  # studies in one statement
ANY_FINDING: Final = "Any finding"  # the binary model's name among the reasons

_REPORTS: Final = (
    select(ReportRow.study_id, ReportRow.verdict, ReportRow.findings)
    .where(ReportRow.verdict.is_not(None), ReportRow.said_at >= bindparam("since"))
    .order_by(ReportRow.said_at.desc())
    .limit(bindparam("limit"))
)
_earlier = aliased(Revision)
# The flag that a reader's word is of. One that comes when the flag was taken back is of the flag that was out before.
JUDGED: Final = (
    select(func.max(_earlier.revision))
    .where(
        _earlier.study_id == FeedbackRow.study_id,
        _earlier.revision <= FeedbackRow.revision,
        _earlier.withdrawn.is_(None),
    )
    .scalar_subquery()
)
_WORDS: Final = (
    select(FeedbackRow.study_id, FeedbackRow.judgement, FeedbackRow.findings, Revision.snapshot)
    .join(Revision, (Revision.study_id == FeedbackRow.study_id) & (Revision.revision == JUDGED), isouter=True)
    .where(FeedbackRow.undone_at.is_(None), FeedbackRow.at >= bindparam("since"))
    .order_by(FeedbackRow.at.desc())
    .limit(bindparam("limit"))
)
_SCORES: Final = (
    select(Job.study_id, PredictionRow.binary, PredictionRow.findings)
    .join(PredictionRow, (PredictionRow.job_id == Job.id) & (PredictionRow.reading == Job.reading))
    .where(
        Job.study_id.in_(bindparam("ids", expanding=True)),
        Job.state == word(JobState.READ),
        PredictionRow.model_id == bindparam("model_id"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedStudy:
    """By output ("Pneumothorax", …, "binary"): the highest probability of its films, and what people say."""

    scores: Mapping[str, float]
    reported: Mapping[str, bool]  # by the signed report: there or not
    judged: Mapping[str, bool]  # by a reader of the list


class Judged:
    """Studies that people judged and a model read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def studies(self, model_id: str, since: datetime, limit: int) -> list[JudgedStudy]:
        """Of the latest `limit` reports and as many words of readers, those whose films this model has read."""
        values = {"since": since, "limit": limit}

        def work(connection: Connection) -> list[JudgedStudy]:
            reported = {row.study_id: _by_report(row) for row in connection.execute(_REPORTS, values)}
            judged = {row.study_id: _by_reader(row) for row in connection.execute(_WORDS, values)}
            ids = sorted({*reported, *judged})
            scores: dict[int, dict[str, float]] = defaultdict(dict)
            for start in range(0, len(ids), CHUNK):
                chunk = {"ids": ids[start : start + CHUNK], "model_id": model_id}
                for row in connection.execute(_SCORES, chunk):
                    known = scores[row.study_id]
                    for output, p in ((BINARY, row.binary), *row.findings.items()):
                        known[output] = max(p, known.get(output, 0.0))
            return [
                JudgedStudy(scores=found, reported=reported.get(study, {}), judged=judged.get(study, {}))
                for study, found in sorted(scores.items())
            ]

        return self._database.read(work)


def _by_report(row: Any) -> dict[str, bool]:
    if row.verdict == Verdict.NEGATIVE:
        return dict.fromkeys(OUTPUTS, False)
    if not row.findings:
        return {BINARY: True}
    return {**{str(finding): finding in row.findings for finding in FINDINGS}, BINARY: True}


def _by_reader(row: Any) -> dict[str, bool]:
    flagged = _outputs(reason["finding"] for reason in (row.snapshot or {}).get("reasons", ()))
    seen = {str(finding): True for finding in row.findings}
    if seen:
        seen[BINARY] = True
    return {**dict.fromkeys(flagged, row.judgement == Judgement.AGREE), **seen}


def _outputs(reasons: Iterable[str]) -> list[str]:
    return [BINARY if finding == ANY_FINDING else finding for finding in reasons]
