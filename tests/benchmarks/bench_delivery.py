"""Delivery: how many flags a second, and whether a hostile receiver costs the others anything.

The record, the couriers and the channels are the worker's own, in one process on SQLite; the receivers (the simulated
PACS, python-hl7 over MLLP, an HTTP server) are another process on the same machine. Flags are written through door 2.

    python -m tests.benchmarks.bench_delivery [MINUTES]     of the calm run and of the hostile one, each: 2 for every
                                                            mood at every destination, 10 for the full one
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from schemas.decision import Urgency
from schemas.identity import StudyContext
from schemas.outcome import Audience
from tests.contract.record.given import Record, read
from tests.receivers import NAMES, Mood, Proxy, channel
from worker.corridor.bell import Bell
from worker.corridor.delivery import Courier, Couriers, DeliveryRules
from worker.record.database import Database
from worker.record.destinations import Destinations
from worker.record.times import Stage, Times

FLAGS = 1000
THREE = ("pacs", "emr", "hook")
HOSTILE = [mood for mood in Mood if mood is not Mood.GOOD]
EACH_SECOND = 6  # flags under load: a busy hospital's hour in a minute
RULES = DeliveryRules()
# The hostile run. A destination is found again soon, so that it is a healthy one for most of the time.
IMPATIENT = replace(RULES, longest=2.0)
TIMEOUT = 2.0  # seconds, of a channel
SPELL = 5.0  # seconds at least for which one destination is hostile, before it is the next one's turn
ON_ITS_WAY = timedelta(seconds=1)
# The last attempt into the silence, the longest rest after it, and two seconds for what piled up.
RECOVERY = timedelta(seconds=TIMEOUT + 1.25 * IMPATIENT.longest + 2.0)


def now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def receivers(folder: Path) -> Iterator[dict[str, int]]:
    """Ports by name."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.receivers", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.communicate(timeout=60)


@contextmanager
def fresh(folder: Path) -> Iterator[Record]:
    """An empty database."""
    url = f"sqlite:///{folder}/hilum.db"
    database = Database(url)
    database.migrate()
    yield Record(database, url)
    database.close()


def raise_flag(record: Record, study: int, names: Sequence[str], film: int = 1) -> None:
    """One film received, read and decided, for the destinations `names`; a later film is more urgent."""
    audiences = tuple(Audience(name=name, when="analysed") for name in names)
    context = StudyContext(patient_id=f"P{study}", accession_number=f"A{study}", modality="DX")
    record.receive(film, study, context=context, at=now())
    urgency = Urgency.STAT if film > 1 else Urgency.URGENT
    record.conclude(record.claim(at=now()), read(0.9, urgency), audiences=audiences, at=now())


@contextmanager
def couriers(
    record: Record, ports: dict[str, int], rules: DeliveryRules, news: Bell, *, timeout: float = 5.0
) -> Iterator[None]:
    """One for each destination."""
    running = Couriers(
        [
            Courier(
                outbox=record.outbox,
                destinations=Destinations(record.database),
                channel=channel(name, port, timeout=timeout),
                news=news,
                owner="bench",
                rules=rules,
                clock=now,
            )
            for name, port in ports.items()
        ]
    )
    running.start()
    try:
        yield
    finally:
        running.stop()


def drain(rules: DeliveryRules, flags: int = FLAGS) -> float:
    """Flags a second, each to three destinations, from the first to the last."""
    with tempfile.TemporaryDirectory() as name, receivers(Path(name)) as ports, fresh(Path(name)) as record:
        for study in range(flags):
            raise_flag(record, study, THREE)
        began = time.monotonic()
        with couriers(record, {name: ports[name] for name in THREE}, rules, Bell()):
            while record.outbox.counts():
                time.sleep(0.05)
        return flags / (time.monotonic() - began)


class Spell(NamedTuple):
    """While a destination is hostile, and the time around it in which it cannot be called healthy."""

    destination: str
    began: datetime
    ended: datetime

    def spoils(self, destination: str, decided_at: datetime) -> bool:
        """Whether what is decided then is no flag for a healthy destination."""
        return destination == self.destination and self.began - ON_ITS_WAY <= decided_at <= self.ended + RECOVERY


def under_load(seconds: float, *, hostile: bool) -> dict[str, list[float]]:
    """Milliseconds from decision to receipt at each destination while nothing, or one after the other, is hostile.

    In the hostile run one of the destinations is hostile at any time. Counted are the flags that are decided while
    their own destination is healthy: not while it is hostile, nor in the second before, because what is under way when
    it begins is held up by the destination itself, nor until it must have been found again and have what piled up.
    When a flag is decided alone says whether it counts, never how long it took.
    """
    with tempfile.TemporaryDirectory() as folder, receivers(Path(folder)) as ports, fresh(Path(folder)) as record:
        proxies = {name: Proxy(port) for name, port in ports.items()}
        news, stop, spells = Bell(), threading.Event(), list[Spell]()

        def trouble() -> None:
            moods, spell = cycle(HOSTILE), max(SPELL, seconds / 40)
            for name in cycle(NAMES):
                began, proxies[name].mood = now(), next(moods)
                over = stop.wait(spell)
                proxies[name].mood = Mood.GOOD
                spells.append(Spell(name, began, now()))
                if over:
                    return

        with couriers(record, {n: p.port for n, p in proxies.items()}, IMPATIENT, news, timeout=TIMEOUT):
            troublemaker = threading.Thread(target=trouble, daemon=True)
            if hostile:
                troublemaker.start()
            began, study = time.monotonic(), 0
            while time.monotonic() - began < seconds:
                raise_flag(record, study, NAMES)
                news.ring()
                study += 1
                time.sleep(max(0.0, began + study / EACH_SECOND - time.monotonic()))
            stop.set()
            if hostile:
                troublemaker.join()
            while record.outbox.counts():
                time.sleep(0.05)
        for proxy in proxies.values():
            proxy.close()
        took: dict[str, list[float]] = {name: [] for name in NAMES}
        for flag in Times(record.database).flags(now() - timedelta(days=1), now()):
            waited = flag.waited()
            if not any(spell.spoils(flag.destination, flag.decided_at) for spell in spells):
                took[flag.destination].append(1000 * (waited[Stage.PROVEN] - waited[Stage.DECIDED]))
        return took


def p99(values: list[float]) -> float:
    values = sorted(values)
    return values[-1 - len(values) // 100]


def run(minutes: float = 1.0) -> list[tuple[str, str, str]]:
    """Rows (figure, measured, goal)."""
    together, alone = drain(RULES), drain(replace(RULES, most=1), FLAGS // 4)
    rows = [
        (f"{FLAGS} flags to SR, HL7 and webhook", f"{together:.0f} flags/s, {3 * together:.0f} deliveries/s", "≥ 100"),
        ("  … one at a time, two commits for each", f"{alone:.0f} flags/s", ""),
    ]
    calm, rough = (under_load(60 * minutes, hostile=hostile) for hostile in (False, True))
    for name in NAMES:
        rows.append(
            (
                f"decision to proof at {name}, p50 and p99: undisturbed; healthy, while another is hostile",
                f"{statistics.median(calm[name]):.0f}, {p99(calm[name]):.0f} ms of {len(calm[name])} flags; "
                f"{statistics.median(rough[name]):.0f}, {p99(rough[name]):.0f} ms of {len(rough[name])}",
                "p99 within 20 %",
            )
        )
    return rows


if __name__ == "__main__":
    for line in run(*map(float, sys.argv[1:])):
        print(*line, sep=" | ")
