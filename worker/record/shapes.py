"""Between the shapes of `schemas` and what a column holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from schemas.decision import Reason, Urgency
from schemas.findings import Label
from schemas.flag import FilmResult
from schemas.identity import InstanceRef, StudyContext
from schemas.not_analysed import NotAnalysed
from schemas.outcome import ModelRef
from schemas.scanner import Scanner


def clean(text: str) -> str:
    """Text that every database takes: no NUL (PostgreSQL refuses it), no lone surrogate."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def reason_to_json(reason: Reason) -> dict[str, Any]:
    """As stored: the urgency by its number, and the words for whoever reads the column."""
    return {
        "finding": reason.finding,
        "probability": reason.probability,
        "threshold": reason.threshold,
        "urgency": int(reason.urgency),
        "words": reason.words,
    }


def reason_from_json(raw: Mapping[str, Any]) -> Reason:
    """Back again."""
    return Reason(
        finding=raw["finding"],
        probability=raw["probability"],
        threshold=raw["threshold"],
        urgency=Urgency(raw["urgency"]),
    )


def reasons_from_json(raw: Iterable[Mapping[str, Any]]) -> tuple[Reason, ...]:
    """Back again, all of them."""
    return tuple(map(reason_from_json, raw))


def findings_from_json(raw: Mapping[str, float]) -> dict[Label, float]:
    """In the order of the model's outputs, whatever order the column gives back."""
    return {label: raw[label] for label in Label if label in raw}


def scanner_to_json(scanner: Scanner) -> dict[str, Any]:
    """As stored with a film."""
    return {key: clean(value) if isinstance(value, str) else value for key, value in asdict(scanner).items()}


def film_to_json(film: FilmResult) -> dict[str, Any]:
    """As stored in a revision."""
    return {
        "instance": asdict(film.instance),
        "binary": film.binary,
        "findings": dict(film.findings),
        "reasons": [reason_to_json(r) for r in film.reasons],
        "not_analysed": film.not_analysed,
        "remarks": list(film.remarks),
    }


def film_from_json(raw: Mapping[str, Any]) -> FilmResult:
    """Back again."""
    return FilmResult(
        instance=InstanceRef(**raw["instance"]),
        binary=raw["binary"],
        findings=findings_from_json(raw["findings"]),
        reasons=reasons_from_json(raw["reasons"]),
        not_analysed=None if raw["not_analysed"] is None else NotAnalysed(raw["not_analysed"]),
        remarks=tuple(raw["remarks"]),
    )


def merge(old: Mapping[str, str], new: StudyContext) -> dict[str, str]:
    """What is known of a study after one more film: the latest word on each element, and no element is forgotten.

    Modality stays that of the first film: an SR or a key image may follow, and the study is still one of films.
    """
    latest = {key: clean(value) for key, value in asdict(new).items()}
    merged = {key: latest[key] or old.get(key, "") for key in latest}
    merged["modality"] = old.get("modality") or latest["modality"]
    return merged


def digest(model: ModelRef, urgency: Urgency, reasons: Iterable[Reason], films: Iterable[FilmResult]) -> str:
    """SHA-256 of what a revision tells. Probabilities count to two decimals, as a person is told them:

    the same film read again, in another batch or by another runtime, differs in the third and is no news.
    """

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 2)
        if isinstance(value, dict):
            return {key: rounded(v) for key, v in value.items()}
        return [rounded(v) for v in value] if isinstance(value, list) else value

    # Remarks are for the administrator; who else is in the study, and what was said of it, is the message.
    told = [film_to_json(replace(film, remarks=())) for film in films]
    content = [
        model.id,
        int(urgency),
        [reason_to_json(r) for r in reasons],
        sorted(told, key=lambda f: f["instance"]["sop_uid"]),
    ]
    return hashlib.sha256(json.dumps(rounded(content), sort_keys=True).encode()).hexdigest()
