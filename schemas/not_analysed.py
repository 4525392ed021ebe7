"""Why a film was not read: one code out of a documented list, and its words."""

from __future__ import annotations

from enum import StrEnum


class NotAnalysed(StrEnum):
    """Coded reason. A film with a reason has no score."""

    NOT_A_RADIOGRAPH = "not-a-radiograph"
    NOT_CHEST = "not-chest"
    NOT_HUMAN = "not-human"
    LATERAL = "lateral"
    OBLIQUE = "oblique"
    CHILD = "child"
    COLOUR = "colour"
    MULTI_FRAME = "multi-frame"
    NO_PIXELS = "no-pixels"
    UNREADABLE = "unreadable"
    BLANK = "blank"
    SATURATED = "saturated"
    TOO_SMALL = "too-small"
    MODEL_FAILED = "model-failed"


WORDS: dict[NotAnalysed, str] = {
    NotAnalysed.NOT_A_RADIOGRAPH: "not a radiograph",
    NotAnalysed.NOT_CHEST: "not a chest film",
    NotAnalysed.NOT_HUMAN: "not a human patient",
    NotAnalysed.LATERAL: "lateral view",
    NotAnalysed.OBLIQUE: "oblique view",
    NotAnalysed.CHILD: "patient below the age limit",
    NotAnalysed.COLOUR: "colour image",
    NotAnalysed.MULTI_FRAME: "more than one frame",
    NotAnalysed.NO_PIXELS: "no pixel data",
    NotAnalysed.UNREADABLE: "pixel data could not be decoded",
    NotAnalysed.BLANK: "blank image",
    NotAnalysed.SATURATED: "saturated image",
    NotAnalysed.TOO_SMALL: "image too small",
    NotAnalysed.MODEL_FAILED: "the model could not be run",
}
