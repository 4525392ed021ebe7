"""From a file to a film that passed the gate, or to the coded reason why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from schemas.errors import NotAnalysable
from schemas.gate import GateRules
from schemas.identity import StudyContext
from schemas.image import Film, FilmHeader
from worker.decode.display import rendering, to_display
from worker.decode.gate import check_header, check_pixels, is_inverted
from worker.decode.header import describe, open_source
from worker.decode.pixels import stored_pixels


def read_header(path: Path) -> tuple[FilmHeader, StudyContext]:
    """What the file says of itself; no pixel is read and no rule applied.

    Raises
    ------
    Undecodable
        Not DICOM, or broken before the pixels. A missing file or no permission stays an `OSError`.
    """
    with path.open("rb") as file:
        return describe(open_source(file))


def read_film(path: Path, rules: GateRules) -> Film:
    """The film as a radiologist would see it. What the header already refuses is never decoded.

    Remarks: "polarity-corrected" (shown inverted although the header says otherwise), "window-ignored" (its VOI LUT
    would have shown nothing), "for-processing" (not made for display).

    Raises
    ------
    Undecodable
        Not DICOM, truncated, no decoder. Permanent. A missing file or no permission stays an `OSError`.
    NotAnalysable
        With the documented code of the first rule that the film fails.
    """
    with path.open("rb") as file:
        source = open_source(file)
        header, context = describe(source)
        check_header(header, rules)
        stored, form = stored_pixels(source)
        how = rendering(source)
    remarks = ["for-processing"] if header.presentation_intent == "FOR PROCESSING" else []
    shown = to_display(stored, form, how)
    try:
        check_pixels(shown)
    except NotAnalysable:
        if how.voi is None:
            raise
        how = replace(how, voi=None)
        shown = to_display(stored, form, how)
        check_pixels(shown)
        remarks.append("window-ignored")
    if is_inverted(shown):
        shown = to_display(stored, form, replace(how, inverse=not how.inverse))
        remarks.append("polarity-corrected")
    return Film(header=header, context=context, pixels=shown, remarks=tuple(remarks))
