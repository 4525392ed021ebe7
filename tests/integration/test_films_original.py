"""Every real film of the index as a viewer gets it, against pydicom."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from pydicom import config, dcmread
from pydicom.pixels import apply_modality_lut

from schemas.errors import NotAnalysable
from schemas.gate import GateRules
from tests.unit.decode.test_original import look, modality
from worker.decode.film import read_film
from worker.decode.original import read_original


def names(films: Path) -> list[str]:
    with (films / "dicom" / "index.csv").open(encoding="utf-8") as file:
        return [line["file"] for line in csv.DictReader(file)]


def test_every_film_has_the_values_that_pydicom_reads(films: Path) -> None:
    seen = 0
    for name in names(films):
        path = films / "dicom" / name
        try:
            original = read_original(path)
        except NotAnalysable:
            continue
        ds = dcmread(path, force=True)
        if not name.startswith(("chest/", "nih_rsna/", "not_chest/")) or ds.get("NumberOfFrames", 1) != 1:
            continue
        with config.disable_value_validation():
            theirs = apply_modality_lut(ds.pixel_array, ds)
        # Two JPEG decoders may round apart; everything else is the same to the bit.
        tolerance = 1 if "JPEG Baseline" in ds.file_meta.TransferSyntaxUID.name else 0
        assert np.abs(modality(original) - theirs.astype(float)).max() <= tolerance, name
        assert original.inverse == (ds.PhotometricInterpretation == "MONOCHROME1"), name
        seen += 1
    assert seen > 45


def test_every_chest_film_looks_at_first_as_the_models_saw_it(films: Path) -> None:
    seen = 0
    for name in names(films):
        if not name.startswith(("chest/", "nih_rsna/")):
            continue
        path = films / "dicom" / name
        try:
            film = read_film(path, GateRules(minimum_age_years=0))
        except NotAnalysable:
            continue
        shown = look(read_original(path))
        if "polarity-corrected" in film.remarks:  # a viewer shows what the header says
            shown = 255 - shown
        assert np.abs(shown.astype(int) - film.pixels).max() <= 1, name
        seen += 1
    assert seen > 40
