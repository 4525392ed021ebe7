"""Watch every scanner's films for what changes what a model says of them; tell whoever mends it, once each.

Where the configuration says so, scores that are spread otherwise pause flags until somebody resumes them. Nothing here
ever touches receiving or reading.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from schemas.errors import DeliveryError
from schemas.watching import DriftAlarm, DriftRules, Measure
from worker.record.drift import Drift
from worker.record.pauses import Pauses
from worker.upkeep.alarm import Tell

EVERY = timedelta(minutes=10)
WHO: Final = "drift watch"  # in whose name flags are paused

log = logging.getLogger("hilum.upkeep")

_MENDS: Final = {
    Measure.SCORES: "Look at its films: a new detector, another processing or other patients? Compare flags with what "
    "readers say (Watching, Readers agree). If the films are as they should be, let hilum learn them anew.",
    Measure.NOT_ANALYSED: "`hilum results` names the reason for each film that is not analysed; mostly it is the "
    "scanner's header or its views.",
    Measure.POLARITY: "hilum turns such films, and reads them; the scanner says MONOCHROME1 where it means "
    "MONOCHROME2, or the other way round.",
    Measure.NEW: "Nothing is known yet of how the model does on its films: look at its flags with care.",
}


def run_once(
    drift: Drift, pauses: Pauses, tell: Tell | None, now: datetime, *, rules: DriftRules, pause: bool = False
) -> int:
    """Look at every scanner; returns how many alarms began.

    `pause`: scores that are spread otherwise pause flags. Without `tell` the log alone says so, and the page.
    """
    begun = drift.watch(rules, now)
    for alarm in begun:
        log.warning("drift measure=%s value=%.3f limit=%.3f", alarm.measure.value, alarm.value, alarm.limit)
    if pause:
        _pause(pauses, begun, now)
    if tell is not None:
        for alarm in drift.untold():
            if _told(tell, alarm):
                drift.told(alarm, now)
    return len(begun)


def _pause(pauses: Pauses, begun: Sequence[DriftAlarm], now: datetime) -> None:
    shifted = [alarm for alarm in begun if alarm.measure is Measure.SCORES]
    if shifted and pauses.pause(WHO, "; ".join(alarm.words for alarm in shifted), now):
        log.warning("flags-paused by=drift scanners=%d", len(shifted))


def _told(tell: Tell, alarm: DriftAlarm) -> bool:
    over = alarm.ended_at is not None
    head = f"films {'are as they were again' if over else 'have changed'}: {alarm.scanner.words}"
    since = f"{alarm.began_at.astimezone():%Y-%m-%d %H:%M}"
    text = f"{alarm.words}, since {since}.\n\n{'It is over.' if over else _MENDS[alarm.measure]}\n"
    try:
        tell(f"hilum: {head}", text, f"drift {alarm.id}{' over' if over else ''}")
    except DeliveryError as error:  # the next round tells it
        log.error("alarm-not-sent about=drift error=%s", error)
        return False
    return True
