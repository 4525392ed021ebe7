"""The watching page, its API and its metrics: what they say, who may act, and that a pause holds flags back."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from schemas.errors import TransientFailure
from schemas.findings import Label
from schemas.lifecycle import OutboxState
from schemas.not_analysed import NotAnalysed
from schemas.person import Role
from schemas.readings import Judgement
from schemas.scanner import Scanner
from schemas.standing import Line, Standing
from schemas.watching import DriftRules
from tests.unit.worklist.test_page import Words, seen
from tests.unit.worklist.ward import EFFUSION, PNEUMOTHORAX, Ward, not_read, read
from worker.record.destinations import Destinations
from worker.record.drift import Drift
from worker.record.pauses import Pauses
from worker.record.readings import Readings
from worker.worklist.web.entry import digest, new_key
from worker.worklist.web.watch_desk import standing_words

ROOM = Scanner(manufacturer="Acme", model="DR 9000", view="PA", bits_stored=12)
WRITES = (
    "/watching/pause",
    "/watching/resume",
    "/watching/destinations/pacs/test",
    "/watching/destinations/pacs/replay",
    "/watching/baselines/1/set-aside",
)


def refuse(ward: Ward) -> None:
    for delivery in ward.outbox.claim("pacs", "courier", 10, timedelta(minutes=1), ward.now + timedelta(seconds=1)):
        ward.outbox.refuse(delivery.id, "courier", "0x0122 SOP class not supported: accept Comprehensive SR", ward.now)


def flagged(ward: Ward, study: int, hours: float = 0.001) -> None:
    """A study, raised so long ago and told at once."""
    ward.study(study, read(PNEUMOTHORAX), ago=timedelta(hours=hours))
    ward.deliver()


def waiting(ward: Ward) -> int:
    return ward.outbox.counts().get("pacs", {}).get(OutboxState.PENDING, 0)


def test_a_ward_in_which_nothing_happened_yet(client: TestClient) -> None:
    text = seen(client, "/watching")
    for words in (
        "flags go out",
        "the oldest none waits",
        "No flag was decided",
        "pacs",
        "not yet served",
        "Nobody was",
    ):
        assert words in text


def test_time_to_flag_by_destination_and_window(ward: Ward, client: TestClient) -> None:
    for number, ago in ((1, 0.1), (2, 0.2), (3, 5), (4, 40)):
        flagged(ward, number, ago)
    page = client.get("/watching").text
    text = Words(page).text
    # 83 ms until it was decided, 31 ms more until it was there; told to one percent
    assert "pacs 2 115 ms 115 ms 115 ms 3 115 ms 115 ms 115 ms 4 115 ms 115 ms 115 ms" in text
    assert (
        'aria-label="Time to flag in the last 24 hours; in the latest hour with a flag p50 115 ms, p95 115 ms"' in page
    )
    assert "last hour 2 films, 2 raised" in text
    assert "last week 4 films, 4 raised" in text
    assert page.count("<rect") == 24  # a bar for each hour


def test_the_queue_its_age_and_what_failed(ward: Ward, client: TestClient) -> None:
    ward.receive(1, ago=timedelta(minutes=12))
    ward.receive(2, ago=timedelta(minutes=3))
    text = seen(client, "/watching")
    assert "films waiting 2 being read 0 the oldest 12 min failed 0" in text
    ward.jobs.claim("reader", 1, timedelta(seconds=1), ward.now)
    ward.jobs.rescue(ward.now + timedelta(minutes=1), max_attempts=1)
    assert "failed 1 see the log, then hilum requeue" in seen(client, "/watching")


def test_destinations_say_what_is_wrong_and_the_mend(ward: Ward, client: TestClient) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    refuse(ward)
    ward.study(2, read(EFFUSION), ago=timedelta(minutes=7))
    down = Standing(
        destination="pacs",
        line=Line.OPEN,
        failures=4,
        since=ward.now,
        next_trial_at=ward.now + timedelta(seconds=8),
        last_error="pacs:11113: nothing listens there: is it running?",
    )
    Destinations(ward.database).note(down)
    text = seen(client, "/watching")
    assert "pacs down, tried again at 22:10:08 UTC 1 6 min 1 pacs:11113: nothing listens there: is it running?" in text
    assert "pacs 1 STAT 2026-03-14 22:10:00 UTC 0x0122 SOP class not supported: accept Comprehensive SR" in text


def test_how_a_destination_stands_in_words(ward: Ward) -> None:
    sound = Standing(destination="ris", since=ward.now)
    assert standing_words(None, ward.now) == ("unknown", "not yet served")
    assert standing_words(sound, ward.now) == ("up", "up")
    resting = replace(sound, failures=1, next_trial_at=ward.now)
    assert standing_words(resting, ward.now) == ("resting", "resting, tried again at 22:10:00 UTC")
    assert standing_words(replace(resting, line=Line.HALF_OPEN, next_trial_at=None), ward.now)[1] == "down, being tried"
    late = standing_words(resting, ward.now + timedelta(minutes=6))[1]
    assert late.endswith("which is overdue: does a worker deliver?")


def test_a_destination_is_asked_whether_it_is_there(ward: Ward) -> None:
    answers = {"pacs": "C-ECHO 0x0000"}

    def ask(name: str) -> str:
        if name not in answers:
            raise TransientFailure(f"{name}: nothing listens there: is it running?")
        return answers[name]

    client = ward.client(watch=ward.watch(configured=["pacs", "ris"], test=ask))
    for name in ("pacs", "ris"):
        answer = client.post(f"/watching/destinations/{name}/test")
        assert (answer.status_code, answer.headers["location"]) == (303, "/watching#destinations")
    text = seen(client, "/watching")
    assert "C-ECHO 0x0000" in text
    assert "ris: nothing listens there: is it running?" in text
    assert client.post("/watching/destinations/nobody/test").status_code == 404
    by_api = client.post("/api/v1/watching/destinations/ris/test").json()
    assert (by_api["is_there"], by_api["words"]) == (False, "ris: nothing listens there: is it running?")


def test_what_was_refused_is_sent_again(ward: Ward, client: TestClient) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    refuse(ward)
    assert "Replay" in seen(client, "/watching")
    assert client.post("/watching/destinations/pacs/replay").status_code == 303
    assert waiting(ward) == 1
    assert client.post("/api/v1/watching/destinations/pacs/replay").json() == {"flags": 0}
    assert client.post("/watching/destinations/elsewhere/replay").status_code == 404


def test_flags_are_paused_and_resumed_and_whoever_did_it_stands_in_the_trail(ward: Ward, client: TestClient) -> None:
    assert client.post("/watching/pause", data={"why": "  "}).status_code == 422
    assert client.post("/watching/pause", data={"why": "a new\ndetector in room 2"}).status_code == 303
    ward.study(1, read(PNEUMOTHORAX))
    ward.deliver()
    assert waiting(ward) == 1
    assert "1 STAT" in seen(client, "/")  # the list goes on
    text = seen(client, "/watching")
    assert "flags paused since 2026-03-14 22:10:00 UTC by dr administrator : a new detector in room 2" in text
    assert "held back: flags are paused" in text
    assert client.post("/api/v1/watching/pause", json={"why": "again"}).status_code == 409
    assert client.post("/watching/resume", data={"why": "checked"}).status_code == 303
    assert client.post("/api/v1/watching/resume").status_code in {409, 422}
    ward.deliver()
    assert waiting(ward) == 0
    deeds = [(deed.action, deed.who, deed.detail) for _, deed in ward.desk().audit.deeds(2)]
    assert deeds == [
        ("resumed flags", "dr administrator", {"because": "checked"}),
        ("paused flags", "dr administrator", {"why": "a new detector in room 2"}),
    ]
    assert client.post("/api/v1/watching/pause", json={"why": "by a program"}).json() == {"paused": True}
    assert client.post("/api/v1/watching/resume", json={"why": ""}).json() == {"paused": False}


@pytest.mark.parametrize("role", [Role.RADIOLOGIST, Role.AUDITOR])
def test_only_administrators_act(ward: Ward, role: Role) -> None:
    client = ward.client(role)
    page = client.get("/watching")
    assert page.status_code == 200
    assert "<form" not in page.text.partition("<main")[2].partition("</main>")[0]
    for path in (*WRITES, *(path.replace("/watching", "/api/v1/watching") for path in WRITES)):
        answer = client.post(path, data={"why": "x"}) if path in WRITES else client.post(path, json={"why": "x"})
        assert answer.status_code == 403, path
    assert Pauses(ward.database).current() is None


@pytest.mark.parametrize("path", WRITES)
def test_a_form_of_another_site_does_nothing(ward: Ward, client: TestClient, path: str) -> None:
    assert client.post(path, data={"why": "x"}, headers={"X-CSRF": "guessed"}).status_code == 403
    assert Pauses(ward.database).current() is None


def test_readers_agreement_by_finding_and_month(ward: Ward, client: TestClient) -> None:
    readings = Readings(ward.database)
    for number in range(1, 5):
        ward.study(number, read(PNEUMOTHORAX))
        said = Judgement.DISAGREE if number == 4 else Judgement.AGREE
        seen_too = [Label.MASS] if number == 4 else []
        readings.read(f"2.25.{number}", "anna", ward.now, judgement=said, findings=seen_too)
    page = client.get("/watching").text
    assert "2026-03 Pneumothorax 4 3 75 %" in Words(page).text
    assert 'aria-label="30 % to 95 %"' in page  # Wilson's interval of 3 of 4
    assert "2026-03 Mass 1" in Words(page).text


def test_scanners_and_their_alarms(ward: Ward) -> None:
    rules = DriftRules(films=8, recent=timedelta(days=2), learning=timedelta(days=5))
    drift = Drift(ward.database)
    client = ward.client(watch=ward.watch(rules=rules))
    for number in range(1, 9):
        ward.study(number, replace(read(), scanner=ROOM), ago=timedelta(minutes=1))
    assert "Acme DR 9000, PA, 12 bit 8 0.77 learning: 0 of 8 films" in seen(client, "/watching")
    for minutes in (1, 2):
        drift.watch(rules, ward.now + timedelta(minutes=minutes))
    assert "0.77 → 0.77" in seen(client, "/watching")
    for number in range(9, 9 + 80):
        ward.study(number, replace(not_read(NotAnalysed.BLANK), scanner=ROOM))
    ward.now += timedelta(minutes=3)
    (alarm,) = drift.watch(rules, ward.now)
    page = client.get("/watching").text
    assert "91 % ≤" in Words(page).text
    assert "stands" in Words(page).text
    assert alarm.words in Words(page).text
    (number,) = re.findall(r"/watching/baselines/(\d+)/set-aside", page)
    assert client.post(f"/watching/baselines/{number}/set-aside").status_code == 303
    assert client.post(f"/api/v1/watching/baselines/{number}/set-aside").status_code == 404
    assert "learning: 0 of 8 films" in seen(client, "/watching")


def test_disk_and_retention(ward: Ward) -> None:
    ward.receive(1)
    watch = ward.watch(keep=timedelta(days=7), watermark=1 << 30)
    text = seen(ward.client(watch=watch), "/watching")
    assert "18.3 GiB free below 1.0 GiB films are refused" in text
    assert "1 film, 1 B for 7 days after a study is final; results stay" in text
    assert "kept 1 film, 1 B for ever" in seen(ward.client(watch=ward.watch(keep=timedelta(0))), "/watching")


def test_notices_stand_above_the_list_and_here(ward: Ward, client: TestClient) -> None:
    ward.status["notices"] = ["hilum is behind: 3 films wait"]
    for path in ("/", "/watching"):
        assert "hilum is behind: 3 films wait" in seen(client, path)


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}"])
def test_hostile_text_stays_text(ward: Ward, client: TestClient, hostile: str) -> None:
    ward.study(1, replace(read(PNEUMOTHORAX), scanner=Scanner(manufacturer=hostile, model=hostile, view=hostile)))
    ward.turn_away(calling_ae=hostile, what=hostile)
    Pauses(ward.database).pause(hostile, hostile, ward.now)
    Destinations(ward.database).note(Standing(destination="pacs", failures=1, since=ward.now, last_error=hostile))
    before = {tag for tag, _ in Words(ward.client().get("/people").text).elements}
    parsed = Words(client.get("/watching").text)
    assert "img" not in {tag for tag, _ in parsed.elements} | before
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    assert "49" not in [text.strip() for text in parsed.texts]


def test_the_page_never_says_the_word(ward: Ward, client: TestClient) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    assert "normal" not in client.get("/watching").text.lower()


def test_the_api_says_what_the_page_shows(ward: Ward, client: TestClient) -> None:
    flagged(ward, 1)
    ward.receive(2)
    found = client.get("/api/v1/watching").json()
    (times,) = found["figures"]["times"]
    assert times["destination"] == "pacs"
    assert times["windows"]["hour"]["flags"] == 1
    assert times["windows"]["hour"]["p50"] == pytest.approx(0.114, rel=0.011)
    assert found["queue"]["waiting"] == 1
    assert found["places"][0]["mark"] == "unknown"
    assert found["pause"] is None


def test_figures_are_counted_once_for_all_who_look(ward: Ward) -> None:
    watch = ward.watch(every=timedelta(seconds=10), slowly=timedelta(minutes=1))
    client = ward.client(watch=watch)
    client.get("/watching")
    flagged(ward, 1)
    assert "No flag was decided" in seen(client, "/watching")
    ward.now += timedelta(seconds=10)
    assert "pacs 1 115 ms" in seen(client, "/watching")
    assert "last week 0 films" in seen(client, "/watching")  # that takes longest
    ward.now += timedelta(minutes=1)
    assert "last week 1 film" in seen(client, "/watching")


def metrics(client: TestClient, **headers: str) -> dict[str, float]:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_are_for_this_machine_and_for_keys(ward: Ward) -> None:
    flagged(ward, 1)
    ward.receive(2, ago=timedelta(seconds=42))
    Pauses(ward.database).pause("anna", "why", ward.now)
    app, base = ward.app(), "http://localhost:8080"
    here = TestClient(app, base_url=base, client=("127.0.0.1", 40000))
    found = metrics(here)
    quantile = 'hilum_time_to_flag_seconds{destination="pacs",window="hour",quantile="0.95"}'
    assert found[quantile] == pytest.approx(0.114, rel=0.011)
    assert found["hilum_flags_paused"] == 1
    assert found["hilum_oldest_film_seconds"] == 42
    assert found['hilum_films{result="read",window="day"}'] == 1
    assert found["hilum_spool_free_bytes"] == 18.3 * 2**30
    stranger = TestClient(app, base_url=base, client=("10.1.2.3", 40000))
    assert stranger.get("/metrics").status_code == 401
    assert here.get("/metrics", headers={"X-Forwarded-For": "10.1.2.3"}).status_code == 401
    key = new_key()
    ward.people.add_token(
        name="prometheus", role=Role.AUDITOR, digest=digest(key), created_by="anna", now=ward.now, expires_at=None
    )
    assert metrics(stranger, Authorization=f"Bearer {key}") == found
    assert stranger.get("/metrics", headers={"Authorization": "Bearer hil_guessed"}).status_code == 401


def test_a_process_that_does_not_watch_says_so(ward: Ward) -> None:
    assert ward.client(watch=None).get("/watching").status_code == 404
