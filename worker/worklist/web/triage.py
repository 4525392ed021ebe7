"""What triage mode shows of the record: why a study is raised, and what was not analysed. Nothing more.

A triage device orders a list. The fifteen labels, their probabilities and heat maps would be a reading aid, which is
another class of device: they stay in the record, and `hilum results` has them for the administrator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schemas.lifecycle import JobState

if TYPE_CHECKING:
    from worker.record.worklist import WorklistCounts, WorklistRow

_UNSHOWN_OF_PREDICTION: Final = frozenset({"binary", "findings", "thresholds"})
_UNSHOWN_OF_REVISION: Final = frozenset({"snapshot", "digest"})
_UNSHOWN_OF_FILM: Final = frozenset({"path", "digest", "lease_owner", "lease_until", "not_before"})


def counts(found: WorklistCounts) -> dict[str, int]:
    """Open studies by the name of their urgency."""
    return {urgency.name: n for urgency, n in found.studies.items()}


def row(study: WorklistRow) -> dict[str, Any]:
    """One study of the list, fit for JSON."""
    return {
        "study_uid": study.study_uid,
        "urgency": study.urgency.name,
        "reasons": list(study.reasons),
        "ordered": study.ordered,
        "state": study.state,
        "not_analysed": list(study.not_analysed),
        "films": {state.value: n for state, n in study.films.items()},
        "received_at": study.received_at.isoformat(),
        "decided_at": None if study.decided_at is None else study.decided_at.isoformat(),
        "revision": study.revision,
        "patient_name": study.patient_name,
        "patient_id": study.patient_id,
        "accession_number": study.accession_number,
        "study_description": study.study_description,
        "modality": study.modality,
        "deliveries": [
            {"destination": d.destination, "state": d.state, "revision": d.revision} for d in study.deliveries
        ],
    }


def story(found: dict[str, Any], *, research: bool = False) -> dict[str, Any]:
    """The story of a study (`Worklist.results`) as triage mode tells it; research mode has the probabilities too."""
    unshown = frozenset[str]() if research else _UNSHOWN_OF_PREDICTION
    return {
        **found,
        "films": [
            {
                **_without(film, _UNSHOWN_OF_FILM),
                "predictions": [_without(p, unshown) for p in film["predictions"]],
            }
            for film in found["films"]
        ],
        "revisions": [
            {**_without(revision, _UNSHOWN_OF_REVISION), "reasons": revision["snapshot"]["reasons"]}
            for revision in found["revisions"]
        ],
    }


def standing(study: WorklistRow) -> str:
    """What can be said of a study that is not raised: "reading", "not-analysed" or "no-flag"."""
    if study.films.get(JobState.READ):
        return "no-flag"
    waiting = study.films.get(JobState.SPOOLED, 0) + study.films.get(JobState.READING, 0)
    return "reading" if waiting else "not-analysed"


def _without(row: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}
