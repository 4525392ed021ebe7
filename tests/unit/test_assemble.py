"""What the settings become: only what no acceptance test would see."""

from __future__ import annotations

import http.client
from datetime import timedelta
from pathlib import Path

import pytest

from worker.assemble import Role, Worker, database, delivery_rules
from worker.corridor.delivery import DeliveryRules
from worker.settings import Database, Settings, SpoolSettings, SrDestination, Web


def test_the_page_is_served_under_the_names_that_are_configured(tmp_path: Path) -> None:
    settings = Settings(
        database=Database(url=f"sqlite:///{tmp_path}/hilum.db"),
        spool=SpoolSettings(path=tmp_path / "spool"),
        web=Web(port=0, hosts=["worklist.hospital.example"]),
    )
    database(settings).migrate()
    worker = Worker(settings, [Role.WEB])
    worker.start()
    try:
        assert worker.web is not None
        answers = {}
        for host in ("worklist.hospital.example", "elsewhere.example"):
            connection = http.client.HTTPConnection("127.0.0.1", worker.web.port, timeout=10)
            connection.request("GET", "/healthz", headers={"Host": host})
            answers[host] = connection.getresponse().status
            connection.close()
    finally:
        worker.stop()
    assert answers == {"worklist.hospital.example": 200, "elsewhere.example": 400}


@pytest.mark.parametrize("timeout", [1.0, 10.0, 20.0, 120.0])
def test_a_slow_destination_keeps_its_lease(timeout: float) -> None:
    """A kept association; connecting, negotiating, storing anew; the same for commitment: as slow as is allowed."""
    rules = delivery_rules(SrDestination(name="pacs", kind="dicom-sr", ae_title="PACS", port=104, timeout=timeout))
    assert rules.lease > timedelta(seconds=7 * timeout)
    assert rules.lease >= DeliveryRules().lease
