"""The pages of the models, and the same by JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from schemas.card import ModelCard, model_id, read_card
from schemas.person import Role
from schemas.registry import Check, ModelReader, ModelState
from tests.unit.worklist.ward import EFFUSION, NOW, PNEUMOTHORAX, Ward, read
from worker.record.audit import Audit
from worker.record.registry import Registry
from worker.record.shadow import Shadows

LIVE = read_card(Path(__file__).parents[3] / "worker" / "models" / "starter")
PROOF = Check(name="openvino (CPU)", passed=True, words="golden probabilities within 0.0001")


def version(number: str, **fields: object) -> ModelCard:
    points = {name: point + 1e-6 for name, point in LIVE.thresholds.items()}
    return replace(LIVE, version=number, files={**LIVE.files, "more": number}, thresholds=points, **fields)  # type: ignore[arg-type]


NEW = version("0.2.1")
A, B = model_id(LIVE), model_id(NEW)


@dataclass
class Desk:
    """A site whose starter is live and whose next version reads along, and its administrator's browser."""

    ward: Ward
    registry: Registry
    client: TestClient

    def get(self, path: str, code: int = 200) -> str:
        """A page as a person reads it."""
        answer = self.client.get(path)
        assert answer.status_code == code, answer.text
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())

    def post(self, path: str, code: int = 303, **form: str) -> str:
        answer = self.client.post(path, data=form)
        assert answer.status_code == code, answer.text
        return str(answer.text)

    def deeds(self) -> list[str]:
        return [deed.action for _, deed in Audit(self.ward.database).deeds(10)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    ward = Ward(tmp_path)
    registry = Registry(ward.database)
    registry.first("starter", LIVE, NOW, [PROOF])
    registry.add("next", NEW, who="bert", why="retrained", now=NOW, proofs=[PROOF])
    registry.move(B, ModelState.SHADOW, who="bert", why="to be seen", now=NOW)
    yield Desk(ward, registry, ward.client())
    ward.close()


def test_what_reads_and_what_there_is(desk: Desk) -> None:
    desk.registry.report(
        ModelReader(reader="host/1", model_id=A, since=NOW, shadow_id=B, fault="", dropped=3, seen_at=NOW)
    )
    page = desk.get("/models")
    assert "reads starter 0.2.0" in page and "reads along, unheard starter 0.2.1" in page
    assert "host/1 starter 0.2.0" in page and "3 films dropped: no time" in page and "as it should" in page
    assert "0.68 (0.64 to 0.73)" in page and "Apache-2.0" in page
    assert "configuration" in page and "bert" in page
    assert "Roll back" not in page  # there is nothing to go back to


def test_a_process_that_could_not_follow_is_seen(desk: Desk) -> None:
    desk.registry.report(
        ModelReader(
            reader="host/1", model_id=B, since=NOW, shadow_id=None, fault="golden film 3", dropped=0, seen_at=NOW
        )
    )
    assert "golden film 3" in desk.get("/models")


def test_promoted_and_rolled_back_by_forms(desk: Desk) -> None:
    page = desk.get(f"/models/{B}")
    assert "Promotion gate" in page and "not met" not in page and "Promote now" in page
    desk.post(f"/models/{B}/promote", instead_of=A, why="better")
    assert desk.registry.wanted() == (B, None)
    assert "Roll back to starter 0.2.0" in desk.get("/models")
    desk.post("/models/rollback", instead_of=B, why="too many flags")
    assert desk.registry.wanted() == (A, None)
    assert "too many flags" in desk.get("/models")
    assert "is live by now" in desk.post("/models/rollback", 409, instead_of=B, why="again")
    assert desk.deeds() == ["rolled the live model back", "promoted a model"]


def test_the_gate_is_shown_and_holds(desk: Desk) -> None:
    desk.registry.move(B, ModelState.CANDIDATE, who="bert", why="", now=NOW)
    bad = version("0.3.0", metrics={})
    entered = desk.registry.add("bad", bad, who="bert", why="", now=NOW, proofs=[PROOF]).model_id
    desk.post(f"/models/{entered}/move", to="shadow", why="")
    assert "not measured" in desk.get(f"/models/{entered}")
    assert "is not promoted" in desk.post(f"/models/{entered}/promote", 409, instead_of=A, why="x")
    assert desk.registry.wanted() == (A, entered)


def test_two_people(desk: Desk) -> None:
    client = desk.ward.client(name="bert", models=desk.ward.models(two_people=True))
    assert "somebody else must" in client.get(f"/models/{B}").text
    answer = client.post(f"/models/{B}/promote", data={"instead_of": A, "why": "mine"})
    assert answer.status_code == 409
    other = desk.ward.client(name="anna", models=desk.ward.models(two_people=True))
    assert other.post(f"/models/{B}/promote", data={"instead_of": A, "why": "hers"}).status_code == 303


def test_a_card_in_full(desk: Desk) -> None:
    page = desk.get(f"/models/{A}")
    assert "pneumothorax" in page and "For whom" in page and "18-39" in page
    assert "Not a medical device; not for clinical use." in page and "NIH Clinical Center" in page
    assert "Promotion gate" not in page and "Retire" not in page
    assert "thin line: starter 0.2.0, which reads" in desk.get(f"/models/{B}")


def test_what_was_live_at(desk: Desk) -> None:
    later = (NOW + timedelta(hours=1)).replace(tzinfo=None).isoformat()
    assert f"starter 0.2.0 {A} , live from" in desk.get(f"/models?at={later}")
    assert "had none yet" in desk.get("/models?at=2020-01-01T00:00")
    assert "is no moment" in desk.get("/models?at=yesterday", 422)
    assert desk.client.get("/api/v1/models/live-at", params={"at": later}).json()["model_id"] == A
    assert desk.client.get("/api/v1/models/live-at", params={"at": "2020-01-01"}).status_code == 404
    assert desk.client.get("/api/v1/models/live-at", params={"at": "x"}).status_code == 422
    assert desk.client.get("/api/v1/models/live-at", params={"at": "0001-01-01T00:00+14:00"}).status_code == 422


def test_side_by_side(desk: Desk) -> None:
    assert "It has read nothing in this time" in desk.get(f"/models/{B}/compare")
    said = [((PNEUMOTHORAX,), ()), ((), (EFFUSION,)), ((EFFUSION,), (EFFUSION,)), ((), ())]
    for study, (aloud, silent) in enumerate(said, start=1):
        desk.ward.study(study, read(*aloud))
        live, heard = read(*aloud), read(*silent)
        heard = replace(heard, prediction=replace(heard.prediction, model_id=B))
        Shadows(desk.ward.database).keep(
            study, (heard.prediction, heard.decision), (live.prediction, live.decision), NOW
        )
    page = desk.get(f"/models/{B}/compare?days=1")
    assert "Flags gained 1" in page and "Flags lost 1" in page and "Agreement 50.0 %" in page
    assert "effusion" in page and "pneumothorax" in page
    assert "normal" not in page.lower()
    answer = desk.client.get(f"/api/v1/models/{B}/compare").json()
    assert (answer["gained"], answer["lost"], answer["studies"]) == (1, 1, 4)


def test_a_bundle_is_entered(desk: Desk) -> None:
    def enter(bundle: str, why: str, who: str) -> str:
        card = version("0.4.0")
        return desk.registry.add(bundle, card, who=who, why=why, now=NOW, proofs=[PROOF]).model_id

    client = desk.ward.client(models=desk.ward.models(enter))
    answer = client.post("/models", data={"bundle": "retrained", "why": "new films"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/models/{model_id(version('0.4.0'))}"
    assert "no model bundle named" in desk.post("/models", 409, bundle="nobody")


def test_what_others_wrote_is_text(desk: Desk) -> None:
    hostile = version("0.5<script>alert(1)</script>", name="<b>bold</b>", licence="<i>", limits=("<script>",))
    entered = desk.registry.add("x", hostile, who="<u>", why="<img src=x>", now=NOW, proofs=[PROOF]).model_id
    for path in ("/models", f"/models/{entered}", f"/models/{entered}/compare"):
        text = desk.client.get(path).text
        assert "<script>alert" not in text and "<b>bold" not in text and "<img" not in text


def test_the_same_by_json(desk: Desk) -> None:
    client = desk.client
    listed = client.get("/api/v1/models").json()
    assert {row["model_id"]: row["state"] for row in listed["models"]} == {A: "live", B: "shadow"}
    one = client.get(f"/api/v1/models/{B}").json()
    assert all(check["passed"] for check in one["checks"]) and one["card"]["thresholds"]
    assert client.post(f"/api/v1/models/{B}/promote", json={"instead_of": "x"}).status_code == 409
    assert client.post(f"/api/v1/models/{B}/promote", json={"instead_of": A, "why": "better"}).status_code == 200
    assert client.post("/api/v1/models/rollback", json={"instead_of": B}).status_code == 200
    assert client.post(f"/api/v1/models/{B}/move", json={"to": "candidate"}).status_code == 200
    history = client.get("/api/v1/models/history", params={"limit": 2}).json()
    assert [line["to_state"] for line in history] == ["candidate", "live"]
    assert client.get("/api/v1/models/history", params={"before": history[-1]["id"]}).json()[0]["to_state"] == "retired"
    assert client.get("/api/v1/models/nobody").status_code == 404
    assert client.post("/api/v1/models", json={"bundle": "nobody"}).status_code == 409


def test_an_auditor_sees_and_changes_nothing(desk: Desk) -> None:
    auditor = desk.ward.client(Role.AUDITOR)
    for path in ("/models", f"/models/{B}"):
        text = auditor.get(path).text
        assert "starter 0.2.1" in text and '<form method="post" action="/models' not in text
    assert auditor.post(f"/models/{B}/promote", data={"instead_of": A}).status_code == 403


def test_an_empty_registry(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    assert "The first worker that reads enters the configured one" in ward.client().get("/models").text
    ward.close()
