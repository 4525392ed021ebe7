"""Say once a day in the log which peers were turned away, and how to mend it; the web page shows the same."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from worker.record.rejections import Rejections

EVERY = timedelta(days=1)

log = logging.getLogger("hilum.upkeep")


def run_once(rejections: Rejections, now: datetime) -> int:
    """One warning per kind of rejection of the last day; returns how many kinds."""
    recent = [r for r in rejections.recent(100) if r.last_at > now - EVERY]
    for r in recent:
        log.warning(
            "rejections count=%d calling=%s called=%s address=%s what=%r mend=%r",
            r.count,
            r.sender.calling_ae,
            r.sender.called_ae,
            r.sender.address,
            r.what,
            r.mend,
        )
    return len(recent)
