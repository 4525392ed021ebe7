"""States and the tables of moves; the diagram in the README is drawn from these."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """One received version of one instance, between door 1 and door 2."""

    SPOOLED = "spooled"
    READING = "reading"
    READ = "read"
    NOT_ANALYSED = "not-analysed"
    FAILED = "failed"


MOVES: Final[Mapping[JobState, frozenset[JobState]]] = {
    JobState.SPOOLED: frozenset({JobState.READING}),
    # back to SPOOLED: the lease lapsed, or a passing fault
    JobState.READING: frozenset({JobState.READ, JobState.NOT_ANALYSED, JobState.SPOOLED, JobState.FAILED}),
    # back to SPOOLED: `hilum requeue`
    JobState.READ: frozenset({JobState.SPOOLED}),
    JobState.NOT_ANALYSED: frozenset({JobState.SPOOLED}),
    JobState.FAILED: frozenset({JobState.SPOOLED}),
}


class OutboxState(StrEnum):
    """One flag revision on its way to one destination."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    SUPERSEDED = "superseded"


OUTBOX_MOVES: Final[Mapping[OutboxState, frozenset[OutboxState]]] = {
    # superseded: a later revision of the same study is waiting behind it
    OutboxState.PENDING: frozenset({OutboxState.SENDING, OutboxState.SUPERSEDED}),
    OutboxState.SENDING: frozenset({OutboxState.SENT, OutboxState.REFUSED, OutboxState.PENDING}),
    # back to PENDING: replay
    OutboxState.SENT: frozenset({OutboxState.PENDING}),
    OutboxState.REFUSED: frozenset({OutboxState.PENDING}),
    OutboxState.SUPERSEDED: frozenset(),
}


class StudyState(StrEnum):
    """Where a study stands on the worklist."""

    RECEIVING = "receiving"  # a film is waiting or being read
    READ = "read"  # every film so far is settled; more may come
    FINAL = "final"  # quiet for long enough


STUDY_MOVES: Final[Mapping[StudyState, frozenset[StudyState]]] = {
    StudyState.RECEIVING: frozenset({StudyState.READ}),
    StudyState.READ: frozenset({StudyState.RECEIVING, StudyState.FINAL}),
    StudyState.FINAL: frozenset({StudyState.RECEIVING}),  # a late film
}
