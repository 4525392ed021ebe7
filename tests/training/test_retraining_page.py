"""A retraining from the page to its bundle: the real trainer and flow, with a small network in DenseNet's place."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import expect

from schemas.card import model_id, read_card
from schemas.findings import FINDINGS
from schemas.person import Role
from tests.browser import VIOLATIONS, Server, chromium, entered
from tests.unit.worklist.ward import Ward
from training.runs import Runs
from training.trainer import Trainer, child_command

ROOT = Path(__file__).parents[2]
# `python -m training`, but for the network, and for the worker that would prove the bundle.
SMALL = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import typer
from tests.training.conftest import small_build
from training import cli, network
network.build = small_build
cli._proven_by_the_worker = lambda bundle: None
typer.run(cli.train)
"""


def small(folder: Path, data: Path) -> list[str]:
    real = child_command(folder, data)
    return [sys.executable, "-c", SMALL, *real[real.index("training") + 1 :]]


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.close()


@pytest.fixture
def trainer(ward: Ward) -> Iterator[Trainer]:
    over = threading.Event()
    queue = Runs(f"sqlite:///{ward.folder / 'hilum.db'}")
    works = Trainer(queue, ward.folder / "runs", command=small, stopping=over.is_set, idle=0.1)
    thread = threading.Thread(target=works.work)
    thread.start()
    yield works
    over.set()
    thread.join(60)
    queue.close()


def test_the_quick_preset_from_the_page_to_a_bundle(ward: Ward, trainer: Trainer, nih: Path) -> None:
    client: TestClient = ward.client()
    group = ["pair" if finding.value in ("Mass", "Nodule") else "" for finding in FINDINGS]
    asked = client.post("/training/runs", data={"preset": "quick", "data": str(nih), "name": "mine", "group": group})
    assert asked.headers["location"] == "/training/runs/1"
    server = Server(ward)
    with chromium() as browser:
        page = entered(browser, server, ward, Role.ADMINISTRATOR).new_page()
        page.add_init_script(VIOLATIONS)
        page.goto(server.url + "training/runs/1")
        page.evaluate("window.sameDocument = true")
        expect(page.locator(".chart")).to_have_count(2, timeout=120_000)  # the first epoch of the first model
        expect(page.locator(".run-state")).to_have_text("running")
        expect(page.locator(".run-state")).not_to_have_text("running", timeout=120_000)
        assert page.locator(".run-state").inner_text().strip() == "done", page.locator("main").inner_text()
        dots = page.locator("svg[aria-label^='loss'] circle")
        assert dots.count() == 3 + 1 + 1  # both stages of the one model, and the other's
        assert page.evaluate("window.sameDocument")
        assert "pair" in page.locator("section[aria-labelledby=facts]").inner_text()
        page.get_by_role("link", name="Open the report").click()
        expect(page.get_by_role("heading", name="mine", exact=False).first).to_be_visible()
        assert page.evaluate("window.violations") == []
    server.stop()
    run = client.get("/api/v1/training/runs/1").json()
    card = read_card(Path(run["result"]["bundle"]))
    assert (run["result"]["model_id"], card.name) == (model_id(card), "mine")
    assert card.training["groups"] == {"pair": ["Mass", "Nodule"]}
    assert "task name=export" in run["progress"]["log"]
