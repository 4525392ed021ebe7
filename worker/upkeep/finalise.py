"""Settle the studies that have been quiet for long enough (DICOM has no end-of-study signal)."""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.record.studies import Studies

EVERY = timedelta(seconds=5)


def run_once(studies: Studies, now: datetime, *, quiet: timedelta) -> int:
    """READ studies without a new film for `quiet` become FINAL; returns how many."""
    return studies.finalise(quiet, now)
