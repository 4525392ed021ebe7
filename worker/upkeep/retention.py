"""Let go of the bytes of final studies after the configured time; results stay."""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.ports import Spool
from worker.record.studies import Studies

EVERY = timedelta(hours=1)
BATCH = 500


def run_once(studies: Studies, spool: Spool, now: datetime, *, keep: timedelta) -> int:
    """Remove files of studies that were final before `now - keep`; returns how many. Zero `keep` keeps for ever."""
    if not keep:
        return 0
    removed = 0
    while batch := studies.purgeable(now - keep, BATCH):
        for _, path in batch:
            spool.remove(path)
        studies.purged([job_id for job_id, _ in batch])
        removed += len(batch)
    return removed
