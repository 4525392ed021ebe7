"""The live model is changed by command while `hilum serve` reads: films keep coming, and each study's SR arrives."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from schemas.card import read_card
from schemas.registry import Check
from schemas.tables import PredictionRow
from tests.acceptance.harness import HILUM, Hilum, storescu, until
from tests.acceptance.hospital import Hospital
from tests.integration.test_models_change import copy_of_starter, now
from worker.record.registry import Registry
from worker.simulate import phantom


def models(hilum: Hilum, *words: str) -> str:
    """`hilum models …` beside the running process."""
    run = subprocess.run(
        [HILUM, "models", *words, "--config", hilum.config], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def read_by(hilum: Hilum, model: str) -> int:
    """Films that it has read."""
    statement = sa.select(sa.func.count()).where(PredictionRow.model_id == model)
    return hilum.record.read(lambda connection: connection.execute(statement).scalar_one())


@pytest.mark.timeout(600)
def test_promoted_and_rolled_back_by_command(hospital: Hospital, database_url: str, tmp_path: Path) -> None:
    store = tmp_path / "models"
    hilum = hospital.hilum(database_url, extra=f'[model]\nstore = "{store}"\n')
    hilum.start()
    registry = Registry(hilum.record)
    first = registry.wanted()[0]
    assert first is not None
    card = read_card(copy_of_starter(store / "next", "0.2.1"))
    proof = Check(name="openvino (CPU)", passed=True, words="by the copied model")
    new = registry.add("next", card, who="anna", why="retrained", now=now(), proofs=[proof]).model_id

    enough, sent = threading.Event(), list[str]()

    def send() -> None:
        while not enough.wait(0.2):
            film = phantom.dataset(len(sent), rows=512, columns=448)
            path = tmp_path / f"{len(sent)}.dcm"
            film.save_as(path, enforce_file_format=True)
            assert storescu(hilum.dicom_port, [path]).returncode == 0
            sent.append(str(film.StudyInstanceUID))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        models(hilum, "shadow", "next", "--why", "to be seen")
        until("the shadow to have read", lambda: '"films": 0' not in models(hilum, "compare", "--json"), 60, 1)
        models(hilum, "promote", "next", "--why", "as good")
        until("the new model to read", lambda: read_by(hilum, new) >= 3, 90)
        before = read_by(hilum, first)
        models(hilum, "rollback", "--why", "too many flags")
        until("the old model to read again", lambda: read_by(hilum, first) >= before + 3, 30)
    finally:
        enough.set()
        sender.join(60)
    assert registry.wanted() == (first, None)
    assert "live still" in models(hilum, "live-at", now().isoformat())

    studies = set(sent)
    until("every study to be settled", lambda: hilum.worklist().keys() >= studies and hilum.settled(), 60)
    until("every SR to arrive", lambda: hospital.reports().keys() >= studies, 120, 0.5)
    assert read_by(hilum, first) + read_by(hilum, new) == len(sent)
    assert hilum.stop() == 0
