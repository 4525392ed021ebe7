"""The FHIR channel to a server that nobody here wrote (Medplum's engine), and what servers answer that goes wrong."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

import pytest

from schemas.errors import DeliveryError, PermanentFailure, TransientFailure
from schemas.flag import Withdrawal
from tests.fhir import FhirServer
from tests.http_receiver import HttpReceiver, Request, Response
from tests.unit.notify.flags import EFFUSION, PNEUMOTHORAX, VALID, film, flag
from worker.assemble import channel as channel_of
from worker.notify.fhir import build_transaction, object_id
from worker.notify.fhir_channel import Fhir
from worker.notify.oauth import ClientCredentials, GivenToken
from worker.settings import FhirDestination, Settings

KINDS = ("Device", "DiagnosticReport", "Observation", "Task")


@pytest.fixture
def server() -> FhirServer:
    return FhirServer()


@pytest.fixture
def channel(server: FhirServer) -> Iterator[Fhir]:
    with closing(Fhir(name="emr", url=f"http://127.0.0.1:{server.port}{server.path}")) as made:
        yield made


def test_the_same_flag_twice_is_one_report_and_one_task(server: FhirServer, channel: Fhir) -> None:
    first, second = channel.send(flag()), channel.send(flag())
    assert first == second
    assert {kind: len(server.resources(kind)) for kind in KINDS} == dict.fromkeys(KINDS, 1)
    (report,), (task,) = server.resources("DiagnosticReport"), server.resources("Task")
    assert first.proof.startswith("HTTP 200: ")
    for kept in (report, task):
        assert f"{kept['resourceType']}/{kept['id']}" in first.proof
    assert object_id(flag()) in {identifier["value"] for identifier in report["identifier"]}


def test_references_within_the_transaction_lead_to_what_was_made(server: FhirServer, channel: Fhir) -> None:
    channel.send(flag())
    made = {f"{kind}/{each['id']}" for kind in KINDS for each in server.resources(kind)}
    (task,), (report,) = server.resources("Task"), server.resources("DiagnosticReport")
    (observation,) = server.resources("Observation")
    for reference in (
        task["requester"],
        task["reasonReference"],
        report["result"][0],
        observation["device"],
    ):
        assert reference["reference"] in made


def test_a_revision_takes_the_place_of_what_was_said_before(server: FhirServer, channel: Fhir) -> None:
    channel.send(flag(film(reasons=[EFFUSION])))
    channel.send(flag(film(reasons=[EFFUSION, PNEUMOTHORAX]), revision=2, predecessor=1))
    assert {kind: len(server.resources(kind)) for kind in KINDS} == dict.fromkeys(KINDS, 1)
    assert [task["priority"] for task in server.versions("Task")] == ["urgent", "stat"]
    assert [len(each["component"]) for each in server.versions("Observation")] == [1, 2]


@pytest.mark.parametrize("why", Withdrawal)
def test_a_withdrawal_leaves_no_finding_behind(server: FhirServer, channel: Fhir, why: Withdrawal) -> None:
    channel.send(flag())
    channel.send(replace(flag(film(), revision=2, predecessor=1), withdrawn=why))
    (task,), (observation,) = server.resources("Task"), server.resources("Observation")
    assert task["status"] in {"cancelled", "entered-in-error", "completed"}
    if why is Withdrawal.REPORTED:  # it was right, and stays
        assert (task["status"], observation["status"]) == ("completed", "preliminary")
    else:
        assert observation["status"] == "entered-in-error"
        assert "component" not in observation


@pytest.mark.parametrize("name", VALID)
def test_the_engine_takes_every_flag(channel: Fhir, name: str) -> None:
    assert channel.send(VALID[name]).proof


def test_a_transaction_that_is_not_valid_is_refused_by_its_codes(server: FhirServer) -> None:
    """The engine is strict: else its taking of the others would say nothing."""
    transaction = build_transaction(flag())
    del transaction["entry"][2]["resource"]["code"]
    status, body = server.ask("POST", "", json.dumps(transaction).encode())
    assert status == 422
    assert json.loads(body)["issue"][0]["code"] == "structure"
    assert server.resources("Task") == []


def test_check_asks_for_the_capability_statement(channel: Fhir, server: FhirServer) -> None:
    assert "FHIR 4.0.1 and takes transactions" in channel.check()
    assert server.resources("DiagnosticReport") == []


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    made = HttpReceiver(lambda request: Response(status=500))
    made.start()
    yield made
    made.stop()


def bundle(*statuses: str) -> bytes:
    entries = [
        {"response": {"status": status, "location": f"Task/{n}/_history/1"}} for n, status in enumerate(statuses)
    ]
    return json.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": entries}).encode()


OUTCOME = json.dumps(
    {
        "resourceType": "OperationOutcome",
        "issue": [
            {"severity": "error", "code": "duplicate", "diagnostics": "Doe^Jane 4711", "details": {"text": "Doe"}},
            {"severity": "error", "code": "Doe^Jane"},
            {"severity": "error", "code": ["invariant"]},
            "nonsense",
        ],
    }
).encode()


@pytest.mark.parametrize(
    ("status", "body", "failure", "words"),
    [
        (200, bundle("200 OK", "201 Created", "201", "422 Unprocessable"), PermanentFailure, "HTTP 422 (a part"),
        (200, bundle("200 OK", "201 Created", "201", "503"), TransientFailure, "HTTP 503 (a part"),
        (200, bundle("200 OK", "201 Created", "201", "nonsense"), PermanentFailure, "a part"),
        (200, bundle("200 OK"), PermanentFailure, "not that to a transaction"),
        (200, b"<html>Welcome</html>", PermanentFailure, "not that to a transaction"),
        (200, b"[" * 100_000, PermanentFailure, "not that to a transaction"),
        (200, b'{"resourceType":"Bundle","entry":[1,null,{},{"response":3}]}', PermanentFailure, "a part"),
        (201, bundle(), PermanentFailure, "HTTP 201"),
        (400, OUTCOME, PermanentFailure, "HTTP 400 (duplicate)"),
        (404, b"", PermanentFailure, "mend url"),
        (409, OUTCOME, TransientFailure, "HTTP 409"),
        (412, OUTCOME, PermanentFailure, "remove the doubles"),
        (422, OUTCOME, PermanentFailure, "HTTP 422 (duplicate)"),
        (429, OUTCOME, TransientFailure, "HTTP 429"),
        (500, b"\xff\xfe" * 1000, TransientFailure, "HTTP 500"),
    ],
)
def test_what_answers_mean(
    receiver: HttpReceiver, status: int, body: bytes, failure: type[DeliveryError], words: str
) -> None:
    receiver.habit = Response(status=status, body=body)
    with closing(Fhir(name="emr", url=receiver.url)) as channel, pytest.raises(failure) as raised:
        channel.send(flag())
    assert words in str(raised.value)
    assert "Doe" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"resourceType":"CapabilityStatement","fhirVersion":"5.0.0"}', "no FHIR R4"),
        (b"<html>", "no FHIR R4"),
        (b'{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1","rest":[{"interaction":7},1]}', "does not say"),
    ],
)
def test_check_tells_what_is_there(receiver: HttpReceiver, body: bytes, words: str) -> None:
    receiver.habit = Response(body=body)
    with closing(Fhir(name="emr", url=receiver.url)) as channel:
        try:
            assert words in channel.check()
        except PermanentFailure as failure:
            assert words in str(failure)


class Gate:
    """An authorization server (RFC 6749) and a FHIR server that takes the last token it gave."""

    def __init__(self, life: float | None = 3600) -> None:
        self.life = life
        self.given = 0
        self.revoked = False
        self.http = HttpReceiver(self._answer)

    def _answer(self, request: Request) -> Response:
        if request.target == "/token":
            pair = b64encode(b"hilum%3A1:s%26cret+%C3%A4").decode()
            if request.headers.get("authorization") != f"Basic {pair}":
                return Response(status=401, body=b'{"error":"invalid_client","error_description":"Doe"}')
            assert parse_qs(request.body.decode()) == {"grant_type": ["client_credentials"], "scope": ["system/*.c"]}
            self.given += 1
            self.revoked = False
            life: dict[str, Any] = {} if self.life is None else {"expires_in": self.life}
            said = {"access_token": f"token-{self.given}", "token_type": "Bearer", **life}
            return Response(body=json.dumps(said).encode())
        if self.revoked or request.headers.get("authorization") != f"Bearer token-{self.given}":
            return Response(status=401)
        return Response(body=bundle(*["200"] * len(json.loads(request.body)["entry"])))

    def channel(self, secret: str = "s&cret ä") -> Fhir:
        access = ClientCredentials(
            f"{self.http.url}/token", client_id="hilum:1", client_secret=secret, scope="system/*.c"
        )
        return Fhir(name="emr", url=f"{self.http.url}/r4", access=access)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    made.http.start()
    yield made
    made.http.stop()


def test_a_token_is_kept_until_shortly_before_its_end(gate: Gate) -> None:
    with closing(gate.channel()) as channel:
        for revision in (1, 2, 3):
            channel.send(flag(revision=revision))
        assert gate.given == 1
        gate.life = 1
    with closing(gate.channel()) as channel:
        channel.send(flag())
        time.sleep(1)  # of which a tenth is too late
        channel.send(flag())
    assert gate.given == 3


def test_a_token_that_was_revoked_is_replaced_once(gate: Gate) -> None:
    with closing(gate.channel()) as channel:
        channel.send(flag())
        gate.revoked = True
        assert channel.send(flag()).proof
        assert gate.given == 2


@pytest.mark.parametrize("access", [GivenToken("wrong"), GivenToken()])
def test_a_given_token_that_is_not_taken_needs_a_person(gate: Gate, access: GivenToken) -> None:
    channel = Fhir(name="emr", url=f"{gate.http.url}/r4", access=access)
    with closing(channel), pytest.raises(PermanentFailure, match=r"HTTP 401: .*mend token"):
        channel.send(flag())


def test_a_client_that_is_not_known_needs_a_person(gate: Gate) -> None:
    with closing(gate.channel("wrong")) as channel, pytest.raises(PermanentFailure, match="client_secret") as raised:
        channel.send(flag())
    assert "invalid_client" in str(raised.value)
    assert "Doe" not in str(raised.value)


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        (b"<html>", PermanentFailure),
        (b'{"access_token":"a\\r\\nX: y","token_type":"bearer"}', PermanentFailure),
        (b'{"access_token":7,"token_type":"bearer"}', PermanentFailure),
        (b'{"access_token":"a","token_type":"mac"}', PermanentFailure),
        (b'{"access_token":"a","token_type":"bearer","expires_in":0}', TransientFailure),
        (b'{"access_token":"a","token_type":"bearer","expires_in":"soon"}', TransientFailure),
        (b'{"access_token":"a","token_type":"bearer","expires_in":NaN}', TransientFailure),
    ],
)
def test_a_token_that_is_none(receiver: HttpReceiver, said: bytes, failure: type[DeliveryError]) -> None:
    receiver.habit = Response(body=said)
    access = ClientCredentials(receiver.url, client_id="a", client_secret="b")
    with closing(access), pytest.raises(failure):
        access.token()


def test_neither_server_holds_a_courier_for_long(receiver: HttpReceiver) -> None:
    receiver.stall = True
    ask: Callable[[], object]
    access = ClientCredentials(receiver.url, client_id="a", client_secret="b", timeout=0.5)
    with closing(Fhir(name="emr", url=receiver.url, access=access, timeout=0.5)) as channel:
        for ask in (lambda: channel.send(flag()), channel.check):
            began = time.monotonic()
            with pytest.raises(TransientFailure, match=r"no answer within 0\.5 s"):
                ask()
            assert time.monotonic() - began < 5


def test_the_settings_make_the_channel(gate: Gate) -> None:
    destination = FhirDestination.model_validate(
        {
            "name": "emr",
            "kind": "fhir",
            "url": f"{gate.http.url}/r4/",
            "token_url": f"{gate.http.url}/token",
            "client_id": "hilum:1",
            "client_secret": "s&cret ä",
            "scope": "system/*.c",
            "patient_system": "urn:oid:1.2.3",
        }
    )
    with closing(channel_of(destination, Settings())) as channel:
        assert channel.send(flag()).proof
    token, transaction = gate.http.requests
    assert (token.target, transaction.target) == ("/token", "/r4")
    assert "urn:oid:1.2.3" in transaction.body.decode()
    with pytest.raises(ValueError, match="no bearer token"):
        FhirDestination.model_validate({"name": "emr", "kind": "fhir", "url": "http://a", "token": "a\r\nX: y"})
