"""The policy's preview at the server, over a week of 2,000 studies. `python -m tests.benchmarks.bench_policy`

Each time another threshold is asked for, as when it is dragged: every study is decided anew.
"""

from __future__ import annotations

import http.client
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from schemas.person import Role
from tests.benchmarks.databases import on_both
from tests.unit.worklist.policies import past_week, policy_desk
from tests.unit.worklist.ward import Ward
from worker.worklist.web.server import WebServer

STUDIES = 2_000
REPEATS = 40


def run() -> list[tuple[str, str, str]]:
    """Rows of figure, measured, goal."""
    return on_both(_measure)


def _measure(kind: str, url: str, folder: Path) -> list[tuple[str, str, str]]:
    ward = Ward(folder, now=datetime.now(UTC), url=url)
    past_week(ward, STUDIES)
    server = WebServer(ward.app(policy=policy_desk(ward)), "127.0.0.1", 0)
    server.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        cookie = ward.session(Role.ADMINISTRATOR)
        first = _ask(connection, cookie, 0.5)
        took = sorted(_ask(connection, cookie, 0.02 + step / 1000) for step in range(REPEATS))
        connection.close()
    finally:
        server.stop()
        ward.close()
    some = f"the preview of {STUDIES:,} studies, {kind}"
    return [
        (f"{some}, when they are read first", f"{1000 * first:.0f} ms", ""),
        (
            f"{some}, while a threshold is dragged",
            f"p50 {1000 * took[REPEATS // 2]:.0f} ms, p95 {1000 * took[int(0.95 * REPEATS)]:.0f} ms",
            "≤ 300 ms",
        ),
    ]


def _ask(connection: http.client.HTTPConnection, cookie: str, threshold: float) -> float:
    policy = {"findings": {"Pneumothorax": {"urgency": "STAT", "threshold": threshold}}}
    query = urlencode({"policy": json.dumps(policy), "days": "8"})
    began = time.perf_counter()
    connection.request("GET", f"/api/v1/policies/preview?{query}", headers={"Cookie": f"hilum={cookie}"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - began
    assert answer.status == 200, body
    assert json.loads(body)["studies"] == STUDIES
    return took


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
