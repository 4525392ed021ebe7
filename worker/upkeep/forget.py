"""Let go of what the hospital said by HL7 v2: of orders and patients after the configured time."""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.record.context import Context

EVERY = timedelta(days=1)


def run_once(context: Context, now: datetime, *, keep: timedelta) -> int:
    """Forget orders and patients of whom nothing was said for `keep`, and which messages were heard; returns how many
    rows. Zero `keep` keeps the former for ever."""
    return context.forget(now - keep if keep else None, now)
