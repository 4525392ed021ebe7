"""What an event says, and what it never says."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPMessage
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage as Received
from cloudevents.core.bindings.http import from_http_event
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from schemas.errors import ConfigurationError
from schemas.flag import Withdrawal
from schemas.not_analysed import NotAnalysed
from tests.unit.notify.flags import EFFUSION, PATIENT, PNEUMOTHORAX, VALID, film, flag
from worker.notify.http import Answer
from worker.notify.webhook import SOURCE, _proof, build_event, signature, signing_key

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize("name", VALID)
def test_every_event_is_a_cloud_event(name: str) -> None:
    event = build_event(VALID[name], identify=True)
    body = json.dumps(event).encode()
    body.decode("ascii")
    read = from_http_event(Received(headers={"content-type": "application/cloudevents+json"}, body=body))
    assert (read.get_source(), read.get_subject(), read.get_specversion()) == (SOURCE, VALID[name].study_uid, "1.0")
    assert read.get_time() == VALID[name].decided_at
    assert event == build_event(VALID[name], identify=True)


@pytest.mark.parametrize(
    ("which", "kind"),
    [
        (flag(), "hilum.flag.raised"),
        (flag(film()), "hilum.study.left-in-order"),
        (flag(film(not_analysed=NotAnalysed.LATERAL)), "hilum.study.not-analysed"),
        (replace(flag(film(), revision=2), withdrawn=Withdrawal.MODEL), "hilum.flag.withdrawn"),
    ],
)
def test_its_type_says_what_happened(which: Any, kind: str) -> None:
    assert build_event(which)["type"] == kind


def test_another_revision_or_model_is_another_event() -> None:
    ids = {build_event(each)["id"] for each in (flag(), flag(revision=2), replace(flag(), model_id="another"), flag())}
    assert len(ids) == 3


def test_patients_are_named_only_where_asked_for() -> None:
    silent, named = (json.dumps(build_event(flag(), identify=identify)) for identify in (False, True))
    for secret in (PATIENT.patient_name, PATIENT.patient_id, PATIENT.accession_number, PATIENT.patient_birth_date):
        assert f'"{secret}"' not in silent
        assert f'"{secret}"' in named


def test_the_findings_are_those_of_the_reasons_and_no_others() -> None:
    event = build_event(flag(film(reasons=[PNEUMOTHORAX, EFFUSION])))
    assert [(r["finding"], r["code"]["code"], r["probability"]) for r in event["data"]["reasons"]] == [
        ("Pneumothorax", "36118008", 0.91),
        ("Effusion", "60046008", 0.7149),
    ]
    said = json.dumps(event)
    assert "0.0123" not in said  # silent probabilities of the film
    assert "0.4321" not in said
    assert "Hernia" not in said


def test_the_signature_is_that_of_standard_webhooks() -> None:
    now = str(int(datetime.now(UTC).timestamp()))
    headers = {"webhook-id": "a", "webhook-timestamp": now}
    headers["webhook-signature"] = signature(signing_key(SECRET), "a", now, b'{"b":1}')
    assert Verifier(SECRET).verify(b'{"b":1}', headers) == {"b": 1}
    for body, header in ((b'{"b":2}', headers), (b'{"b":1}', headers | {"webhook-id": "c"})):
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(body, header)


@pytest.mark.parametrize("secret", ["", "change me", "whsec_", "whsec_***", "whsec_c2hvcnQ=", SECRET[6:]])
def test_a_secret_that_is_none(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="whsec_"):
        signing_key(secret)


@pytest.mark.parametrize(
    ("headers", "body", "proof"),
    [
        ({}, b"", "HTTP 202"),
        ({"Location": "/events/7"}, b"", "HTTP 202, /events/7"),
        ({}, b'{"id": 7}', "HTTP 202, 7"),
        ({}, b'{"id": "Doe Jane"}', "HTTP 202"),
        ({}, b'{"id": "' + b"9" * 201 + b'"}', "HTTP 202"),
        ({}, b"[" * 100_000, "HTTP 202"),
        ({}, b"\xff\xfe{", "HTTP 202"),
    ],
)
def test_the_proof(headers: dict[str, str], body: bytes, proof: str) -> None:
    message = HTTPMessage()
    for name, value in headers.items():
        message[name] = value
    assert _proof(Answer(status=202, headers=message, body=body)) == proof
