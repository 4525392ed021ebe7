"""Tell whoever mends it that a destination has not got its flags in time, and that it has them: once each.

What was told stands in a small file, so that a restart tells nothing twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from schemas.errors import DeliveryError
from schemas.watching import Pause
from worker.record.outbox import Outbox, Overdue

EVERY = timedelta(seconds=30)

_REFUSED = " refused"  # a destination's name has no space

log = logging.getLogger("hilum.upkeep")

# Subject, text, and a key: equal keys are the same news. Raises `DeliveryError`.
Tell: TypeAlias = Callable[[str, str, str], None]


class Told:
    """Of which destinations an alarm was given, and since when their flags wait; in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._since = self._read()

    def __contains__(self, destination: str) -> bool:
        return destination in self._since

    def since(self) -> dict[str, str]:
        """By destination, as a moment in ISO 8601."""
        return dict(self._since)

    def note(self, destination: str, since: datetime) -> None:
        """An alarm was given."""
        self._since[destination] = since.isoformat()
        self._write()

    def forget(self, destination: str) -> None:
        """It is over."""
        del self._since[destination]
        self._write()

    def _read(self) -> dict[str, str]:
        try:
            told = json.loads(self._path.read_bytes())
        except (OSError, ValueError):  # never written, or by a crash in half: an alarm that is given twice does no harm
            return {}
        return {str(name): str(since) for name, since in told.items()} if isinstance(told, dict) else {}

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(json.dumps(self._since))
        new.replace(self._path)


def run_once(
    outbox: Outbox, told: Told, tell: Tell, now: datetime, *, after: timedelta, pause: Pause | None = None
) -> int:
    """Alarm for each destination one of whose flags waits for longer than `after`, or was refused that long ago;
    returns how many were told of.

    It is over when none waits for longer than half of that, so that a slow destination does not alarm by the minute.
    While flags are paused that is what is told: a pause that was forgotten is found out so.
    """
    late = {_kind(overdue): overdue for overdue in outbox.overdue(now - after / 2)}
    count = 0
    for kind, overdue in late.items():
        if kind not in told and overdue.since <= now - after and _told(tell, kind, *_begins(overdue, pause)):
            told.note(kind, overdue.since)
            count += 1
    for kind, since in told.since().items():
        if kind not in late and _told(tell, kind, *_is_over(kind, since)):
            told.forget(kind)
            count += 1
    return count


def _kind(overdue: Overdue) -> str:
    """What an alarm is given for once: that a destination refused a flag must not hide that it is away."""
    return f"{overdue.destination}{_REFUSED}" if overdue.refused else overdue.destination


def _told(tell: Tell, destination: str, subject: str, text: str, key: str) -> bool:
    try:
        tell(subject, text, key)
    except DeliveryError as error:  # the next round tells it
        log.error("alarm-not-sent destination=%s error=%s", destination, error)
        return False
    log.warning("alarm destination=%s subject=%r", destination, subject)
    return True


def _begins(overdue: Overdue, pause: Pause | None) -> tuple[str, str, str]:
    one = overdue.flags == 1
    since = f"{overdue.since.astimezone():%Y-%m-%d %H:%M}"
    if overdue.refused:
        flags = "1 flag" if one else f"{overdue.flags} flags"
        head = f"{flags} refused by destination {overdue.destination} since {since}"
        mend = "hilum does not send them again by itself: mend what the error names, then `hilum replay`."
    else:
        flags = "1 flag waits" if one else f"{overdue.flags} flags wait"
        head = f"{flags} for destination {overdue.destination} since {since}"
        mend = "hilum goes on trying."
        if pause is not None:
            paused = f"{pause.at.astimezone():%Y-%m-%d %H:%M}"
            mend = f"Flags are paused since {paused} by {pause.who}: {pause.why}. They go when somebody resumes them."
    error = f"Last error: {overdue.last_error}" if overdue.last_error else "No error was reported."
    text = f"{head}.\n{error}\n\n{mend}\n"
    return f"hilum: {head}", text, f"late {_kind(overdue)} {overdue.since.isoformat()}"


def _is_over(kind: str, since: str) -> tuple[str, str, str]:
    destination = kind.removesuffix(_REFUSED)
    head = f"destination {destination} has its flags again"
    if destination != kind:
        head = f"nothing that destination {destination} refused is left"
    text = f"{head[0].upper()}{head[1:]}; the first of them had waited since {since}.\n"
    return f"hilum: {head}", text, f"over {kind} {since}"
