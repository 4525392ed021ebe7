"""A FHIR server (Medplum's engine), and what its history says to whoever reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fhir.resources.R4B.bundle import Bundle

from tests.contract.channel.habits import HttpHabits
from tests.contract.channel.receiver import Held
from tests.contract.channel.receiver_hl7_oru import revision_in
from tests.fhir import FhirServer
from tests.http_receiver import HttpReceiver, Request, Response
from worker.notify.fhir_channel import Fhir
from worker.ports import Channel

OUTCOME = b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"%s","diagnostics":"Doe^Jane"}]}'


class FhirReceiver(HttpHabits):
    refusal = Response(status=422, body=OUTCOME % b"invariant")
    not_now = Response(status=503, body=OUTCOME % b"throttled")

    def __init__(self) -> None:
        self.server = FhirServer()
        self.http = HttpReceiver(self._answer)

    def channel(self, *, timeout: float = 5.0) -> Channel:
        return Fhir(name="emr", url=f"{self.http.url}/fhir/r4", timeout=timeout)

    def held(self) -> list[Held]:
        """A report, or a task alone, once for each revision that it bears the name of."""
        held: dict[str, Held] = {}
        for resource in [*self.server.versions("DiagnosticReport"), *self.server.versions("Task")]:
            told = _held(resource)
            before = held.get(told.object_id, told)
            held[told.object_id] = Held(
                object_id=told.object_id,
                revision=told.revision,
                withdrawn=told.withdrawn or before.withdrawn,
                urgent=told.urgent or before.urgent,
                words=f"{before.words} {told.words}",
            )
        return list(held.values())

    def _answer(self, request: Request) -> Response:
        assert request.target.startswith("/fhir/r4")
        if request.body:
            Bundle.model_validate_json(request.body)
        status, body = self.server.ask(request.method, request.target.removeprefix("/fhir/r4"), request.body or None)
        return Response(status=status, headers={"Content-Type": "application/fhir+json"}, body=body)


def make(folder: Path) -> FhirReceiver:
    return FhirReceiver()


def _held(resource: dict[str, Any]) -> Held:
    notes = [note["text"] for note in resource.get("note", ())]
    words = " ".join([resource.get("conclusion", ""), resource.get("description", ""), *notes])
    return Held(
        object_id=resource["identifier"][1]["value"],
        revision=revision_in(words),
        withdrawn=resource["status"] in {"entered-in-error", "cancelled", "completed"},
        urgent=resource.get("priority") in {"stat", "urgent"} and resource["status"] == "requested",
        words=words,
    )
