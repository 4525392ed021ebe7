"""Whether readers agree with what was flagged: by finding and month, of the words that stand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import bindparam, select

from schemas.findings import Label
from schemas.readings import Judgement
from schemas.tables import FeedbackRow, Revision
from worker.record.database import Database
from worker.record.judged import ANY_FINDING, JUDGED

_WORDS: Final = (
    select(FeedbackRow.at, FeedbackRow.judgement, FeedbackRow.findings, Revision.snapshot["reasons"].label("reasons"))
    .join(Revision, (Revision.study_id == FeedbackRow.study_id) & (Revision.revision == JUDGED), isouter=True)
    .where(
        FeedbackRow.undone_at.is_(None),
        FeedbackRow.at >= bindparam("since"),
        FeedbackRow.at < bindparam("until"),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What readers said of one finding in one month."""

    month: str  # "2026-03", UTC
    finding: str
    right: int  # flagged, and the reader agrees or sees it too
    wrong: int  # flagged, and the reader does not see it
    missed: int  # not flagged, and the reader names it

    @property
    def flagged(self) -> int:
        """Flags that readers spoke of."""
        return self.right + self.wrong


class ReaderAgreement:
    """What readers say of flags."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_month(self, since: datetime, until: datetime) -> list[Judged]:
        """Words of [since, until): the latest month first, in it the findings that were judged most."""
        rows = self._database.read(
            lambda connection: connection.execute(_WORDS, {"since": since, "until": until}).all()
        )
        counts: dict[str, Counter[tuple[str, str]]] = {}
        for row in rows:
            counts.setdefault(f"{row.at:%Y-%m}", Counter()).update(_said(row))
        return [
            Judged(
                month=month,
                finding=finding,
                right=said[finding, "right"],
                wrong=said[finding, "wrong"],
                missed=said[finding, "missed"],
            )
            for month, said in sorted(counts.items(), reverse=True)
            for finding in _by_frequency(said)
        ]


def _said(row: Any) -> list[tuple[str, str]]:
    """One word: what it says of each finding that was flagged, or that the reader names."""
    flagged = list(dict.fromkeys(reason["finding"] for reason in row.reasons or ()))
    seen = {finding for finding in row.findings if finding != Label.NO_FINDING}
    agrees = row.judgement == Judgement.AGREE
    words = [
        (finding, "right" if agrees or finding in seen or (finding == ANY_FINDING and seen) else "wrong")
        for finding in flagged
    ]
    return words + [(finding, "missed") for finding in sorted(seen.difference(flagged))]


def _by_frequency(said: Counter[tuple[str, str]]) -> list[str]:
    by_finding: Counter[str] = Counter()
    for (finding, _), count in said.items():
        by_finding[finding] += count
    return sorted(by_finding, key=lambda finding: (-by_finding[finding], finding))
