"""A flag as a transaction Bundle of FHIR R4 (4.0.1): DiagnosticReport, Observation, Device, Task.

A study has one report, one observation and one task, whatever the number of revisions: each is a conditional update by
an identifier that derives from the study alone, and the server keeps the history. So a flag that comes twice changes
nothing, and a revision replaces what was said before, to the last finding. That is why the findings are components of
one observation of the study's urgency and no observations of their own: a flag that is withdrawn does not say which it
had been raised for, and one that was left behind would stand in the record as found.

Patient, study and order are the hospital's: they are referred to by their identifiers and never created.

Statuses: report and observation are `preliminary` until they are withdrawn, then `entered-in-error`, "withdrawn
following a previous final release" (code system diagnostic-report-status); `cancelled` would be one that "was not
started or not completed", and hilum's was. The task is `cancelled`, or `entered-in-error` where it was never this
patient's. A study that has been reported had a rightful flag: its task is `completed`, and nothing else is touched.
"""

from __future__ import annotations

import re
from datetime import UTC, date
from html import escape
from typing import Any, Final, TypeAlias
from urllib.parse import quote
from uuid import UUID

from schemas.decision import Reason, Urgency
from schemas.findings import Code
from schemas.flag import WITHDRAWN, Flag, Withdrawal
from worker.notify.codes import PRIORITY, URGENCY, finding_code
from worker.notify.study_module import plain
from worker.notify.uids import derive_uid, derive_uuid
from worker.notify.wording import headline, sentences

Json: TypeAlias = dict[str, Any]

URI: Final = "urn:ietf:rfc:3986"  # system of identifiers that are URIs
_SYSTEMS: Final = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    "HL70074": "http://terminology.hl7.org/CodeSystem/v2-0074",  # diagnostic service sections
    "HL70203": "http://terminology.hl7.org/CodeSystem/v2-0203",  # types of identifiers
    "CATEGORY": "http://terminology.hl7.org/CodeSystem/observation-category",
    "INTERPRETATION": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation",
}
_SERVICE: Final = Code("30745-4", "LN", "XR Chest Views")
_PRIORITY: Final = {Urgency.STAT: "stat", Urgency.URGENT: "urgent", Urgency.ROUTINE: "routine"}
_TASK: Final = {
    Withdrawal.PERSON: "cancelled",
    Withdrawal.PATIENT: "entered-in-error",
    Withdrawal.MODEL: "cancelled",
    Withdrawal.REPORTED: "completed",
}


def object_id(flag: Flag) -> str:
    """Of this revision; its report or task bears it as a further identifier."""
    return f"urn:oid:{derive_uid('fhir', flag.study_uid, flag.model_id, flag.revision)}"


def build_transaction(flag: Flag, patient_system: str = "") -> Json:
    """The Bundle. Equal flags give equal Bundles.

    `patient_system` is the URI of the hospital's patient numbers, without which a number is only local.
    """
    study = _Study(flag, patient_system)
    if flag.withdrawn is Withdrawal.REPORTED:
        return _transaction([_put(study.task, _task(flag, study))])
    device = derive_uuid("fhir-device", flag.model_id)
    entries = [
        _create(device, _device(flag)),
        _put(study.observation, {**_observation(flag, study), "device": {"reference": device.urn}}),
        _put(study.report, _report(flag, study)),
    ]
    if flag.urgency > Urgency.ROUTINE or flag.withdrawn is not None:
        task = {**_task(flag, study), "requester": {"reference": device.urn}}
        entries.append(_put(study.task, {**task, "reasonReference": {"reference": study.report.urn}}))
    return _transaction(entries)


class _Study:
    """What the resources of one study have in common."""

    def __init__(self, flag: Flag, patient_system: str) -> None:
        self.report, self.observation, self.task = (
            derive_uuid(f"fhir-{kind}", flag.study_uid) for kind in ("report", "observation", "task")
        )
        self.moment = flag.decided_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.images = _logical("ImagingStudy", {"system": "urn:dicom:uid", "value": f"urn:oid:{flag.study_uid}"})
        self.patient = _patient(flag, patient_system)
        accession = plain(flag.context.accession_number)
        order = {"type": _concept(Code("ACSN", "HL70203", "Accession ID")), "value": accession}
        self.based_on = {"basedOn": [_logical("ServiceRequest", order)]} if accession else {}

    def result(self, flag: Flag) -> Json:
        """Of report and observation alike."""
        taken = _date(flag.context.study_date)
        return {
            "status": "preliminary" if flag.withdrawn is None else "entered-in-error",
            **self.based_on,
            **({"subject": self.patient} if self.patient else {}),
            **({"effectiveDateTime": taken} if taken else {}),
            "issued": self.moment,
        }


def _report(flag: Flag, study: _Study) -> Json:
    return {
        "resourceType": "DiagnosticReport",
        "text": _narrative(flag),
        "identifier": [_identifier(_oid(study.report)), _identifier(object_id(flag))],
        **study.result(flag),
        "category": [_concept(Code("RAD", "HL70074", "Radiology"))],
        "code": _concept(_SERVICE, "hilum triage, not for diagnosis"),
        "imagingStudy": [study.images],
        "result": [{"reference": study.observation.urn}],
        "conclusion": " ".join(sentences(flag)),
    }


def _observation(flag: Flag, study: _Study) -> Json:
    findings = [_finding(reason) for reason in flag.reasons]
    return {
        "resourceType": "Observation",
        "identifier": [_identifier(_oid(study.observation)), _identifier(object_id(flag))],
        **study.result(flag),
        "category": [_concept(Code("imaging", "CATEGORY", "Imaging"))],
        "code": _concept(PRIORITY),
        "valueCodeableConcept": _concept(URGENCY[flag.urgency]),
        "derivedFrom": [study.images],
        **({"component": findings} if findings else {}),
    }


def _finding(reason: Reason) -> Json:
    """How probable it is, beside the threshold that it passed.

    POS, "a presence finding ... based on the established threshold", and neither A nor AA: how soon to look is said by
    the priority.
    """
    return {
        "code": _concept(finding_code(reason.finding), reason.finding),
        "valueQuantity": _quantity(reason.probability),
        "interpretation": [_concept(Code("POS", "INTERPRETATION", "Positive"))],
        "referenceRange": [{"high": _quantity(reason.threshold), "text": "threshold of the site's policy"}],
    }


def _task(flag: Flag, study: _Study) -> Json:
    """Proposed, not ordered: the films are to be read in any case, and by when is the hospital's to say."""
    withdrawn = flag.withdrawn
    return {
        "resourceType": "Task",
        "identifier": [_identifier(_oid(study.task)), _identifier(object_id(flag))],
        **study.based_on,
        "status": "requested" if withdrawn is None else _TASK[withdrawn],
        **({} if withdrawn is None else {"statusReason": {"text": WITHDRAWN[withdrawn]}}),
        "intent": "proposal",
        "priority": _PRIORITY[max(flag.urgency, flag.order_urgency)],
        "code": {"text": "Read this study sooner"},
        "description": headline(flag),
        "focus": study.images,
        **({"for": study.patient} if study.patient else {}),
        "lastModified": study.moment,
        "note": [{"text": sentence} for sentence in sentences(flag)],
    }


def _device(flag: Flag) -> Json:
    """The model. Its identifier is the UID of the observing device in the structured report."""
    return {
        "resourceType": "Device",
        "identifier": [_identifier(f"urn:oid:{derive_uid('device', flag.model_id)}")],
        "manufacturer": "hilum",
        "deviceName": [{"name": plain(f"{flag.model_name} {flag.model_version}"), "type": "model-name"}],
        "version": [{"value": flag.model_id}],
    }


def _patient(flag: Flag, system: str) -> Json:
    context = flag.context
    name, number, issuer = (
        plain(value) for value in (context.patient_name, context.patient_id, context.issuer_of_patient_id)
    )
    called = " ".join(part for part in name.partition("=")[0].split("^") if part)
    display = {"display": called} if called else {}
    if not number:
        return {"type": "Patient", **display} if display else {}
    identifier = {
        "type": _concept(Code("MR", "HL70203", "Medical record number")),
        **({"system": system} if system else {}),
        "value": number,
        **({"assigner": {"display": issuer}} if issuer else {}),
    }
    return {**_logical("Patient", identifier), **display}


def _transaction(entries: list[Json]) -> Json:
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _put(name: UUID, resource: Json) -> Json:
    """A conditional update (http.html#cond-update): made where there is none, replaced where there is one."""
    request = {"method": "PUT", "url": f"{resource['resourceType']}?{_search(resource)}"}
    return {"fullUrl": name.urn, "resource": resource, "request": request}


def _create(name: UUID, resource: Json) -> Json:
    """A conditional create (http.html#ccreate): what is there already is left as it is."""
    request = {"method": "POST", "url": resource["resourceType"], "ifNoneExist": _search(resource)}
    return {"fullUrl": name.urn, "resource": resource, "request": request}


def _search(resource: Json) -> str:
    identifier = resource["identifier"][0]
    return f"identifier={quote(identifier['system'] + '|' + identifier['value'], safe=':')}"


def _oid(name: UUID) -> str:
    """The same number in other clothes (PS3.5 B.2): a server may take each URN of an entry for a link to it."""
    return f"urn:oid:2.25.{name.int}"


def _identifier(uri: str) -> Json:
    return {"system": URI, "value": uri}


def _logical(kind: str, identifier: Json) -> Json:
    """A reference to what the hospital has, by the name that hilum knows it by (references.html#logical)."""
    return {"type": kind, "identifier": identifier}


def _concept(code: Code, text: str = "") -> Json:
    coding = {"system": _SYSTEMS[code.scheme], "code": code.value, "display": code.meaning}
    return {"coding": [coding], **({"text": text} if text else {})}


def _quantity(value: float) -> Json:
    return {"value": round(value, 4), "unit": "1", "system": _SYSTEMS["UCUM"], "code": "1"}


def _narrative(flag: Flag) -> Json:
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(flag))
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{paragraphs}</div>'}


def _date(dicom: str) -> str:
    """A date of DICOM's (VR DA) as one of FHIR's; empty where it is none."""
    try:
        return date.fromisoformat(dicom).isoformat() if re.fullmatch(r"[0-9]{8}", dicom) else ""
    except ValueError:
        return ""
