"""The pages: what they say, what they never say, and to whom they speak."""

from __future__ import annotations

import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from schemas.decision import Consistency
from schemas.errors import RecordError
from schemas.findings import LABELS
from schemas.flag import Withdrawal
from schemas.not_analysed import WORDS, NotAnalysed
from tests.unit.worklist.ward import EFFUSION, PNEUMOTHORAX, Ward, not_read, read
from worker.worklist.web.desk import Rules
from worker.worklist.web.guard import HEADERS
from worker.worklist.web.routes.reading import PAGE


class Words(HTMLParser):
    """The text of a page, and every element with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def seen(client: TestClient, path: str = "/") -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return Words(answer.text).text


def ward_with_everything(ward: Ward) -> None:
    ward.study(1, read(), "PHANTOM^ROUTINE", ago=timedelta(hours=2))
    ward.study(2, read(EFFUSION, consistency=Consistency.LABELS_ONLY), "PHANTOM^URGENT", ago=timedelta(minutes=41))
    ward.study(3, read(PNEUMOTHORAX, EFFUSION), "PHANTOM^STAT", ago=timedelta(minutes=4))
    ward.study(4, not_read(NotAnalysed.UNREADABLE, "truncated code stream"), "PHANTOM^UNREAD")
    ward.deliver()
    ward.receive(5, "PHANTOM^WAITING")
    ward.turn_away()


def test_studies_stand_in_reading_order_with_reasons(ward: Ward, client: TestClient) -> None:
    ward_with_everything(ward)
    text = seen(client)
    places = [text.index(name) for name in ("STAT P0", "URGENT P0", "ROUTINE P0", "UNREAD P0", "WAITING P0")]
    assert places == sorted(places)
    assert "4 min PHANTOM, STAT P00003" in text
    assert "pneumothorax 0.91 threshold 0.62 effusion 0.83 threshold 0.55" in text
    assert "pacs told" in text


def test_what_was_not_analysed_says_why(ward: Ward, client: TestClient) -> None:
    for number, code in enumerate(NotAnalysed, 1):
        ward.study(number, not_read(code))
    text = seen(client)
    for words in WORDS.values():
        assert f"not analysed: {words}" in text
    assert "no flag" not in text  # nothing was read, so that nothing can be said of a flag


def test_a_study_of_which_one_film_was_not_analysed_says_both(ward: Ward, client: TestClient) -> None:
    ward.study(1, read(EFFUSION))
    ward.study(1, not_read(NotAnalysed.LATERAL))
    assert "effusion 0.83 threshold 0.55 not analysed: lateral view" in seen(client)


def test_a_study_that_is_being_read_is_not_said_to_have_no_flag(ward: Ward, client: TestClient) -> None:
    ward.receive(1)
    assert "no flag" not in seen(client)
    assert "being read" in seen(client)


def test_a_film_that_failed_is_shown(ward: Ward, client: TestClient) -> None:
    ward.receive(1)
    ward.jobs.claim("reader", 1, timedelta(seconds=1), ward.now)
    ward.jobs.rescue(ward.now + timedelta(minutes=1), max_attempts=1)
    assert "1 film failed" in seen(client)
    assert "hilum requeue" in seen(client, "/studies/2.25.1")


def test_the_empty_list_says_where_to_send(client: TestClient) -> None:
    assert "No study is waiting" in seen(client)
    assert "HILUM@11112" in seen(client)


def test_the_door_shows_who_was_turned_away_and_the_mend(ward: Ward, client: TestClient) -> None:
    ward.turn_away()
    ward.turn_away()
    text = seen(client)
    assert "2 ROOM9 10.1.2.3 ARCHIVE called AE title ARCHIVE is not ours set the called AE title" in text


def test_the_door_forgets(ward: Ward, client: TestClient) -> None:
    ward.turn_away()
    ward.now += timedelta(days=2)
    assert "ROOM9" not in seen(ward.client())


def test_one_study_has_films_revisions_and_deliveries(ward: Ward, client: TestClient) -> None:
    ward.study(1, read(EFFUSION), study_description="Chest PA", patient_birth_date="19610412", patient_sex="F")
    ward.deliver()
    ward.study(1, not_read(NotAnalysed.LATERAL, "view position LL"))
    text = seen(client, "/studies/2.25.1")
    for words in ("PHANTOM, ONE", "1961-04-12 F", "Chest PA", "0.08 s", "lateral view view position LL"):
        assert words in text
    for words in ("starter 1 0123456789abcdef", "told 1 0.03 s C-STORE 0x0000 2.25.999"):
        assert words in text


def test_a_long_list_has_pages(ward: Ward, client: TestClient) -> None:
    for number in range(1, PAGE + 3):
        ward.receive(number)
    first, second = client.get("/").text, client.get(f"/?offset={PAGE}").text
    assert first.count("data-key=") == PAGE
    assert second.count("data-key=") == 2
    assert f'href="/?offset={PAGE}"' in first
    assert 'href="/?offset=0"' in second


PAGES = ("/", "/studies/2.25.1", "/studies/2.25.2", "/studies/2.25.3", "/studies/2.25.4", "/studies/2.25.5")
API = ("/api/v1/worklist", "/api/v1/studies/2.25.1", "/api/v1/studies/2.25.3")


@pytest.mark.parametrize("path", [*PAGES, *API])
def test_triage_shows_no_labels_that_raise_nothing_and_never_an_all_clear(
    ward: Ward, client: TestClient, path: str
) -> None:
    ward_with_everything(ward)
    text = client.get(path).text
    assert "normal" not in text.lower()
    assert "0.3333" not in text  # a probability that raised nothing
    assert "0.7777" not in text
    for label in LABELS:
        if label not in ("Pneumothorax", "Effusion"):
            assert label.replace("_", " ").lower() not in text.lower()
    if path in PAGES:
        assert "A study without a flag is not an all-clear." in text


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "{{ 7 * 7 }}",
    "</title>",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text(ward: Ward, client: TestClient, hostile: str) -> None:
    texts = ("patient_id", "accession_number", "modality", "study_description", "patient_birth_date", "patient_sex")
    for number, text in ((1, hostile), (2, "harmless")):
        ward.study(number, not_read(NotAnalysed.UNREADABLE, text), text, **dict.fromkeys(texts, text))
    ward.turn_away(hostile, hostile)
    hostile_page, harmless_page = (Words(client.get(f"/studies/2.25.{n}").text) for n in (1, 2))
    assert [tag for tag, _ in hostile_page.elements] == [tag for tag, _ in harmless_page.elements]
    for page in (hostile_page, Words(client.get("/").text)):
        assert hostile in page.text
        assert "49" not in page.text
        assert not {tag for tag, _ in page.elements} & {"img", "iframe", "object", "style", "base"}
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]
            assert tag != "script" or attributes.keys() == {"type", "src"}


@pytest.mark.parametrize(
    "uid",
    ["2.25.404", "..%2f..%2fetc%2fpasswd", "%3Cscript%3E", "1.2.3%00", "1" * 65, "1.2.3'%20or%201=1", "%0a", "%ff"],
)
def test_a_study_that_is_not_known_is_not_found(client: TestClient, uid: str) -> None:
    for path in (f"/studies/{uid}", f"/api/v1/studies/{uid}"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert "<script>" not in answer.text


@pytest.mark.parametrize("offset", ["-1", "x", "9" * 30])
def test_a_page_that_cannot_be_is_refused(client: TestClient, offset: str) -> None:
    assert client.get(f"/?offset={offset}").status_code == 422


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/hilum.css", "/api/v1/worklist", "/healthz", "/studies/1.2"])
def test_every_answer_carries_the_headers(client: TestClient, path: str) -> None:
    answer = client.get(path)
    for name, value in HEADERS.items():
        if name != "Cache-Control":
            assert answer.headers[name] == value
    assert answer.headers["Cache-Control"] == ("no-cache" if path.startswith("/static") else "no-store")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", ""])
def test_a_foreign_host_is_refused(ward: Ward, client: TestClient, host: str) -> None:
    ward.study(1, read())
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 400
    assert "PHANTOM" not in answer.text
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8080", "[::1]:8080", "hilum.hospital.example", "HILUM.hospital.example:80"]
)
def test_our_own_hosts_are_served(ward: Ward, host: str) -> None:
    client = ward.client(rules=Rules(hosts=["hilum.hospital.example"]))
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_the_worklist_as_json(ward: Ward, client: TestClient) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    answer = client.get("/api/v1/worklist").json()
    assert answer["counts"] == {"STAT": 1, "URGENT": 0, "ROUTINE": 0}
    assert answer["token"] == ward.worklist.change_token()
    (study,) = answer["studies"]
    assert study["study_uid"] == "2.25.1"
    assert study["urgency"] == "STAT"
    assert study["reasons"] == ["pneumothorax 0.91, threshold 0.62"]
    assert study["received_at"] == ward.now.isoformat()
    assert study["deliveries"] == [{"destination": "pacs", "state": "pending", "revision": 1}]


def test_a_study_as_json_names_no_path_of_the_server(ward: Ward, client: TestClient) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    answer = client.get("/api/v1/studies/2.25.1").json()
    assert answer["urgency"] == "STAT"
    assert "path" not in answer["films"][0]
    assert answer["revisions"][0]["reasons"][0]["words"] == "pneumothorax 0.91, threshold 0.62"


def test_the_list_is_only_read_and_no_foreign_pages_are_served(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/").status_code == 405
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404


def test_health_and_readiness(ward: Ward, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").text == "ok"
    assert client.get("/readyz").json() == {"ready": True}, "whoever asks is not signed in"

    def away() -> str:
        raise RecordError("database: password of PHANTOM")

    monkeypatch.setattr(ward.worklist, "change_token", away)
    assert client.get("/healthz").status_code == 200
    for path in ("/readyz", "/", "/api/v1/worklist", "/second-look"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "atabase does not answer" in answer.text
        assert "PHANTOM" not in answer.text


def test_a_process_without_model_or_door_has_a_page_all_the_same(ward: Ward, client: TestClient) -> None:
    ward.status = {"roles": ["web"], "model": None, "dicom": None}
    assert "in another process" in seen(client)


def test_style_and_script_name_nothing_elsewhere(client: TestClient) -> None:
    for path in ("/static/hilum.css", "/static/live.js", "/static/reading.js", "/static/icon.svg"):
        text = client.get(path).text
        assert not re.search(r"(?<!xmlns=\")https?:|@import|innerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_a_withdrawn_flag_is_told_as_such_and_a_reported_study_is_off_the_list(ward: Ward, client: TestClient) -> None:
    ward.study(1, read(PNEUMOTHORAX), "PHANTOM^TAKEN")
    ward.study(2, read(PNEUMOTHORAX), "PHANTOM^REPORTED")
    ward.deliver()
    for study, why in ((1, Withdrawal.PERSON), (2, Withdrawal.REPORTED)):
        ward.withdraw(study, why)
    text = seen(client)
    assert "flag withdrawn on a person's decision" in text
    assert "pneumothorax" not in text
    assert "REPORTED" not in text
    story = seen(client, "/studies/2.25.1")
    assert "flag withdrawn on a person's decision" in story
    assert "pneumothorax" in story, "what was told stays in the history"
    assert "off the list" in seen(client, "/studies/2.25.2")
