"""The registry of models: their states and moves, what became of each, and who reads with which.

One model is live at a time and reads every film. One at most is the shadow: it reads the same films in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from schemas.card import ModelCard
from schemas.decision import Urgency


class ModelState(StrEnum):
    """Where a model stands."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"  # reads live traffic, and nobody hears of it
    LIVE = "live"
    RETIRED = "retired"


MODEL_MOVES: Final[Mapping[ModelState, frozenset[ModelState]]] = {
    ModelState.CANDIDATE: frozenset({ModelState.SHADOW, ModelState.RETIRED}),
    ModelState.SHADOW: frozenset({ModelState.LIVE, ModelState.CANDIDATE, ModelState.RETIRED}),
    ModelState.LIVE: frozenset({ModelState.RETIRED}),  # only in the moment in which another becomes live
    # to LIVE: rolled back to, no further than to the model before
    ModelState.RETIRED: frozenset({ModelState.CANDIDATE, ModelState.LIVE}),
}


class ModelAction(StrEnum):
    """What happened."""

    ADDED = "added"
    MOVED = "moved"
    ROLLED_BACK = "rolled back"  # of the model that is live again, and of the one that went
    TAKEN_UP = "taken up"  # a process reads with it from this moment on
    REFUSED = "refused"  # a process could not load it, and goes on with the one that it has


COMMAND_LINE: Final = " (command line)"  # behind the name of whoever did something there
PARITY: Final = "parity"  # name of the proof that two runtimes agree; the others are named after their runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Something that was proven of a model, or a condition of its promotion, and whether it is met."""

    name: str
    passed: bool
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredModel:
    """A model that this site knows."""

    model_id: str
    name: str
    version: str
    bundle: str  # its name in the store, or its folder
    state: ModelState
    added_at: datetime
    card: ModelCard  # without the long history of its training

    def to_json(self) -> dict[str, Any]:
        """As programs are told of it, without its figures."""
        return {
            "model_id": self.model_id,
            "name": self.name,
            "version": self.version,
            "bundle": self.bundle,
            "state": self.state.value,
            "added_at": self.added_at.isoformat(),
            "licence": self.card.licence,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEvent:
    """One line of the history; never changed."""

    id: int
    at: datetime
    model_id: str
    who: str  # a person, a process that reads, or "configuration"
    action: ModelAction
    from_state: ModelState | None
    to_state: ModelState | None  # None: no move
    why: str
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveSpell:
    """A spell of a model's being live."""

    model: RegisteredModel
    since: datetime
    until: datetime | None  # None: it is live still
    who: str
    why: str
    told: tuple[ModelEvent, ...] = ()  # of the processes that read: who took it up when, who could not


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """What should read now."""

    live: RegisteredModel
    shadow: RegisteredModel | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReader:
    """A process that reads films, as it last said of itself."""

    reader: str
    model_id: str
    since: datetime
    shadow_id: str | None
    fault: str  # empty: all is as the registry wants it
    dropped: int  # films that the shadow had no time for, since the process started
    seen_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowFilm:
    """One film by both models."""

    study_uid: str
    received_at: datetime  # the study's first film
    order_urgency: Urgency
    live_urgency: Urgency
    urgency: Urgency  # that the shadow would have given
    live_findings: frozenset[str]  # that gave reasons
    findings: frozenset[str]


def kept_of(card: ModelCard) -> dict[str, Any]:
    """Of a card, what the registry keeps as JSON: all but how its training went, epoch by epoch."""
    training = {key: value for key, value in card.training.items() if key not in {"history", "description"}}
    kept: dict[str, Any] = json.loads(replace(card, training=training).to_json())
    return kept
