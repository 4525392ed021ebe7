"""The window of Unified Procedure Steps: what a step shows."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from schemas.decision import Urgency
from tests.integration.raw_peer import encode
from tests.unit.worklist.open_studies import open_study
from worker.ports import Matches
from worker.worklist.ups_scp import UpsWindow

STUDIES = [open_study(1), open_study(2, Urgency.URGENT), open_study(3, Urgency.ROUTINE)]

# Table CC.2.5-3: what a step that is SCHEDULED has a value of.
TYPE_1 = (
    *("SOPClassUID", "SOPInstanceUID", "ScheduledProcedureStepPriority", "ScheduledProcedureStepModificationDateTime"),
    *("ProcedureStepLabel", "WorklistLabel", "ScheduledProcedureStepStartDateTime", "InputReadinessState"),
    "ProcedureStepState",
)


def window() -> UpsWindow:
    return UpsWindow(lambda: STUDIES, lambda study_uid: f"2.25.{study_uid.replace('.', '')}")


def found(**keys: object) -> list[Dataset]:
    query = Dataset()
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    answer = window().find(encode(query), implicit_vr=False)
    assert isinstance(answer, Matches)
    assert answer.status == 0xFF00
    return [read_dataset(BytesIO(identifier), False, True) for identifier in answer.identifiers]


def test_every_study_is_a_step_in_order() -> None:
    steps = found(SOPInstanceUID="", ScheduledProcedureStepPriority="", ProcedureStepState="SCHEDULED")
    assert [step.ScheduledProcedureStepPriority for step in steps] == ["HIGH", "MEDIUM", "LOW"]
    assert [step.SOPInstanceUID for step in steps] == ["2.25.1231", "2.25.1232", "2.25.1233"]


@pytest.mark.parametrize("keyword", TYPE_1)
def test_type_1_attributes_have_values(keyword: str) -> None:
    assert all(step[keyword].value for step in found(**{keyword: ""}))


def test_what_there_is_to_read_and_why() -> None:
    (step, *_) = found(
        InputInformationSequence=[],
        ScheduledProcessingParametersSequence=[],
        ReferencedRequestSequence=[],
        ScheduledWorkitemCodeSequence=[],
        CommentsOnTheScheduledProcedureStep="",
        ProcedureStepProgressInformationSequence=[],
    )
    (series,) = step.InputInformationSequence
    assert (series.TypeOfInstances, series.StudyInstanceUID, series.SeriesInstanceUID) == (
        "DICOM",
        "1.2.3.1",
        "1.2.3.1.1",
    )
    assert [film.ReferencedSOPInstanceUID for film in series.ReferencedSOPSequence] == ["1.2.3.1.1.1", "1.2.3.1.1.2"]
    (reason,) = step.ScheduledProcessingParametersSequence
    assert (reason.ValueType, reason.TextValue) == ("TEXT", "pneumothorax 0.91, threshold 0.62")
    assert reason.ConceptNameCodeSequence[0].CodeMeaning == "Finding"
    assert step.ReferencedRequestSequence[0].AccessionNumber == "A-1"
    assert step.ScheduledWorkitemCodeSequence[0].CodeValue == "110005"
    assert "not for diagnosis" in step.CommentsOnTheScheduledProcedureStep
    assert len(step.ProcedureStepProgressInformationSequence) == 0


def test_matching_within_sequences_and_by_moment() -> None:
    request, code = Dataset(), Dataset()
    request.AccessionNumber, code.CodeValue = "A-*", "110006"
    assert len(found(ReferencedRequestSequence=[request], PatientID="")) == 3
    assert found(ScheduledWorkitemCodeSequence=[code], PatientID="") == []
    assert len(found(ScheduledProcedureStepStartDateTime="20250102-20250103")) == 3
    assert found(ScheduledProcedureStepStartDateTime="20250103-") == []
    assert found(ProcedureStepState="IN PROGRESS") == []
    assert len(found(SOPInstanceUID="2.25.1232")) == 1
