"""Phantom films: the same for the same seed, valid DICOM, nobody's data."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000, JPEGLSNearLossless

from worker.simulate import phantom

SMALL = {"rows": 240, "columns": 200}


def test_the_same_seed_draws_the_same_film() -> None:
    assert np.array_equal(phantom.draw(5, **SMALL), phantom.draw(5, **SMALL))
    assert not np.array_equal(phantom.draw(5, **SMALL), phantom.draw(6, **SMALL))


@pytest.mark.parametrize("finding", phantom.FINDINGS[1:])
def test_a_finding_changes_the_film(finding: phantom.Finding) -> None:
    plain = phantom.draw(5, **SMALL).astype(int)
    assert np.abs(phantom.draw(5, finding=finding, **SMALL) - plain).max() > 20


def test_patients_are_obviously_synthetic() -> None:
    ds = phantom.dataset(42, **SMALL)
    assert (ds.PatientName, ds.PatientID) == ("PHANTOM^FOUR TWO", "PHANTOM-0042")


def test_uids_are_fresh_or_given() -> None:
    a, b = phantom.dataset(1, **SMALL), phantom.dataset(1, **SMALL)
    assert len({a.StudyInstanceUID, b.StudyInstanceUID, a.SOPInstanceUID, b.SOPInstanceUID}) == 4
    given = phantom.dataset(1, study_uid="1.2.3", series_uid="1.2.3.4", sop_uid="1.2.3.4.5", **SMALL)
    assert (given.StudyInstanceUID, given.SeriesInstanceUID, given.SOPInstanceUID) == ("1.2.3", "1.2.3.4", "1.2.3.4.5")


@pytest.mark.parametrize("syntax", [JPEG2000, JPEGLSNearLossless])
def test_lossy_films_say_so(syntax: str) -> None:
    assert phantom.dataset(1, transfer_syntax=syntax, **SMALL).LossyImageCompression == "01"


def test_a_large_film_is_ten_megabytes() -> None:
    file = io.BytesIO()
    phantom.dataset(1, bits_stored=16).save_as(file, enforce_file_format=True)
    assert 10_240_000 < len(file.getvalue()) < 10_244_000


def test_a_mornings_work(tmp_path: Path) -> None:
    films = [pydicom.dcmread(p) for p in phantom.write_demo_films(tmp_path, datetime(2024, 5, 2, 9, 30, tzinfo=UTC))]
    assert len({ds.StudyInstanceUID for ds in films}) == len(films) >= 8
    times = [ds.StudyDate + ds.StudyTime for ds in films]
    assert times == sorted(times)
    assert times[-1] == "20240502093000"
    assert {ds.ViewPosition for ds in films} == {"PA", "AP", "LL"}
    assert {ds.PhotometricInterpretation for ds in films} == {"MONOCHROME1", "MONOCHROME2"}
