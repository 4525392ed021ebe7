"""From a file to a film that passed the gate, or to the coded reason why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from schemas.errors import NotAnalysable
from schemas.gate import GateRules
from schemas.identity import StudyContext
from schemas.image import Film, FilmHeader
from schemas.scanner import Scanner
from worker.decode.display import rendering, to_display
from worker.decode.gate import check_header, check_pixels, is_inverted
from worker.decode.header import Source, describe, open_source
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
        With the documented code of the first rule that the film fails, and the scanner that its header names.
    """
    with path.open("rb") as file:
        source = open_source(file)
        header, context = describe(source)
        try:
            return _film(source, header, context, rules)
        except NotAnalysable as error:
            error.scanner = scanner_of(header)
            raise


def scanner_of(header: FilmHeader) -> Scanner:
    """What the film was made with. A depth that no film has counts as not said."""
    bits = header.bits_stored
    return Scanner(
        manufacturer=header.manufacturer,
        model=header.model_name,
        view=header.view_position,
        bits_stored=bits if bits is not None and 1 <= bits <= 64 else None,
    )


def _film(source: Source, header: FilmHeader, context: StudyContext, rules: GateRules) -> Film:
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
