"""The summary page as an object of the study, read back by pydicom."""

from __future__ import annotations

import warnings
from contextlib import closing
from dataclasses import replace
from datetime import timedelta, timezone
from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from schemas.errors import RecordError, TransientFailure
from schemas.flag import Flag
from schemas.identity import InstanceRef
from schemas.image import GrayImage
from tests.unit.notify.flags import EFFUSION, PNEUMOTHORAX, STUDY, VALID, film, flag
from worker.notify import sr
from worker.notify.association import Peer
from worker.notify.dicom_sc import SERIES_DESCRIPTION, SERIES_NUMBER, DicomSc, build_sc
from worker.notify.summary_page import HEIGHT, WIDTH, Shown, draw_page, films_of
from worker.notify.uids import sc_instance_uid, sc_series_uid, sr_series_uid
from worker.notify.wording import sentences

FILM = np.tile(np.arange(200, dtype=np.uint8), (250, 1))
every_flag = pytest.mark.parametrize("example", VALID.values(), ids=VALID.keys())


def shown(example: Flag, pixels: GrayImage | None = FILM) -> list[Shown]:
    return [Shown(of, pixels) for of in films_of(example)]


def encoded(example: Flag) -> bytes:
    stream = BytesIO()
    build_sc(example, shown(example)).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def read(example: Flag) -> Dataset:
    return dcmread(BytesIO(encoded(example)))


@every_flag
def test_the_same_flag_gives_the_same_bytes_and_quotes_nobody(example: Flag, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encoded(example) == encoded(replace(example))
    assert not caplog.records


@every_flag
def test_a_viewer_gets_the_page_that_was_drawn(example: Flag) -> None:
    page = read(example)
    assert np.array_equal(page.pixel_array, draw_page(example, shown(example)))
    assert (page.Rows, page.Columns, page.PhotometricInterpretation) == (HEIGHT, WIDTH, "MONOCHROME2")
    assert (page.WindowCenter, page.WindowWidth) == (128, 256), "PS3.3 C.11.2.1.2.1: 0 to 255 are black to white"


def test_identity_and_place_in_the_study() -> None:
    page = read(flag())
    assert page.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert page.file_meta.MediaStorageSOPInstanceUID == page.SOPInstanceUID
    assert page.file_meta.MediaStorageSOPClassUID == page.SOPClassUID == SecondaryCaptureImageStorage
    assert page.SOPInstanceUID == sc_instance_uid(STUDY, "0123456789abcdef", 1)
    assert (
        page.SeriesInstanceUID == sc_series_uid(STUDY, "0123456789abcdef") != sr_series_uid(STUDY, "0123456789abcdef")
    )
    assert (page.StudyInstanceUID, page.Modality, page.InstanceNumber) == (STUDY, "OT", 1)
    assert (page.SeriesNumber, page.SeriesDescription) == (SERIES_NUMBER, SERIES_DESCRIPTION)
    assert page.SeriesNumber > sr.SERIES_NUMBER > 1000
    assert list(page.ImageType) == ["DERIVED", "SECONDARY", "HILUM TRIAGE"]
    assert (page.ConversionType, page.BurnedInAnnotation) == ("WSD", "YES")
    assert (page.PatientID, str(page.PatientName), page.PatientSex) == ("4711", "Doe^Jane", "F")
    assert (page.AccessionNumber, page.StudyID, page.StudyDate) == ("A-1", "1", "20250102")
    assert page.SpecificCharacterSet == "ISO_IR 192"


@every_flag
def test_patient_and_study_are_those_of_the_report(example: Flag) -> None:
    page, report = read(example), sr.build_sr(example)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyDate", "StudyTime", "AccessionNumber"):
        assert page[keyword].value == report[keyword].value


def test_dates_are_the_decisions_whatever_zone_it_was_told_in() -> None:
    elsewhere = replace(flag(), decided_at=flag().decided_at.astimezone(timezone(timedelta(hours=9))))
    assert encoded(elsewhere) == encoded(flag())


@every_flag
def test_image_comments_say_in_words_what_the_picture_shows(example: Flag) -> None:
    assert str(read(example).ImageComments) == " ".join(sentences(example))


def test_the_films_on_the_page_are_its_sources() -> None:
    example = flag(film(1), film(2, reasons=[EFFUSION]), film(3, reasons=[PNEUMOTHORAX]))
    sources = [(s.ReferencedSOPClassUID, s.ReferencedSOPInstanceUID[-1]) for s in read(example).SourceImageSequence]
    assert sources == [(film(3).instance.sop_class, "3"), (film(2).instance.sop_class, "2")]
    assert "SourceImageSequence" not in build_sc(example, shown(example, None))
    assert "SourceImageSequence" not in read(VALID["withdrawn by a person"])


def test_a_later_revision_is_another_object_of_the_same_series() -> None:
    first, second = read(flag()), read(VALID["revision 2"])
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID


def to(film_of: object) -> closing[DicomSc]:
    peer = Peer(ae_title="PACS", host="127.0.0.1", port=9, calling_ae_title="HILUM")  # the port that discards
    return closing(DicomSc(name="page", peer=peer, film=film_of))  # type: ignore[arg-type]


def test_a_database_that_is_away_is_a_passing_fault() -> None:
    def away(_: InstanceRef) -> None:
        raise RecordError("no connection")

    with to(away) as channel, pytest.raises(TransientFailure, match="page: the film cannot be looked up: mend"):
        channel.send(flag())


def test_only_films_that_are_shown_are_looked_for() -> None:
    asked: list[str] = []

    def film_of(instance: InstanceRef) -> None:
        asked.append(instance.sop_uid[-1])

    with to(film_of) as channel:
        for example in (flag(film(1), film(2, reasons=[EFFUSION])), VALID["withdrawn: reported"], VALID["none read"]):
            with pytest.raises(TransientFailure, match="nothing listens there"):
                channel.send(example)
    assert asked == ["2"]
