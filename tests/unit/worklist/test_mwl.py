"""The Modality Worklist window: what it answers, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from schemas.decision import Urgency
from schemas.errors import RecordError
from schemas.flag import Withdrawal
from schemas.not_analysed import NotAnalysed
from tests.integration.raw_peer import encode
from tests.unit.worklist.open_studies import open_study
from worker.ports import Matches, QueryFailure
from worker.record.reading_list import OpenStudy
from worker.worklist.mwl_scp import modality_worklist
from worker.worklist.sentences import comments

STUDIES = [
    open_study(1),
    open_study(2, Urgency.URGENT, patient_name="Roe^Richard", patient_id="4712", modality="CR"),
    open_study(3, Urgency.ROUTINE, patient_name="Yamada^Tarou=山田^太郎", accession_number="", study_description=""),
]


def asked(step: dict[str, Any] | None = None, **keys: Any) -> Dataset:
    query = Dataset()
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    if step is not None:
        item = Dataset()
        for keyword, value in step.items():
            setattr(item, keyword, value)
        query.ScheduledProcedureStepSequence = [item]
    return query


def found(
    query: Dataset | bytes, studies: Sequence[OpenStudy] = STUDIES, *, implicit_vr: bool = True
) -> tuple[int, list[Dataset]]:
    encoded = query if isinstance(query, bytes) else encode(query, implicit=implicit_vr)
    answer = modality_worklist(lambda: studies).find(encoded, implicit_vr=implicit_vr)
    if isinstance(answer, QueryFailure):
        return answer.status, []
    assert isinstance(answer, Matches)
    return answer.status, [read_dataset(BytesIO(i), implicit_vr, True) for i in answer.identifiers]


def numbers(query: Dataset) -> list[str]:
    query.StudyInstanceUID = query.get("StudyInstanceUID", "")
    return [answer.StudyInstanceUID[-1] for answer in found(query)[1]]


@pytest.mark.parametrize("implicit_vr", [True, False])
def test_every_study_in_order_with_what_was_asked_for_and_no_more(implicit_vr: bool) -> None:
    query = asked({"Modality": "", "ScheduledProcedureStepStatus": ""}, PatientName="", RequestedProcedurePriority="")
    status, answers = found(query, implicit_vr=implicit_vr)
    assert status == 0xFF00
    assert [str(a.PatientName) for a in answers][:2] == ["Doe^Jane", "Roe^Richard"]
    assert [a.RequestedProcedurePriority for a in answers] == ["STAT", "HIGH", "ROUTINE"]
    (step,) = answers[1].ScheduledProcedureStepSequence
    assert (step.Modality, step.ScheduledProcedureStepStatus) == ("CR", "SCHEDULED")
    assert {e.keyword for e in answers[0]} == {
        "PatientName",
        "RequestedProcedurePriority",
        "ScheduledProcedureStepSequence",
    }
    assert len(step) == 2
    assert [e.tag for e in answers[0]] == sorted(e.tag for e in answers[0])


def test_a_whole_step_and_type_1_attributes() -> None:
    query = asked(RequestedProcedureID="", RequestedProcedureDescription="", StudyInstanceUID="")
    query.ScheduledProcedureStepSequence, query.ReferencedStudySequence = [], []
    answer = found(query)[1][2]
    (step,) = answer.ScheduledProcedureStepSequence
    assert (step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime) == ("20250102", "101605")
    assert list(step.ScheduledStationAETitle) == ["ROOM1", "ROOM2"]
    assert step.ScheduledProtocolCodeSequence[0].CodeMeaning == "Interpretation"
    for keyword in ("Modality", "ScheduledProcedureStepID", "ScheduledProcedureStepDescription"):
        assert step[keyword].value
    assert "not for diagnosis" in step.CommentsOnTheScheduledProcedureStep
    assert answer.ReferencedStudySequence[0].ReferencedSOPInstanceUID == "1.2.3.3"
    assert (answer.RequestedProcedureID, answer.RequestedProcedureDescription) == ("77", "Radiograph")


def test_matching() -> None:
    assert numbers(asked(PatientName="doe^*")) == ["1"]
    assert numbers(asked(PatientID="4711")) == ["1", "3"]
    assert numbers(asked(AccessionNumber="A-?")) == ["1", "2"]
    assert numbers(asked(StudyInstanceUID=["1.2.3.3", "1.2.3.1"])) == ["1", "3"]
    assert numbers(asked({"Modality": "CR"})) == ["2"]
    assert numbers(asked({"ScheduledStationAETitle": "ROOM2", "Modality": "DX"})) == ["1", "3"]
    assert numbers(asked({"ScheduledStationAETitle": "ROOM3"})) == []
    assert numbers(asked({"ScheduledProcedureStepStartDate": "20250101-20250102"})) == ["1", "2", "3"]
    assert numbers(asked({"ScheduledProcedureStepStartDate": "20250103-"})) == []
    assert numbers(asked({"ScheduledProcedureStepStatus": "SCHEDULED"}, PatientSex="F")) == ["1", "2", "3"]
    assert numbers(asked({"ScheduledProcedureStepStatus": "STARTED"})) == []
    assert numbers(asked(RequestedProcedurePriority="STAT")) == ["1"]


def test_a_key_that_is_not_known_comes_back_empty_and_the_status_says_so() -> None:
    query = asked(PatientID="", PatientComments="x", ImageComments="")
    query.add_new(0x00091001, "LO", "private")
    status, answers = found(query, implicit_vr=False)
    assert (status, len(answers)) == (0xFF01, 3)
    assert answers[0].PatientComments == ""
    assert 0x00091001 in answers[0]


@pytest.mark.parametrize(
    ("name", "given", "character_set", "encoded"),
    [
        ("Doe^Jane", None, None, b"Doe^Jane"),
        ("Müller^Jörg", None, "ISO_IR 192", "Müller^Jörg ".encode()),
        ("Müller^Jörg", "ISO_IR 100", "ISO_IR 100", "Müller^Jörg ".encode("latin-1")),
        ("Люкceмбypг", "ISO_IR 100", "ISO_IR 192", "Люкceмбypг".encode()),
        ("Люкceмбypг", "ISO_IR 144", "ISO_IR 144", "Люкceмбypг".encode("iso8859_5")),
        ("山田", "ISO 2022 IR 87", "ISO_IR 192", "山田".encode()),
        ("王^小东", "GB18030", "GB18030", "王^小东".encode("gb18030")),
        ("Doe^Jane", "ISO_IR 100", "ISO_IR 100", b"Doe^Jane"),
    ],
)
def test_character_sets(name: str, given: str | None, character_set: str | None, encoded: bytes) -> None:
    query = asked(PatientName="")
    if given is not None:
        query.SpecificCharacterSet = given
    (answer,) = found(query, [open_study(patient_name=name)])[1]
    assert answer.get("SpecificCharacterSet") == character_set
    raw = answer.get_item("PatientName").value
    assert raw.rstrip() == encoded.rstrip()
    assert len(raw) % 2 == 0


def test_a_name_is_found_in_the_character_set_of_the_query() -> None:
    for character_set, pattern in [("ISO_IR 100", "müller*"), ("ISO_IR 192", "MÜLLER^*")]:
        query = asked(PatientName=pattern, SpecificCharacterSet=character_set)
        assert len(found(query, [open_study(patient_name="Müller^Jörg"), open_study(2)])[1]) == 1
    query = asked(PatientName="=山田*", SpecificCharacterSet=["", "ISO 2022 IR 87"])
    query.PatientName = "山田*"
    assert len(found(query)[1]) == 1


@pytest.mark.parametrize(
    "hostile",
    [
        {"patient_name": "Doe\x1b$B^Ja\nne\\x", "patient_id": "47\\11"},
        {"patient_name": "Doe^\udcff", "accession_number": "\udc80"},
        {"patient_name": "N" * 70_000},
        {"patient_birth_date": "1960.02.29", "study_date": "today", "study_time": "10:15", "patient_sex": "?"},
        {"study_description": "胸" * 20_000},
    ],
)
def test_whatever_the_patient_is_called(hostile: dict[str, str]) -> None:
    query = asked(
        {"ScheduledProcedureStepDescription": ""},
        **dict.fromkeys(
            ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyTime"), ""
        ),
    )
    for implicit_vr in (True, False):
        ((answer, other),) = [found(query, [open_study(**hostile), open_study(2)], implicit_vr=implicit_vr)[1]]
        for e in answer:
            assert "\\" not in str(e.value)
        assert other.PatientID == "4711"
        assert answer.PatientBirthDate in {"", "19600229"}


def test_hostile_queries_get_a_status() -> None:
    assert found(b"")[0] == 0xA900
    assert found(asked(SpecificCharacterSet="ISO_IR 100"))[0] == 0xA900
    assert found(b"\xff" * 7)[0] == 0xC000
    assert found(bytes(40_000))[0] == 0xC000
    assert found(asked(PatientID="", SpecificCharacterSet="KLINGON"))[0] == 0xC000
    assert found(asked({"ScheduledProcedureStepStartDate": ""}, PatientID="x" * 2000))[0] == 0xA900
    dates = encode(asked({"ScheduledProcedureStepStartDate": "20250102"})).replace(b"20250102", b"tomorrow")
    assert found(dates, implicit_vr=False)[0] == 0xA900
    wrong_vr = Dataset()
    wrong_vr.add_new(0x00100010, "SQ", [])
    assert found(wrong_vr, implicit_vr=False)[0] == 0xA900
    two_items = asked({})
    two_items.ScheduledProcedureStepSequence = [Dataset(), Dataset()]
    assert found(two_items)[0] == 0xA900
    nonsense = Dataset()
    nonsense.add_new(0x00090010, "LO", "")
    nonsense.add_new(0x7FE00010, "OW", b"\0\0")
    assert found(nonsense, implicit_vr=False)[0] == 0xFF01


def test_failures_name_the_key_and_not_its_value() -> None:
    window = modality_worklist(lambda: STUDIES)
    encoded = encode(asked(StudyDate="20250102", PatientName="Doe")).replace(b"20250102", b"Doe^Jane")
    answer = window.find(encoded, implicit_vr=False)
    assert isinstance(answer, QueryFailure)
    assert answer.comment == "StudyDate is no DA"


def test_without_the_record_there_is_a_failure_and_no_empty_list() -> None:
    def away() -> Sequence[OpenStudy]:
        raise RecordError("database: away")

    answer = modality_worklist(away).find(encode(asked(PatientID=""), implicit=True), implicit_vr=True)
    assert isinstance(answer, QueryFailure)
    assert answer.status == 0xC001


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (open_study(), "hilum raised this study: STAT. Pneumothorax 0.91, threshold 0.62. For triage"),
        (open_study(2, Urgency.ROUTINE), "left it in its standing order. For triage"),
        (replace(open_study(2, Urgency.ROUTINE), revision=0), "has not read this study yet"),
        (
            replace(open_study(2, Urgency.ROUTINE), revision=0, not_analysed=(NotAnalysed.LATERAL,)),
            "hilum could not analyse this study; it keeps its standing order. Not analysed: lateral view.",
        ),
        (
            replace(open_study(2, Urgency.ROUTINE), withdrawn=Withdrawal.PERSON),
            "hilum withdrew its flag, on a person's decision.",
        ),
        (replace(open_study(2, Urgency.ROUTINE), priority=Urgency.STAT), "Ordered as STAT."),
    ],
)
def test_comments(study: OpenStudy, words: str) -> None:
    said = comments(study)
    assert words in said
    assert said.endswith("The absence of a flag is not an all-clear.")
    assert not any(word in said.lower().replace("abnormal", "") for word in ("normal", "healthy", "unremarkable"))
