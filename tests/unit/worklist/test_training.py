"""The pages and calls of training runs: what they show, what they do, and for whom."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.errors import BundleInvalid
from schemas.findings import FINDINGS
from schemas.person import Role
from schemas.registry import ModelState
from schemas.training_run import Curve, Progress, RunState
from tests.unit.worklist.test_page import Words, seen
from tests.unit.worklist.ward import Ward
from training.runs import Claimed, Runs
from worker.record.audit import Audit
from worker.record.retrainings import Retrainings
from worker.record.training_runs import TrainingRuns
from worker.worklist.web.routes.training import RUNS

LEASE = timedelta(seconds=60)
FORM = {"preset": "quick", "data": "/films/nih", "name": "mine"}
PLAN = '[[multilabel]]\nname = "64px"\nepochs = 3\n[[binary]]\nname = "96px"\n'
EPOCH = {"epoch": 1.0, "loss": 0.51234, "auroc": 0.61, "films_per_second": 88.8, "minutes": 1.5}
RESULT = {
    "bundle": "/runs/00001-mine/bundle",
    "model_id": "0123456789abcdef",
    "name": "mine",
    "version": "1",
    "macro": {"value": 0.71, "low": 0.69, "high": 0.73},
    "binary": 0.68,
}


@pytest.fixture
def runs(ward: Ward) -> TrainingRuns:
    return TrainingRuns(ward.database)


@pytest.fixture
def queue(ward: Ward) -> Iterator[Runs]:
    queue = Runs(f"sqlite:///{ward.folder / 'hilum.db'}")
    yield queue
    queue.close()


def begun(ward: Ward, runs: TrainingRuns, queue: Runs, **progress: Any) -> Claimed:
    """A run that a trainer has in hand."""
    runs.request(name="mine", preset="quick", data="/films", requested_by="anna", now=ward.now)
    claimed = queue.claim("gpu/1", LEASE, ward.now)
    assert claimed is not None
    queue.describe(claimed, folder="/runs/00001-mine", description=PLAN)
    queue.progress(claimed, Progress(**progress), LEASE, ward.now)
    return claimed


def actions(ward: Ward) -> list[str]:
    return [deed.action for _, deed in Audit(ward.database).deeds(100)]


def test_a_run_is_asked_for_and_called_off(ward: Ward, client: TestClient, runs: TrainingRuns) -> None:
    assert "No trainer is there" in seen(client, "/training")
    answer = client.post("/training/runs", data=FORM)
    assert (answer.status_code, answer.headers["location"]) == (303, "/training/runs/1")
    run = runs.show(1)
    assert (run.name, run.preset, run.data, run.description) == ("mine", "quick", "/films/nih", "")
    assert run.requested_by == "dr administrator"
    assert "waiting for a trainer" in seen(client, "/training/runs/1")
    assert client.post("/training/runs/1/cancel").status_code == 303
    assert runs.show(1).state is RunState.CANCELLED
    again = client.post("/training/runs/1/cancel")
    assert again.status_code == 409
    assert "nothing to cancel" in again.text
    assert client.post("/training/runs/1/resume").status_code == 303
    assert runs.show(1).state is RunState.REQUESTED
    assert client.post("/training/runs/1/resume").status_code == 409
    assert actions(ward)[:3] == ["resumed a training run", "called a training run off", "asked for a training run"]


def test_the_name_is_the_presets_where_none_is_given(client: TestClient, runs: TrainingRuns) -> None:
    client.post("/training/runs", data={"preset": "nih", "data": "/films", "name": ""})
    assert runs.show(1).name == "nih"


def test_label_groups_are_laid_over_the_preset(client: TestClient, runs: TrainingRuns) -> None:
    beside = ["opacity" if f.value in ("Infiltration", "Pneumonia", "Pleural_Thickening") else " " for f in FINDINGS]
    client.post("/training/runs", data={**FORM, "group": beside})
    assert tomllib.loads(runs.show(1).description) == {
        "model": {"groups": {"opacity": ["Infiltration", "Pleural_Thickening", "Pneumonia"]}}
    }
    assert "group opacity Infiltration, Pleural Thickening, Pneumonia" in seen(client, "/training/runs/1")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "../up"}, "letters, digits"),
        ({"data": ""}, "in which folder"),
        ({"preset": "", "name": "a"}, "give one of them"),
        ({"preset": "../secret"}, "not the name of a preset"),
        ({"group": ["", "alone"]}, "has one label alone, Cardiomegaly"),
        ({"group": ['"]', '"]']}, "group"),
    ],
)
def test_what_cannot_be_asked_is_said_and_what_was_written_stays(
    client: TestClient, runs: TrainingRuns, wrong: dict[str, Any], words: str
) -> None:
    answer = client.post("/training/runs", data={**FORM, **wrong})
    assert answer.status_code == 422
    page = Words(answer.text)
    assert words in page.text
    written = {e["name"]: e.get("value") for tag, e in page.elements if tag == "input" and "name" in e}
    assert written["data"] == {**FORM, **wrong}["data"]
    assert runs.list() == []


def test_earlier_runs_are_a_link_away(ward: Ward, client: TestClient, runs: TrainingRuns) -> None:
    for number in range(RUNS + 1):
        runs.request(name=f"run{number}", preset="quick", data="/films", requested_by="anna", now=ward.now)
    assert "run0 " not in seen(client, "/training")
    assert f'href="/training?limit={5 * RUNS}"' in client.get("/training").text
    assert "run0 " in seen(client, f"/training?limit={5 * RUNS}")
    assert "earlier runs" not in client.get(f"/training?limit={5 * RUNS}").text


def test_presets_are_those_of_the_trainers(ward: Ward, client: TestClient, queue: Runs) -> None:
    queue.here("old/1", {"gone": "x", "quick": "old words"}, ward.now - timedelta(hours=1))
    queue.here("gpu/1", {"quick": "A trial.", "nih": "Everything."}, ward.now)
    text = seen(client, "/training")
    assert "1 trainer there: gpu/1 ." in text
    assert "gone: x" in text
    assert "nih: Everything. quick: A trial." in text


def test_a_run_in_hand_shows_how_far_it_is(ward: Ward, client: TestClient, runs: TrainingRuns, queue: Runs) -> None:
    begun(
        ward,
        runs,
        queue,
        task="multilabel",
        stage="64px",
        epoch=2,
        epochs=3,
        step=15,
        steps=30,
        films_per_second=70.25,
        seconds_left=750.0,
        curves=(Curve(task="multilabel", stage="64px", epochs=(EPOCH,)),),
        log="epoch 1\nepoch <2>",
    )
    text = seen(client, "/training/runs/1")
    for words in (
        "running",
        "38 %",  # 1.5 of 4 epochs
        "multilabel 64px, epoch 2 of 3",
        "70.2 films/s",
        "12 min left of this stage",
        "multilabel 64px 1 0.5123 0.610 88.8",
        "epoch 1 epoch <2>",
    ):
        assert words in text
    page = Words(client.get("/training/runs/1").text)
    told = [e["aria-label"] for tag, e in page.elements if tag == "svg" and "aria-label" in e]
    assert told == [
        "loss of the multilabel model: 0.512 after epoch 1, 0.512 after epoch 1 of 3",
        "AUROC on validation films of the multilabel model: 0.610 after epoch 1, 0.610 after epoch 1 of 3",
    ]
    assert [e.get("aria-current") for tag, e in page.elements if tag == "li"].count("step") == 1
    assert ("form", "/training/runs/1/cancel") in [(tag, e.get("action")) for tag, e in page.elements]
    assert "38 % multilabel 64px, epoch 2 of 3" in seen(client, "/training")


def test_a_run_that_is_asked_to_stop_says_so(ward: Ward, client: TestClient, runs: TrainingRuns, queue: Runs) -> None:
    begun(ward, runs, queue, task="index")
    client.post("/training/runs/1/cancel")
    assert "is being stopped" in seen(client, "/training/runs/1")
    assert "/training/runs/1/cancel" not in client.get("/training/runs/1").text


def test_a_trainer_that_died_is_told_of(ward: Ward, client: TestClient, runs: TrainingRuns, queue: Runs) -> None:
    begun(ward, runs, queue, task="multilabel", stage="64px", films_per_second=70.0, seconds_left=60.0)
    ward.now += timedelta(minutes=5)
    text = seen(ward.client(), "/training/runs/1")
    assert "gpu/1 has been silent since" in text
    assert "films/s" not in text


def test_a_run_that_failed_says_why(ward: Ward, client: TestClient, runs: TrainingRuns, queue: Runs) -> None:
    queue.fail(begun(ward, runs, queue, task="cache"), "no films\n<b>in this folder</b>", ward.now)
    assert "no films <b>in this folder</b>" in seen(client, "/training/runs/1")
    assert "no films" in seen(client, "/training")
    assert "Resume" in seen(client, "/training/runs/1")


def test_the_report_opens_in_a_box(ward: Ward, client: TestClient, runs: TrainingRuns, queue: Runs) -> None:
    assert client.get("/training/runs/1/report").status_code == 404
    claimed = begun(ward, runs, queue, task="report")
    assert client.get("/training/runs/1/report").status_code == 404
    queue.finish(claimed, RESULT, ward.now + timedelta(minutes=11), "<style>p{}</style><script>alert(1)</script>how")
    text = seen(client, "/training/runs/1")
    assert "binary AUROC 0.68 mean AUROC of the findings 0.71 (0.69 to 0.73)" in text
    assert "took 11 min" in text
    assert "hilum models import" in text  # nobody offers to register it here
    for path in ("/training/runs/1/report", "/api/v1/training/runs/1/report"):
        report = client.get(path)
        assert report.status_code == 200
        assert report.text.endswith("how")
        policy = report.headers["content-security-policy"].split("; ")
        assert policy[:4] == ["sandbox", "default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"]
        assert not any("script" in part for part in policy)


def test_a_bundle_is_registered_by_whoever_offers_it(ward: Ward, runs: TrainingRuns, queue: Runs) -> None:
    asked: list[tuple[str, str, str]] = []

    def register(bundle: str, why: str, who: str) -> str:
        asked.append((bundle, why, who))
        if len(asked) > 1:
            raise BundleInvalid("bundle: a file is damaged")
        return "0123456789abcdef"

    client = ward.client(register=register)
    claimed = begun(ward, runs, queue)
    assert client.post("/training/runs/1/register").status_code == 409  # it has none yet
    queue.finish(claimed, RESULT, ward.now)
    assert "Register as candidate" in seen(client, "/training/runs/1")
    assert client.post("/api/v1/training/runs/1/register").json() == {"model_id": "0123456789abcdef"}
    assert asked == [("/runs/00001-mine/bundle", "training run 1", "dr administrator")]
    refused = client.post("/training/runs/1/register")
    assert (refused.status_code, "Bundle: a file is damaged" in refused.text) == (409, True)
    assert actions(ward)[0] == "registered a candidate"
    assert ward.client().post("/training/runs/1/register").status_code == 409


def test_a_bundle_that_is_in_the_registry_is_not_offered_again(ward: Ward, runs: TrainingRuns, queue: Runs) -> None:
    there: list[SimpleNamespace] = []
    models = SimpleNamespace(registry=SimpleNamespace(models=lambda: there))
    client = ward.client(models=models, register=lambda bundle, why, who: RESULT["model_id"])
    queue.finish(begun(ward, runs, queue), RESULT, ward.now)
    assert "Register as candidate" in seen(client, "/training/runs/1")
    assert client.post("/training/runs/1/register").headers["location"] == f"/models/{RESULT['model_id']}"
    there.append(SimpleNamespace(model_id=RESULT["model_id"], state=ModelState.SHADOW))
    text = seen(client, "/training/runs/1")
    assert "In the registry: shadow" in text
    assert "Register as candidate" not in text


def test_the_calendar_is_kept_and_taken_off(ward: Ward, client: TestClient) -> None:
    assert "Nothing is asked for regularly" in seen(client, "/training")
    answer = client.post("/training/calendar", data={**FORM, "cron": "0 2 1-7 * sun"})
    assert answer.status_code == 303
    assert "2026-04-05 02:00:00 UTC mine 0 2 1-7 * sun quick /films/nih none yet" in seen(client, "/training")
    for cron in ("monthly", "0 2 * * 0", ""):
        wrong = client.post("/training/calendar", data={**FORM, "cron": cron})
        assert wrong.status_code == 422
    assert len(Retrainings(ward.database).list()) == 1
    assert client.post("/training/calendar/1/remove").status_code == 303
    assert client.post("/training/calendar/1/remove").status_code == 404
    assert Retrainings(ward.database).list() == []
    assert actions(ward)[:2] == ["took a training run off the calendar", "put a training run into the calendar"]


def test_the_api_does_what_the_page_does(ward: Ward, client: TestClient, queue: Runs) -> None:
    api = "/api/v1/training"
    body = {"data": "/films", "name": "own", "description": "seed = 3"}
    assert client.post(f"{api}/runs", json=body).json() == {"id": 1}
    assert client.get(f"{api}/runs").json() == [client.get(f"{api}/runs/1").json()]
    assert client.get(f"{api}/runs/1").json()["description"] == "seed = 3"
    refused = client.post(f"{api}/runs", json={"data": "/films", "name": "own"})
    assert (refused.status_code, "give one of them" in refused.json()["error"]) == (422, True)
    assert client.post(f"{api}/runs/1/cancel").json() == {"state": "cancelled"}
    assert client.post(f"{api}/runs/1/cancel").status_code == 409
    assert client.post(f"{api}/runs/1/resume").json() == {"state": "requested"}
    assert client.post(f"{api}/runs/1/register").status_code == 409
    entry = client.post(f"{api}/calendar", json={**FORM, "cron": "0 2 * * sun"}).json()
    assert entry["next_at"] == "2026-03-15T02:00:00+00:00"
    assert client.get(f"{api}/calendar").json() == [entry]
    assert client.post(f"{api}/calendar", json={**FORM, "cron": "never"}).status_code == 422
    assert client.delete(f"{api}/calendar/1").json() == {"removed": True}
    queue.here("gpu/1", {"quick": "A trial."}, ward.now)
    assert [t["presets"] for t in client.get(f"{api}/trainers").json()] == [{"quick": "A trial."}]
    for path in (f"{api}/runs/9", f"{api}/runs/1/report", "/training/runs/9"):
        assert client.get(path).status_code == 404
    for path in (f"{api}/runs/9/cancel", f"{api}/runs/9/resume", f"{api}/runs/9/register"):
        assert client.post(path).status_code == 404
    assert client.delete(f"{api}/calendar/9").status_code == 404
    assert client.delete(f"{api}/calendar/99999999999999999999").status_code == 422


def test_letters_that_are_none_are_replaced_or_refused(client: TestClient, runs: TrainingRuns) -> None:
    def post(path: str, **body: str) -> int:
        headers = {"Content-Type": "application/json"}
        return int(client.post(f"/api/v1/training/{path}", content=json.dumps(body), headers=headers).status_code)

    odd = {"data": "/films\ud800", "name": "odd", "description": "# \ud800"}
    assert post("runs", **odd) == 200
    assert (runs.show(1).data, runs.show(1).description) == ("/films?", "# ?")
    odd["cron"] = "0 2 * * sun"
    assert post("calendar", **odd) == 200
    for wrong in ({"name": "\ud800"}, {"description": "\ud800"}, {"preset": "\0"}, {"cron": "0 2 * * \ud800"}):
        assert post("calendar", **{**odd, **wrong}) == 422


READS = (
    "/training",
    "/training/runs/1",
    "/training/runs/1/report",
    "/api/v1/training/runs",
    "/api/v1/training/runs/1",
    "/api/v1/training/runs/1/report",
    "/api/v1/training/trainers",
    "/api/v1/training/calendar",
)
WRITES = (
    ("POST", "/training/runs"),
    ("POST", "/training/calendar"),
    ("POST", "/training/calendar/1/remove"),
    ("POST", "/training/runs/1/cancel"),
    ("POST", "/training/runs/1/resume"),
    ("POST", "/training/runs/1/register"),
    ("POST", "/api/v1/training/runs/1/cancel"),
    ("POST", "/api/v1/training/runs/1/resume"),
    ("POST", "/api/v1/training/runs/1/register"),
    ("DELETE", "/api/v1/training/calendar/1"),
)
BODIES = (
    ("/api/v1/training/runs", {"data": "/f", "preset": "q"}),
    ("/api/v1/training/calendar", {**FORM, "cron": "x"}),
)


def test_who_may(ward: Ward, runs: TrainingRuns, queue: Runs) -> None:
    queue.finish(begun(ward, runs, queue), RESULT, ward.now, "report")
    before = runs.change_token()
    auditor, radiologist = ward.client(Role.AUDITOR), ward.client(Role.RADIOLOGIST)
    for path in READS:
        assert auditor.get(path).status_code == 200, path
        assert radiologist.get(path).status_code == 403, path
    for somebody in (auditor, radiologist):
        for method, path in WRITES:
            assert somebody.request(method, path).status_code == 403, path
        for path, body in BODIES:
            assert somebody.post(path, json=body).status_code == 403, path
    for action in ("/training/runs", "/training/calendar", "/cancel", "/resume"):
        assert f'action="{action}' not in auditor.get("/training").text
    assert "/training" not in radiologist.get("/").text
    assert radiologist.get("/training/events").status_code == 403
    stranger = TestClient(ward.app(), base_url="http://localhost:8080", follow_redirects=False)
    assert stranger.get("/training").status_code == 303
    assert stranger.get("/training/events").status_code == 401
    assert stranger.get("/api/v1/training/runs").status_code == 401
    client = ward.client()
    client.headers.pop("X-CSRF")
    for method, path in WRITES:
        assert client.request(method, path).status_code == 403, path
    assert runs.change_token() == before


def test_the_token_moves_when_a_trainer_comes_and_goes(ward: Ward, client: TestClient, queue: Runs) -> None:
    def token() -> str:
        elements = Words(client.get("/training").text).elements
        (live,) = (e for _, e in elements if e.get("id") == "live")
        assert live["data-events"] == "/training/events"
        return str(live["data-token"])

    tokens = [token()]
    queue.here("gpu/1", {}, ward.now)
    tokens.append(token())
    ward.now += timedelta(minutes=2)
    client.cookies.set("hilum", ward.session())
    tokens.append(token())
    assert tokens[0] == tokens[2] != tokens[1]


def test_other_live_pages_follow_the_worklist(client: TestClient) -> None:
    assert 'data-events="/events"' in client.get("/").text


HOSTILE = "<img src=x onerror=alert(1)>\u202e"


def test_hostile_words_stay_words(ward: Ward, client: TestClient, runs: TrainingRuns, queue: Runs) -> None:
    curves = (Curve(task=HOSTILE, stage=HOSTILE, epochs=({**EPOCH, HOSTILE: HOSTILE},)),)
    queue.here(HOSTILE, {HOSTILE: HOSTILE}, ward.now)
    claimed = begun(ward, runs, queue, task=HOSTILE, stage=HOSTILE, log=HOSTILE, curves=curves, epoch=1)
    for path in ("/training", "/training/runs/1"):
        assert "<img src=x onerror=alert(1)>" in seen(client, path)
    queue.fail(claimed, HOSTILE, ward.now)
    for path in ("/training", "/training/runs/1"):
        page = Words(client.get(path).text)
        assert "<img src=x onerror=alert(1)>" in page.text
        assert "img" not in {tag for tag, _ in page.elements}
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
