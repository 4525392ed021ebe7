"""The policy's pages and calls: what they show, who may change what, and that a preview changes nothing."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.findings import FINDINGS
from schemas.person import Role
from schemas.policy import OUTPUTS
from tests.unit.worklist.policies import past_week, policy_desk
from tests.unit.worklist.test_page import Words
from tests.unit.worklist.ward import Ward
from worker.worklist.web.policy_desk import PolicyDesk

STRICT: dict[str, Any] = {"findings": {"Pneumothorax": {"urgency": "STAT", "threshold": 0.2}}}
FORM = {"urgency-Pneumothorax": "STAT", "threshold-Pneumothorax": "0.2", "note": "fewer alerts"}


@pytest.fixture
def kept(ward: Ward) -> PolicyDesk:
    return policy_desk(ward)


@pytest.fixture
def browser(ward: Ward, kept: PolicyDesk) -> TestClient:
    return ward.client(policy=kept)


def seen(client: TestClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return Words(answer.text).text


def test_the_table_shows_every_finding_and_what_is_in_force(browser: TestClient) -> None:
    page = Words(browser.get("/policy").text)
    names = [e["name"] for tag, e in page.elements if tag == "select" and (e.get("name") or "").startswith("urgency-")]
    assert names == [f"urgency-{output}" for output in OUTPUTS]
    assert "Policy 0 is in force: the configuration's" in page.text
    for finding in FINDINGS:
        assert finding.replace("_", " ").lower() in page.text
    assert not any("disabled" in e for tag, e in page.elements if tag == "select")


def test_a_policy_is_proposed_shown_beside_the_one_in_force_and_enacted(ward: Ward, browser: TestClient) -> None:
    past_week(ward, 30)
    made = browser.post("/policy", data=FORM | {"days": "7"})
    assert (made.status_code, made.headers["location"]) == (303, "/policy/1?days=7")
    text = seen(browser, "/policy/1")
    assert "Proposed by dr administrator" in text
    assert "fewer alerts" in text
    assert "effusion URGENT at the card's threshold silent" in text
    assert "pneumothorax STAT at the card's threshold STAT from 0.2 on" in text
    assert "Dry run: 30 studies of the last 7 days" in text
    assert "0 gain a flag" in text
    assert "Why it comes into force" in text

    ward.now += timedelta(minutes=1)
    answer = browser.post("/policy/1/enact", data={"because": "agreed with the department", "over": "0"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/policy/1")
    text = seen(browser, "/policy/1")
    assert "In force from" in text
    assert "agreed with the department" in text
    assert "Why it comes into force" not in text
    assert "Policy 1 is in force since" in seen(browser, "/policy")
    trail = [(deed.action, deed.detail) for _, deed in ward.desk().audit.deeds(9)]
    assert ("enacted a policy", {"policy": 1, "before": 0}) in trail
    assert ("proposed a policy", {"policy": 1}) in trail


def test_the_form_says_what_the_policy_says(browser: TestClient, kept: PolicyDesk) -> None:
    """What the page shows, sent back unchanged, is the same policy."""
    page = Words(browser.get("/policy").text)
    fields = {e["name"]: e.get("value") or "" for tag, e in page.elements if tag == "input" and e.get("name")}
    name = ""
    for tag, e in page.elements:
        if tag == "select":
            name = str(e["name"])
        if tag == "option" and "selected" in e:
            fields[name] = str(e["value"])
    assert browser.post("/policy", data=fields).status_code == 303  # type: ignore[arg-type]
    assert kept.policies.show(1).policy == kept.configured


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"threshold-Mass": "1.5"}, "Mass: threshold"),
        ({"threshold-Mass": "many"}, "Mass: threshold"),
        ({"urgency-Mass": "SOON"}, "SOON"),
        ({"budget": "-1"}, "budget"),
        ({"on_disagreement": "ask"}, "on_disagreement"),
    ],
)
def test_what_is_no_policy_is_not_kept(
    browser: TestClient, kept: PolicyDesk, fields: dict[str, str], named: str
) -> None:
    answer = browser.post("/policy", data=FORM | fields)
    assert answer.status_code == 422
    assert named.lower() in answer.text.lower()
    assert kept.policies.list() == []


def test_who_saw_another_policy_in_force_is_asked_to_look_again(ward: Ward, browser: TestClient) -> None:
    for _ in range(2):
        browser.post("/policy", data=FORM)
    assert browser.post("/policy/1/enact", data={"because": "first", "over": "0"}).status_code == 303
    ward.now += timedelta(seconds=1)
    answer = browser.post("/policy/2/enact", data={"because": "second", "over": "0"})
    assert answer.status_code == 409
    assert "look at the dry run again" in answer.text


@pytest.mark.parametrize("role", [Role.RADIOLOGIST, Role.AUDITOR])
def test_others_see_and_change_nothing(ward: Ward, kept: PolicyDesk, browser: TestClient, role: Role) -> None:
    browser.post("/policy", data=FORM)
    other = ward.client(role, policy=kept)
    page = Words(other.get("/policy").text)
    controls = [e for tag, e in page.elements if tag in {"select", "input"} and e.get("type") != "hidden"]
    assert controls
    assert all("disabled" in e for e in controls)
    assert "Dry run…" not in page.text
    assert "Enact" not in seen(other, "/policy/1")
    assert other.post("/policy", data=FORM).status_code == 403
    assert other.post("/policy/1/enact", data={"because": "x", "over": "0"}).status_code == 403
    assert other.post("/api/v1/policies", json={"policy": STRICT}).status_code == 403
    assert other.post("/api/v1/policies/1/enact", json={"because": "x", "over": 0}).status_code == 403
    assert len(kept.policies.list()) == 1
    assert kept.policies.current(ward.now) is None
    for path in ("", "/current", "/preview", "/curves", "/1"):
        assert other.get(f"/api/v1/policies{path}").status_code == 200
    # Thresholds near zero would tell a radiologist of each film what triage mode does not show.
    edited = other.get("/api/v1/policies/preview", params={"policy": json.dumps(STRICT)})
    assert edited.status_code == (403 if role is Role.RADIOLOGIST else 200)


def test_nobody_sees_it_without_signing_in(ward: Ward, kept: PolicyDesk) -> None:
    stranger = TestClient(ward.app(policy=kept), base_url="http://localhost:8080", follow_redirects=False)
    assert stranger.get("/policy").status_code == 303
    assert stranger.get("/api/v1/policies/preview").status_code == 401


def test_a_form_of_another_site_changes_nothing(browser: TestClient, kept: PolicyDesk) -> None:
    del browser.headers["X-CSRF"]
    assert browser.post("/policy", data=FORM).status_code == 403
    assert kept.policies.list() == []


def test_the_preview_says_what_an_edited_policy_would_have_raised(ward: Ward, browser: TestClient) -> None:
    past_week(ward, 40)
    before = browser.get("/api/v1/policies/preview").json()
    assert (before["studies"], before["gained"], before["lost"]) == (40, 0, 0)
    assert before["before"] == before["after"]
    asked = {"policy": json.dumps(STRICT), "days": "7"}
    after = browser.get("/api/v1/policies/preview", params=asked).json()
    assert after["before"] == before["before"]
    assert after["lost"] == before["before"]["raised"] - after["after"]["raised"] > 0
    assert len(after["changed"]) == min(20, after["lost"])
    share = after["shares"]["Pneumothorax"]
    assert share["threshold"] == 0.2
    assert share["goodness"] is None  # the card was not measured near it
    assert set(after["shares"]["Effusion"]["goodness"]) == {"sensitivity", "specificity", "ppv"}
    curves = browser.get("/api/v1/policies/curves").json()
    assert set(curves) == set(OUTPUTS)
    assert "test films of the model's card" in curves["Pneumothorax"]["words"]


@pytest.mark.parametrize("asked", ["[]", "{", '{"findings": {"Cold": {"urgency": "STAT"}}}'])
def test_a_preview_of_what_is_no_policy_is_refused(browser: TestClient, asked: str) -> None:
    answer = browser.get("/api/v1/policies/preview", params={"policy": asked})
    assert answer.status_code == 422
    assert "policy" in answer.json()["error"]


def test_programs_do_the_same(ward: Ward, browser: TestClient) -> None:
    made = browser.post("/api/v1/policies", json={"policy": STRICT, "note": "by program"})
    assert made.status_code == 201
    assert made.json()["policy"]["findings"] == {"Pneumothorax": {"urgency": "STAT", "threshold": 0.2}}
    was = ward.now
    ward.now += timedelta(minutes=10)
    enacted = browser.post("/api/v1/policies/1/enact", json={"because": "tested", "over": 0})
    assert enacted.status_code == 200
    ward.now += timedelta(minutes=10)
    assert browser.get("/api/v1/policies/current").json()["number"] == 1
    assert browser.get("/api/v1/policies/current", params={"at": was.isoformat()}).json()["number"] == 0
    assert browser.get("/api/v1/policies").json()["in_force"] == 1
    assert browser.post("/api/v1/policies/1/enact", json={"because": "again", "over": 1}).status_code == 409
    assert browser.post("/api/v1/policies/9/enact", json={"because": "x", "over": 1}).status_code == 404
    assert browser.post("/api/v1/policies", json={"policy": {"budget": 0}}).status_code == 422


@pytest.mark.parametrize("path", ["/policy/9", "/policy?from=9", "/api/v1/policies/9"])
def test_an_unknown_number_is_not_there(browser: TestClient, path: str) -> None:
    assert browser.get(path).status_code == 404


def test_what_people_wrote_does_not_become_markup(ward: Ward, browser: TestClient) -> None:
    hostile = "<script>alert(1)</script>"
    browser.post("/policy", data=FORM | {"note": hostile})
    browser.post("/policy/1/enact", data={"because": hostile, "over": "0"})
    for path in ("/policy", "/policy/1"):
        page = browser.get(path).text
        assert hostile not in page
        assert "&lt;script&gt;" in page


def test_no_page_says_the_word(ward: Ward, browser: TestClient) -> None:
    past_week(ward, 5)
    browser.post("/policy", data=FORM)
    for path in ("/policy", "/policy/0", "/policy/1"):
        assert "normal" not in seen(browser, path).lower()
