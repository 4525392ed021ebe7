"""The report, read back by highdicom."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta, timezone
from io import BytesIO
from typing import Any

import highdicom as hd
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ComprehensiveSRStorage, ExplicitVRLittleEndian

from schemas.decision import Urgency
from schemas.findings import LABELS, SNOMED, Label
from schemas.flag import WITHDRAWN, Flag, Withdrawal
from schemas.not_analysed import NotAnalysed
from tests.unit.notify.flags import EFFUSION, EVERY_FINDING, PATIENT, PNEUMOTHORAX, STUDY, VALID, film, flag, named
from worker.notify.sr import _GAPS, LADDER, SERIES_DESCRIPTION, SERIES_NUMBER, build_sr
from worker.notify.uids import sr_instance_uid, sr_series_uid
from worker.notify.wording import CAUTION, sentences

every_flag = pytest.mark.parametrize("example", VALID.values(), ids=VALID.keys())
every_form = pytest.mark.parametrize("form", LADDER, ids=["comprehensive", "enhanced", "basic-text"])


def encoded(report: Dataset) -> bytes:
    stream = BytesIO()
    report.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def read(report: Dataset) -> Dataset:
    """As a receiver sees it."""
    return dcmread(BytesIO(encoded(report)))


def items(node: Dataset) -> Iterator[Dataset]:
    for child in node.get("ContentSequence", ()):
        yield child
        yield from items(child)


def name_of(content: Dataset) -> str:
    return str(content.ConceptNameCodeSequence[0].CodeMeaning)


def groups_of(report: Dataset) -> list[Any]:
    parsed = hd.sr.ComprehensiveSR.from_dataset(read(report))
    return list(parsed.content.get_image_measurement_groups())


@every_flag
def test_highdicom_reads_every_report_as_a_measurement_report(example: Flag) -> None:
    parsed = hd.sr.ComprehensiveSR.from_dataset(read(build_sr(example)))
    assert isinstance(parsed.content, hd.sr.MeasurementReport)
    assert parsed.content[0].name == codes.DCM.ImagingMeasurementReport
    (device,) = parsed.content.get_observer_contexts()
    assert device.observer_identifying_attributes.model_name == "starter 1.0"
    assert device.observer_identifying_attributes.serial_number == example.model_id


@every_form
@every_flag
def test_the_same_flag_gives_the_same_bytes(example: Flag, form: UID) -> None:
    assert encoded(build_sr(example, form)) == encoded(build_sr(replace(example), form))


@every_form
@every_flag
def test_every_gap_is_filled(example: Flag, form: UID) -> None:
    text = encoded(build_sr(example, form))
    for keyword, placeholder in _GAPS.values():
        assert placeholder.encode() + b"\0" not in text, keyword
        if placeholder.startswith("?"):
            assert placeholder.encode() not in text, keyword


@every_form
@every_flag
def test_no_report_is_an_all_clear(example: Flag, form: UID) -> None:
    said = [str(i.get("TextValue", "")) for i in items(read(build_sr(example, form)))]
    assert CAUTION in said
    assert b"normal" not in encoded(build_sr(example, form)).lower()
    assert all(label not in said for label in (Label.NO_FINDING, "no finding"))


@every_flag
def test_patients_are_quoted_to_nobody_on_the_way(example: Flag, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded(build_sr(example))
    assert not caplog.records


def test_identity_and_place_in_the_study() -> None:
    report = read(build_sr(flag()))
    assert report.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert report.file_meta.MediaStorageSOPInstanceUID == report.SOPInstanceUID
    assert report.file_meta.MediaStorageSOPClassUID == report.SOPClassUID == ComprehensiveSRStorage
    assert report.SOPInstanceUID == sr_instance_uid(STUDY, "0123456789abcdef", 1)
    assert report.SeriesInstanceUID == sr_series_uid(STUDY, "0123456789abcdef")
    assert (report.StudyInstanceUID, report.Modality) == (STUDY, "SR")
    assert (report.SeriesNumber, report.SeriesDescription) == (SERIES_NUMBER, SERIES_DESCRIPTION)
    assert report.SeriesNumber > 1000
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert (report.PatientID, str(report.PatientName), report.PatientSex) == ("4711", "Doe^Jane", "F")
    assert (report.PatientBirthDate, report.IssuerOfPatientID) == ("19600229", "HOSPITAL")
    assert (report.AccessionNumber, report.StudyID, report.StudyDescription) == ("A-1", "1", "Chest PA")
    assert (report.StudyDate, report.StudyTime) == ("20250102", "101500")
    assert str(report.ReferringPhysicianName) == "Referrer^Robin"
    assert report.SpecificCharacterSet == "ISO_IR 192"


def test_dates_are_the_decisions_whatever_zone_it_was_told_in() -> None:
    decided = flag().decided_at
    elsewhere = replace(flag(), decided_at=decided.astimezone(timezone(timedelta(hours=9))))
    assert encoded(build_sr(elsewhere)) == encoded(build_sr(flag()))
    report = build_sr(flag())
    local = decided.astimezone()
    assert report.ContentDate == report.InstanceCreationDate == f"{local:%Y%m%d}"
    assert report.ContentTime == report.InstanceCreationTime == f"{local:%H%M%S.%f}"


def test_a_finding_is_coded_with_its_probability_its_urgency_its_model_and_its_film() -> None:
    one = film(1, reasons=[PNEUMOTHORAX, EFFUSION])
    pneumothorax, effusion = groups_of(build_sr(flag(one)))
    assert (pneumothorax.finding_type.value, pneumothorax.finding_type.scheme_designator) == ("36118008", "SCT")
    assert effusion.finding_type.value == "60046008"
    (measurement,) = effusion.get_measurements()
    assert (measurement.name, measurement.unit) == (codes.DCM.Probability, codes.UCUM.NoUnits)
    assert measurement.value == 0.7149
    (priority,) = [e for e in pneumothorax.get_qualitative_evaluations() if e.name.meaning == "Priority"]
    assert priority.value.meaning == "Stat"
    (image,) = pneumothorax.source_images
    assert image.referenced_sop_instance_uid == one.instance.sop_uid
    said = {name_of(i): i.TextValue for i in pneumothorax[0].ContentSequence if i.ValueType == "TEXT"}
    assert said["Algorithm Name"] == "starter"
    assert said["Algorithm Version"] == "1.0"
    assert said["Algorithm Parameters"] == "model id 0123456789abcdef"
    assert said["Comment"] == "pneumothorax 0.91, threshold 0.62"


def test_every_finding_has_its_snomed_code() -> None:
    groups = groups_of(build_sr(flag(film(reasons=EVERY_FINDING))))
    assert [g.finding_type.value for g in groups] == [SNOMED[Label(r.finding)].value for r in EVERY_FINDING]


def test_the_binary_model_is_coded_as_a_finding_and_no_more() -> None:
    (group,) = groups_of(build_sr(VALID["any finding"]))
    assert (group.finding_type.value, group.finding_type.meaning) == ("118247008", "Radiologic finding")


def test_what_the_policy_is_silent_on_is_not_told() -> None:
    one = film(reasons=[PNEUMOTHORAX])
    report = read(build_sr(flag(one)))
    numbers = [i.MeasuredValueSequence[0].NumericValue for i in items(report) if i.ValueType == "NUM"]
    assert numbers == [0.91]
    findings = [i.ConceptCodeSequence[0].CodeValue for i in items(report) if name_of(i) == "Finding"]
    assert findings == ["36118008"]
    text = encoded(report)
    assert b"0.4321" not in text
    assert not any(f"{p:.4f}".encode() in text for p in one.findings.values())


def test_the_whole_message_and_the_urgency_stand_at_the_end() -> None:
    example = flag(film(1, reasons=[EFFUSION]), film(2, not_analysed=NotAnalysed.LATERAL))
    report = read(build_sr(example))
    evaluations = report.ContentSequence[-1]
    assert name_of(evaluations) == "Qualitative Evaluations"
    priority, *comments = evaluations.ContentSequence
    assert priority.ConceptCodeSequence[0].CodeMeaning == "Urgent"
    assert tuple(c.TextValue for c in comments) == sentences(example)


@pytest.mark.parametrize(
    ("urgency", "code"), [(Urgency.STAT, "49499008"), (Urgency.URGENT, "103391001"), (Urgency.ROUTINE, "50811001")]
)
def test_urgency_is_coded(urgency: Urgency, code: str) -> None:
    report = read(build_sr(flag(film(), urgency=urgency)))
    assert report.ContentSequence[-1].ContentSequence[0].ConceptCodeSequence[0].CodeValue == code


def test_films_that_nothing_was_raised_for_are_referred_to_by_what_became_of_them() -> None:
    lateral, blank = NotAnalysed.LATERAL, NotAnalysed.BLANK
    films = (
        film(1),
        film(2, not_analysed=lateral),
        film(3),
        film(4, not_analysed=lateral),
        film(5, not_analysed=blank),
    )
    told = {}
    for group in groups_of(build_sr(flag(*films))):
        assert group.finding_type is None
        assert not group.get_measurements()
        (comment,) = [i.TextValue for i in group[0].ContentSequence if name_of(i) == "Comment"]
        told[comment] = [image.referenced_sop_instance_uid[-1] for image in group.source_images]
    assert told == {
        "No finding of the site's policy reached its threshold.": ["1", "3"],
        "Not analysed: lateral view": ["2", "4"],
        "Not analysed: blank image": ["5"],
    }


def test_what_is_no_image_is_evidence_and_no_image_reference() -> None:
    report = read(build_sr(VALID["not an image"]))
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == STUDY
    assert [len(s.ReferencedSOPSequence) for s in evidence.ReferencedSeriesSequence] == [1, 1]
    assert sum(i.ValueType == "IMAGE" for i in items(report)) == 1


def test_evidence_holds_every_film_once() -> None:
    example = VALID["three films of two series"]
    twice = replace(example, films=(*example.films, example.films[0]))
    (evidence,) = read(build_sr(twice)).CurrentRequestedProcedureEvidenceSequence
    told = {
        s.SeriesInstanceUID: [r.ReferencedSOPInstanceUID for r in s.ReferencedSOPSequence]
        for s in evidence.ReferencedSeriesSequence
    }
    assert told == {f"{STUDY}.1": [f"{STUDY}.1.1", f"{STUDY}.1.2"], f"{STUDY}.2": [f"{STUDY}.2.3"]}


def test_a_first_revision_has_no_predecessor() -> None:
    assert "PredecessorDocumentsSequence" not in build_sr(flag())


@pytest.mark.parametrize(
    ("example", "model_id"),
    [("revision 2", "0123456789abcdef"), ("revision 3 after another model", "fedcba9876543210")],
)
def test_a_later_revision_names_the_report_that_it_follows(example: str, model_id: str) -> None:
    later = VALID[example]
    assert later.predecessor is not None
    report = read(build_sr(later))
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (before,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == STUDY
    assert series.SeriesInstanceUID == sr_series_uid(STUDY, model_id)
    assert before.ReferencedSOPInstanceUID == sr_instance_uid(STUDY, model_id, later.predecessor)
    assert before.ReferencedSOPClassUID == ComprehensiveSRStorage
    assert report.InstanceNumber == later.revision


@every_form
def test_a_predecessor_is_named_in_the_form_in_which_it_was_sent(form: UID) -> None:
    sent = sr_instance_uid(STUDY, "fedcba9876543210", 2, form)
    later = replace(VALID["revision 3 after another model"], predecessor_object_id=sent)
    for sent_now in LADDER:
        (study,) = read(build_sr(later, sent_now)).PredecessorDocumentsSequence
        (before,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert (before.ReferencedSOPClassUID, before.ReferencedSOPInstanceUID) == (form, sent)


@every_form
def test_where_it_is_not_known_what_was_sent_it_was_the_same_form(form: UID) -> None:
    for unknown in ("", "2.25.1"):
        later = replace(VALID["revision 2"], predecessor_object_id=unknown)
        (study,) = read(build_sr(later, form)).PredecessorDocumentsSequence
        (before,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert before.ReferencedSOPClassUID == form
        assert before.ReferencedSOPInstanceUID == sr_instance_uid(STUDY, "0123456789abcdef", 1, form)


# The three forms


def test_a_uid_never_stands_for_two_sop_classes() -> None:
    reports = [read(build_sr(flag(), form)) for form in LADDER]
    assert [r.SOPClassUID for r in reports] == [r.file_meta.MediaStorageSOPClassUID for r in reports] == list(LADDER)
    assert len({r.SOPInstanceUID for r in reports}) == 3
    assert all(r.SOPInstanceUID == r.file_meta.MediaStorageSOPInstanceUID for r in reports)
    assert len({r.SeriesInstanceUID for r in reports}) == 1
    assert reports[0].SOPInstanceUID == sr_instance_uid(STUDY, "0123456789abcdef", 1), "as it always was"


@every_flag
def test_enhanced_and_comprehensive_say_the_same(example: Flag) -> None:
    comprehensive, enhanced = (read(build_sr(example, form)).ContentSequence for form in LADDER[:2])
    assert comprehensive == enhanced


@every_flag
def test_a_basic_text_report_has_no_numbers_and_leaves_out_nothing_else(example: Flag) -> None:
    comprehensive, basic = (list(items(read(build_sr(example, form)))) for form in (LADDER[0], LADDER[2]))
    allowed = {"TEXT", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME", "IMAGE", "CONTAINER"}
    assert {item.ValueType for item in basic} <= allowed
    assert [name_of(item) for item in comprehensive if item.ValueType != "NUM"] == [name_of(item) for item in basic]


def test_in_a_basic_text_report_the_probability_stands_in_words() -> None:
    texts = [i.TextValue for i in items(read(build_sr(flag(), LADDER[2]))) if i.ValueType == "TEXT"]
    assert "pneumothorax 0.91, threshold 0.62" in texts


# Withdrawn


@every_form
@pytest.mark.parametrize("why", Withdrawal)
def test_a_withdrawn_report_says_so_and_none_of_what_it_said(why: Withdrawal, form: UID) -> None:
    films = (film(1, reasons=[PNEUMOTHORAX]), film(2), film(3, not_analysed=NotAnalysed.LATERAL))
    raised = flag(*films, urgency=Urgency.ROUTINE, revision=2, predecessor=1)
    report = read(build_sr(replace(raised, reasons=(), withdrawn=why), form))
    said = list(items(report))
    assert report.CompletionFlagDescription == f"Flag withdrawn: {WITHDRAWN[why]}"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.PredecessorDocumentsSequence
    assert not [i for i in said if i.ValueType == "NUM" or name_of(i) == "Finding"]
    assert "neumothorax" not in " ".join(str(i.get("TextValue", "")) for i in said)
    priority, *comments = report.ContentSequence[-1].ContentSequence
    assert priority.ConceptCodeSequence[0].CodeMeaning == "Routine"
    assert comments[0].TextValue.startswith("hilum withdrew its flag, ")
    images = [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID[-1] for i in said if i.ValueType == "IMAGE"]
    assert images == ["1", "2", "3"]
    assert "No finding of the site's policy reached its threshold." not in [i.get("TextValue") for i in said]


@pytest.mark.parametrize("name", ["Yamada^Tarou=山田^太郎=やまだ^たろう", "Люкceмбypг^Анна", "שרון^דבורה"])
def test_names_of_every_script_come_through(name: str) -> None:
    report = read(build_sr(named(name)))
    assert str(report.PatientName) == name


def test_control_characters_and_backslashes_do_not_come_through() -> None:
    report = read(build_sr(VALID["control characters"]))
    assert str(report.PatientName) == "Doe $B^Ja ne"
    assert report.PatientID == "47 11"
    assert report.StudyID == ""


def test_what_is_no_date_is_left_out() -> None:
    report = read(build_sr(VALID["dates that are none"]))
    assert (report.PatientBirthDate, report.StudyDate, report.StudyTime, report.PatientSex) == ("", "", "", "")
    report = read(build_sr(VALID["digits that are no DICOM digits"]))
    assert (report.PatientBirthDate, report.StudyDate, report.StudyTime) == ("", "20250102", "")


def test_an_identifier_longer_than_its_vr_is_carried_through_as_the_pacs_has_it() -> None:
    report = read(build_sr(flag(context=replace(PATIENT, accession_number="A" * 40, patient_id="9" * 80))))
    assert (report.AccessionNumber, report.PatientID) == ("A" * 40, "9" * 80)


def test_reports_do_not_share_what_can_be_changed() -> None:
    first, second = build_sr(flag()), build_sr(flag(revision=2))
    second.PatientName = "Other"
    second.ContentSequence.pop()
    assert str(first.PatientName) == "Doe^Jane"
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert len(build_sr(flag()).ContentSequence) == len(first.ContentSequence)


def test_a_hundred_films_make_one_report() -> None:
    many = flag(*(film(n, reasons=[PNEUMOTHORAX] if n == 1 else ()) for n in range(1, 101)))
    assert len(groups_of(build_sr(many))) == 2


def test_every_label_but_no_finding_is_coded() -> None:
    assert set(SNOMED) == set(LABELS) - {Label.NO_FINDING}
    assert len({code.value for code in SNOMED.values()}) == len(SNOMED)


def verhoeff(number: str) -> int:
    """The check that the last digit of every SNOMED CT identifier is for; 0 when it holds."""
    cayley = [[(i + j) % 5 if i < 5 and j < 5 else 0 for j in range(10)] for i in range(10)]
    for i in range(10):
        for j in range(10):
            rotation = (i % 5 + j % 5) % 5 if i < 5 else (i % 5 - j % 5) % 5
            cayley[i][j] = rotation + (5 if (i < 5) != (j < 5) else 0)
    shift = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    check = 0
    for position, digit in enumerate(map(int, reversed(number))):
        for _ in range(position % 8):
            digit = shift[digit]  # noqa: PLW2901
        check = cayley[check][digit]
    return check


@pytest.mark.parametrize("code", [c.value for c in SNOMED.values()])
def test_snomed_identifiers_hold_their_check_digit(code: str) -> None:
    assert verhoeff(code) == 0
    assert verhoeff(code[:-1] + str((int(code[-1]) + 1) % 10)) != 0
