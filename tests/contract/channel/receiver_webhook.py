"""A program of the site's own: the library of Standard Webhooks tells who sent it, that of CloudEvents what it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks import Webhook as Verifier

from tests.contract.channel.habits import HttpHabits
from tests.contract.channel.receiver import Held
from tests.http_receiver import HttpReceiver, Request, Response
from worker.notify.webhook import Webhook, signing_key
from worker.ports import Channel

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class WebhookReceiver(HttpHabits):
    refusal = Response(status=403)
    not_now = Response(status=503)

    def __init__(self) -> None:
        self.events: dict[str, BaseCloudEvent] = {}
        self.http = HttpReceiver(self._take)

    def channel(self, *, timeout: float = 5.0, identify: bool = False) -> Channel:
        return Webhook(
            name="program",
            url=f"{self.http.url}/flags?site=1",
            clock=lambda: datetime.now(UTC),
            key=signing_key(SECRET),
            identify=identify,
            timeout=timeout,
        )

    def held(self) -> list[Held]:
        return [_held(event) for event in self.events.values()]

    def _take(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status=204)
        Verifier(SECRET).verify(request.body, request.headers)
        event = from_http_event(HTTPMessage(headers=request.headers, body=request.body))
        assert request.headers["webhook-id"] == event.get_id()
        self.events.setdefault(event.get_id(), event)
        return Response(status=202)


def make(folder: Path) -> WebhookReceiver:
    return WebhookReceiver()


def _held(event: BaseCloudEvent) -> Held:
    data = event.get_data()
    assert isinstance(data, dict)
    return Held(
        object_id=event.get_id(),
        revision=data["revision"],
        withdrawn=event.get_type() == "hilum.flag.withdrawn",
        urgent=event.get_type() == "hilum.flag.raised" and data["urgency"] in {"STAT", "URGENT"},
        words=json.dumps(data),
    )
