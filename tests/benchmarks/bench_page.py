"""The pages at the server, with a long list and a long past. `python -m tests.benchmarks.bench_page`

10,000 open studies and a million that are closed, each with a film, a revision and a flag that was delivered.
"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from schemas.identity import StudyContext
from schemas.person import Role
from schemas.tables import Job, OutboxRow, Revision, Study
from tests.benchmarks.databases import on_both
from tests.unit.worklist.ward import Ward
from worker.record.database import Database
from worker.worklist.web.server import WebServer

OPEN, CLOSED = 10_000, 1_000_000
REPEATS = 60
_BATCH = 20_000
_NOBODY = asdict(StudyContext())


def run() -> list[tuple[str, str, str]]:
    """Rows of figure, measured, goal."""
    return on_both(_measure)


def _measure(kind: str, url: str, folder: Path) -> list[tuple[str, str, str]]:
    ward = Ward(folder, now=datetime.now(UTC), url=url)
    fill(ward.database, ward.now)
    cookie = ward.session(Role.RADIOLOGIST)
    server = WebServer(ward.app(), "127.0.0.1", 0)
    server.start()
    some = f"{OPEN:,} open, {CLOSED:,} closed, {kind}"
    pages = (
        (f"the list's first page, {some}", "/", "p95 ≤ 100 ms"),
        ("… its last", f"/?offset={OPEN - 100}", "p95 ≤ 100 ms"),
        ("… searched by name", "/?q=phantom+7777", "p95 ≤ 100 ms"),
        ("… only STAT, free ones", "/?urgency=STAT&claims=free", "p95 ≤ 100 ms"),
        ("… as JSON", "/api/v1/worklist", "p95 ≤ 100 ms"),
        ("a study's page", "/studies/1.2.9.77", "p95 ≤ 100 ms"),
    )
    try:
        return [(words, _figures(server.port, path, cookie), goal) for words, path, goal in pages]
    finally:
        server.stop()
        ward.close()


def _figures(port: int, path: str, cookie: str) -> str:
    took = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number in range(REPEATS + 3):
        began = time.perf_counter()
        connection.request("GET", path, headers={"Cookie": f"hilum={cookie}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        if number >= 3:
            took.append(1000 * (time.perf_counter() - began))
    took.sort()
    return f"p50 {took[len(took) // 2]:.0f} ms, p95 {took[int(0.95 * len(took))]:.0f} ms"


def fill(database: Database, now: datetime) -> None:
    """The open studies, of which every tenth is STAT and every fifth urgent, and the past."""

    def write(first: int, count: int, *, closed: bool) -> None:
        def work(connection: sa.Connection) -> None:
            numbers = range(first, first + count)
            stat = {n: (2 if n % 10 == 0 else 1 if n % 5 == 0 else 0) for n in numbers}
            at = {n: now - timedelta(seconds=(n % 30_000) + (86_400 * 30 if closed else 0)) for n in numbers}
            reasons = [{"words": "pneumothorax 0.91, threshold 0.62"}]
            connection.execute(
                sa.insert(Study),
                [
                    {
                        "id": n,
                        "study_uid": f"1.2.9.{n}",
                        "context": {
                            **_NOBODY,
                            "patient_id": f"P{n:07}",
                            "patient_name": f"PHANTOM^{n}",
                            "accession_number": f"A{n:07}",
                            "study_description": "XR CHEST PA",
                            "modality": "DX",
                        },
                        "accession_number": f"A{n:07}",
                        "patient_id": f"P{n:07}",
                        "rank": stat[n],
                        "urgency": stat[n],
                        "state": "final",
                        "reasons": reasons if stat[n] else [],
                        "revision": 1,
                        "received_at": at[n],
                        "last_received_at": at[n],
                        "decided_at": at[n],
                        "closed": closed,
                        "changes": 3,
                    }
                    for n in numbers
                ],
            )
            connection.execute(
                sa.insert(Job),
                [
                    {
                        "id": n,
                        "study_id": n,
                        "sop_uid": f"1.2.9.{n}.1",
                        "version": 1,
                        "current": True,
                        "digest": "d",
                        "path": None if closed else f"{n}.dcm",
                        "size": 1,
                        "series_uid": f"1.2.9.{n}.2",
                        "sop_class": "1.2.840.10008.5.1.4.1.1.1.1",
                        "transfer_syntax": "1.2.840.10008.1.2.1",
                        "calling_ae": "ROOM1",
                        "called_ae": "HILUM",
                        "address": "127.0.0.1",
                        "order_urgency": 0,
                        "state": "not-analysed" if n % 7 == 0 else "read",
                        "not_before": at[n],
                        "received_at": at[n],
                        "concluded_at": at[n],
                        "not_analysed": "lateral" if n % 7 == 0 else None,
                    }
                    for n in numbers
                ],
            )
            connection.execute(
                sa.insert(Revision),
                [
                    {
                        "id": n,
                        "study_id": n,
                        "revision": 1,
                        "urgency": stat[n],
                        "snapshot": {"reasons": [], "films": [], "context": {}},
                        "digest": "d",
                        "model_id": "m",
                        "model_name": "starter",
                        "model_version": "1",
                        "decided_at": at[n],
                    }
                    for n in numbers
                ],
            )
            connection.execute(
                sa.insert(OutboxRow),
                [
                    {
                        "revision_id": n,
                        "study_id": n,
                        "revision": 1,
                        "destination": "pacs",
                        "urgency": stat[n],
                        "state": "sent",
                        "attempts": 1,
                        "next_attempt_at": at[n],
                        "created_at": at[n],
                        "sent_at": at[n],
                        "proven_at": at[n],
                        "object_id": f"2.25.{n}",
                        "proof": "C-STORE 0x0000",
                    }
                    for n in numbers
                ],
            )

        database.write(work)

    for first in range(1, OPEN + 1, _BATCH):
        write(first, min(_BATCH, OPEN), closed=False)
    for first in range(OPEN + 1, OPEN + CLOSED + 1, _BATCH):
        write(first, _BATCH, closed=True)
    if not database.sqlite:
        with database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))  # as autovacuum does by itself


if __name__ == "__main__":
    print(json.dumps(run(), indent=1, ensure_ascii=False))
