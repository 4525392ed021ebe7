"""The transaction of every flag, against the models of fhir.resources, and what it says and never says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydantic import BaseModel

from schemas.decision import Urgency
from schemas.flag import Withdrawal
from tests.unit.notify.flags import EFFUSION, PATIENT, PNEUMOTHORAX, STUDY, VALID, film, flag, named
from worker.notify.fhir import build_transaction, object_id


def entries(which: Any, patient_system: str = "") -> dict[str, dict[str, Any]]:
    return {e["resource"]["resourceType"]: e for e in build_transaction(which, patient_system)["entry"]}


def resource(which: Any, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = entries(which)[kind]["resource"]
    return found


def codes(model: BaseModel) -> Iterator[tuple[str, Any, list[str]]]:
    """Of every element with a list of codes (required binding): its name, its value, the list."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        extra = field.json_schema_extra
        if isinstance(extra, dict) and isinstance(extra.get("enum_values"), list) and value is not None:
            yield f"{type(model).__name__}.{name}", value, extra["enum_values"]
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, BaseModel):
                yield from codes(inner)


@pytest.mark.parametrize("name", VALID)
def test_every_transaction_is_valid(name: str) -> None:
    transaction = build_transaction(VALID[name], "urn:oid:1.2.3")
    json.dumps(transaction, ensure_ascii=False).encode()
    seen = set()
    for element, value, allowed in codes(Bundle.model_validate(transaction)):
        seen.add(element)
        assert value in allowed or "+" in allowed, element  # "+": the model shortens the list
    assert {"Bundle.type", "Task.intent", "Task.priority"} <= seen or "Task" not in entries(VALID[name])
    assert transaction == build_transaction(VALID[name], "urn:oid:1.2.3")


@pytest.mark.parametrize("name", VALID)
def test_what_refers_within_refers_to_what_is_there(name: str) -> None:
    transaction = build_transaction(VALID[name])
    said = json.dumps(transaction)
    links = {entry["fullUrl"] for entry in transaction["entry"]}
    assert len(links) == len(transaction["entry"])
    for part in said.split('"reference": "')[1:]:
        assert part.partition('"')[0] in links
    for entry in transaction["entry"]:  # a server may rewrite whatever equals a link
        assert not links & {identifier["value"] for identifier in entry["resource"]["identifier"]}


def test_report_observation_and_task_are_the_studys_whatever_the_revision() -> None:
    first, second = entries(flag()), entries(replace(flag(revision=2, predecessor=1), model_id="another"))
    for kind in ("DiagnosticReport", "Observation", "Task"):
        assert first[kind]["request"] == second[kind]["request"]
        assert first[kind]["request"]["method"] == "PUT"
        assert first[kind]["resource"]["identifier"][1] != second[kind]["resource"]["identifier"][1]
    assert first["Device"]["request"] != second["Device"]["request"]
    assert first["Device"]["request"]["method"] == "POST"
    assert "%7Curn:oid:2.25." in first["Device"]["request"]["ifNoneExist"]
    assert first["Task"]["resource"]["identifier"][1]["value"] == object_id(flag())


@pytest.mark.parametrize(
    ("urgency", "priority"), [(Urgency.STAT, "stat"), (Urgency.URGENT, "urgent")], ids=["stat", "urgent"]
)
def test_the_task_has_the_priority(urgency: Urgency, priority: str) -> None:
    task = resource(flag(urgency=urgency), "Task")
    assert (task["priority"], task["status"], task["intent"]) == (priority, "requested", "proposal")
    assert task["focus"]["identifier"] == {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}


def test_the_task_says_no_less_than_the_order() -> None:
    ordered = replace(flag(urgency=Urgency.URGENT), order_urgency=Urgency.STAT)
    assert resource(ordered, "Task")["priority"] == "stat"
    assert resource(ordered, "Observation")["valueCodeableConcept"]["coding"][0]["display"] == "Urgent"


def test_a_study_left_in_its_order_has_no_task() -> None:
    assert set(entries(flag(film()))) == {"Device", "Observation", "DiagnosticReport"}


@pytest.mark.parametrize(
    ("why", "report", "task"),
    [
        (Withdrawal.PERSON, "entered-in-error", "cancelled"),
        (Withdrawal.PATIENT, "entered-in-error", "entered-in-error"),
        (Withdrawal.MODEL, "entered-in-error", "cancelled"),
        (Withdrawal.REPORTED, None, "completed"),
    ],
)
def test_what_a_withdrawal_leaves(why: Withdrawal, report: str | None, task: str) -> None:
    said = entries(replace(flag(film(), revision=2, predecessor=1), withdrawn=why))
    assert said["Task"]["resource"]["status"] == task
    assert said["Task"]["resource"]["priority"] == "routine"
    statuses = {said[k]["resource"]["status"] if k in said else None for k in ("DiagnosticReport", "Observation")}
    assert statuses == {report}
    assert "component" not in said.get("Observation", {}).get("resource", {})


def test_the_findings_are_those_of_the_reasons_and_no_others() -> None:
    which = flag(film(reasons=[PNEUMOTHORAX, EFFUSION]))
    components = resource(which, "Observation")["component"]
    assert [
        (c["code"]["coding"][0]["code"], c["valueQuantity"]["value"], c["referenceRange"][0]["high"]["value"])
        for c in components
    ] == [("36118008", 0.91, 0.62), ("60046008", 0.7149, 0.58)]
    said = json.dumps(build_transaction(which))
    assert "0.0123" not in said
    assert "0.4321" not in said
    assert "Hernia" not in said


def test_the_patient_is_referred_to_and_never_made() -> None:
    said = entries(flag(), "urn:oid:1.2.3")
    subject = said["DiagnosticReport"]["resource"]["subject"]
    assert (subject["identifier"]["system"], subject["identifier"]["value"]) == ("urn:oid:1.2.3", PATIENT.patient_id)
    assert subject["display"] == "Doe Jane"
    assert "Patient" not in said
    assert "subject" not in resource(named("", patient_id=""), "DiagnosticReport")


def test_markup_in_a_model_s_name_stays_text() -> None:
    report = resource(replace(flag(), model_name="<script>&"), "DiagnosticReport")
    assert "&lt;script&gt;&amp;" in report["text"]["div"]


@pytest.mark.parametrize("when", ["", "2025", "20251301", "2025-1-1", "٢٠٢٥٠١٠١", "20250101x", "2025W011"])
def test_a_date_that_is_none_is_left_out(when: str) -> None:
    assert "effectiveDateTime" not in resource(named("Doe^Jane", study_date=when), "DiagnosticReport")
