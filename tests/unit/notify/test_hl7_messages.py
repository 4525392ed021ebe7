"""What the messages say, field by field, and that an independent library (hl7apy) finds them as the standard wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from schemas.decision import Urgency
from schemas.flag import Flag, Withdrawal
from schemas.identity import StudyContext
from tests.unit.notify.flags import ANY, EFFUSION, PATIENT, PNEUMOTHORAX, STUDY, VALID, film, flag, named
from worker.notify import sr
from worker.notify.codes import ANY_FINDING, CHEST_FILM, PRIORITY, URGENCY
from worker.notify.hl7_er7 import CODECS
from worker.notify.hl7_messages import Envelope, Message, PriorityIn, build_order, build_oru
from worker.notify.wording import sentences

ENVELOPE = Envelope(sending_facility="HOSPITAL", receiving_application="RIS^1.2.3^ISO", receiving_facility="RAD")


def build_orm(flag: Flag, envelope: Envelope, priority_in: PriorityIn = "both") -> Message:
    return build_order(flag, envelope, "ORM^O01", priority_in)


def build_omi(flag: Flag, envelope: Envelope, priority_in: PriorityIn = "both") -> Message:
    return build_order(flag, envelope, "OMI^O23", priority_in)


EVERY = [build_oru, build_omi, build_orm]
Build = Callable[..., Message]


def parsed(message: Message) -> hl7.Message:
    read = hl7.parse(message.encoded.decode("utf-8"))
    assert isinstance(read, hl7.Message)
    return read


def rows(message: hl7.Message, name: str) -> list[list[str]]:
    return [[str(field) for field in row] + 30 * [""] for row in message if str(row[0]) == name]


def row(message: hl7.Message, name: str) -> list[str]:
    (only,) = rows(message, name)
    return only


def withdrawn(why: Withdrawal) -> Flag:
    return replace(flag(film(), revision=2, predecessor=1), withdrawn=why)


# The standard, as hl7apy has it


def faults(message: Message, report: Path) -> list[str]:
    read = parse_message(message.encoded.decode("utf-8"), validation_level=VALIDATION_LEVEL.TOLERANT)
    try:
        read.validate(report_file=str(report))
    except Exception as error:  # noqa: BLE001  it raises the first of its errors, whatever that is
        assert str(error)
    return [line.split(": ", 1)[1] for line in report.read_text().splitlines() if line.startswith("Error")]


# hl7apy knows the choice OBR | RQD | RQ1 | RXO | ODS | ODT of ORM^O01 as a sequence.
CHOICE = [
    f"Missing required child ORM_O01_OBRRQDRQ1RXOODSODT_SUPPGRP.{name}" for name in ("RQD", "RQ1", "RXO", "ODS", "ODT")
]


@pytest.mark.parametrize("case", VALID)
@pytest.mark.parametrize("build", EVERY)
def test_messages_are_as_the_standard_wants(case: str, build: Build, tmp_path: Path) -> None:
    # A patient without an identifier has none: the receiver must say what it makes of that.
    nobody = [] if VALID[case].context.patient_id else ["Missing required child PID.PID_3"]
    found = faults(build(VALID[case], ENVELOPE), tmp_path / "report")
    assert found == [*nobody, *(CHOICE if build is build_orm else [])]


@pytest.mark.parametrize("why", Withdrawal)
@pytest.mark.parametrize("build", [build_oru, build_omi])
def test_withdrawals_are_as_the_standard_wants(why: Withdrawal, build: Build, tmp_path: Path) -> None:
    assert faults(build(withdrawn(why), ENVELOPE), tmp_path / "report") == []


@pytest.mark.parametrize("case", ["one film, one finding", "Japanese", "quotes and entities", "control characters"])
@pytest.mark.parametrize("build", [build_oru, build_omi])
def test_strict_parsing(case: str, build: Build) -> None:
    read = parse_message(build(VALID[case], ENVELOPE).encoded.decode(), validation_level=VALIDATION_LEVEL.STRICT)
    assert read.msh.msh_10.to_er7() == build(VALID[case], ENVELOPE).control_id


def test_the_validation_sees_a_fault(tmp_path: Path) -> None:
    sound = build_oru(flag(), ENVELOPE)
    spoilt = replace(sound, encoded=sound.encoded.replace(b"\rOBR|", b"\rOBR|1|||||||||||\rZZZ|"))
    assert faults(spoilt, tmp_path / "report")


# Header


@pytest.mark.parametrize(
    ("build", "kind"), [(build_oru, "ORU^R01^ORU_R01"), (build_omi, "OMI^O23^OMI_O23"), (build_orm, "ORM^O01^ORM_O01")]
)
def test_header(build: Build, kind: str) -> None:
    message = build(flag(), replace(ENVELOPE, processing_id="T"))
    header = row(parsed(message), "MSH")
    assert header[3:7] == ["HILUM", "HOSPITAL", "RIS^1.2.3^ISO", "RAD"]
    assert header[9:13] == [kind, message.control_id, "T", "2.5.1"]
    assert header[18] == "UNICODE UTF-8"


@pytest.mark.parametrize("build", EVERY)
@pytest.mark.parametrize("character_set", CODECS)
def test_the_character_set_that_is_named_is_the_one_that_is_used(build: Build, character_set: str) -> None:
    envelope = replace(ENVELOPE, character_set=character_set)
    encoded = build(named("Müller^Jörg", study_description="胸部正面"), envelope).encoded.decode(CODECS[character_set])
    assert f"|{character_set}\r" in encoded
    assert ("Müller^Jörg" if character_set != "ASCII" else "M?ller^J?rg") in encoded
    assert ("胸部正面" if character_set == "UNICODE UTF-8" else "????") in encoded


@pytest.mark.parametrize("build", EVERY)
def test_the_same_flag_is_the_same_message(build: Build) -> None:
    assert build(flag(), ENVELOPE) == build(flag(), ENVELOPE)
    different = [
        flag(revision=2),
        replace(flag(), model_id="fedcba9876543210"),
        replace(flag(), study_uid="1.2.3"),
    ]
    ids = {build(f, ENVELOPE).control_id for f in [flag(), *different]}
    assert len(ids) == 4
    assert all(len(control_id) == 20 and control_id.isalnum() for control_id in ids)


def test_messages_of_different_kinds_have_different_numbers() -> None:
    assert len({build(flag(), ENVELOPE).control_id for build in EVERY}) == 3


# Patient and order


@pytest.mark.parametrize("build", EVERY)
def test_patient(build: Build) -> None:
    patient = row(parsed(build(flag(), ENVELOPE)), "PID")
    assert patient[3] == "4711^^^HOSPITAL^PI"
    assert patient[5] == "Doe^Jane^^^^^L^A"
    assert patient[7:9] == ["19600229", "F"]


def test_patient_of_an_issuer_with_an_oid() -> None:
    patient = row(parsed(build_oru(named("Doe^Jane", issuer_of_patient_id="1.2.840.1"), ENVELOPE)), "PID")
    assert patient[3] == "4711^^^&1.2.840.1&ISO^PI"


def test_nobody() -> None:
    patient = row(parsed(build_oru(flag(context=StudyContext()), ENVELOPE)), "PID")
    assert [patient[i] for i in (3, 5, 7, 8)] == ["", "^^^^^^U", "", ""]


@pytest.mark.parametrize(("build", "control"), [(build_oru, "RE"), (build_omi, "XO"), (build_orm, "XO")])
def test_the_accession_number_is_the_order_number(build: Build, control: str) -> None:
    message = parsed(build(flag(), ENVELOPE))
    order, request = row(message, "ORC"), row(message, "OBR")
    assert order[1:4] == [control, "", "A-1"]
    assert request[2:5] == ["", "A-1", "30745-4^XR Chest Views^LN^^Chest PA^L"]
    assert request[18:20] == ["A-1", "1"]
    assert request[7] == "20250102101500"
    assert request[16] == "^Referrer^Robin^^^^^^^L^^^^^A"


@pytest.mark.parametrize("build", EVERY)
def test_without_an_accession_number_the_study_goes_by_its_uid(build: Build) -> None:
    message = parsed(build(named("Doe^Jane", accession_number="", study_description=""), ENVELOPE))
    assert row(message, "ORC")[3] == row(message, "OBR")[3] == STUDY
    assert row(message, "OBR")[18] == ""
    assert row(message, "OBR")[4] == "30745-4^XR Chest Views^LN^399208008^Plain chest X-ray^SCT"


def test_the_imaging_procedure_of_an_omi() -> None:
    assert row(parsed(build_omi(flag(), ENVELOPE)), "IPC")[1:6] == ["A-1", "1", STUDY, "1", "DX^^DCM"]
    bare = parsed(build_omi(flag(context=StudyContext()), ENVELOPE))
    assert row(bare, "IPC")[1:6] == [STUDY, STUDY, STUDY, STUDY, ""]


def test_the_study_of_an_orm() -> None:
    message = parsed(build_orm(flag(), ENVELOPE))
    assert row(message, "ZDS")[1] == f"{STUDY}^HILUM^Application^DICOM"
    assert row(message, "OBR")[24] == "DX"


# Priority


def priority(message: hl7.Message) -> tuple[str, str, str]:
    return (
        row(message, "ORC")[7],
        row(message, "OBR")[27],
        "".join(tq1[9] for tq1 in rows(message, "TQ1")),
    )


RAISED = [(Urgency.STAT, "S", "S^Stat^HL70485"), (Urgency.URGENT, "A", "A^ASAP^HL70485")]


@pytest.mark.parametrize(("urgency", "letter", "code"), RAISED)
def test_priority(urgency: Urgency, letter: str, code: str) -> None:
    raised = flag(film(reasons=[PNEUMOTHORAX if urgency is Urgency.STAT else EFFUSION]))
    timing = f"^^^^^{letter}"
    assert priority(parsed(build_oru(raised, ENVELOPE))) == ("", timing, code)
    assert priority(parsed(build_oru(raised, ENVELOPE, "OBR-27"))) == ("", timing, "")
    assert priority(parsed(build_oru(raised, ENVELOPE, "TQ1-9"))) == ("", "", code)
    assert priority(parsed(build_omi(raised, ENVELOPE))) == (timing, timing, code)
    assert priority(parsed(build_omi(raised, ENVELOPE, "OBR-27"))) == (timing, timing, "")
    assert priority(parsed(build_omi(raised, ENVELOPE, "TQ1-9"))) == ("", "", code)
    assert priority(parsed(build_orm(raised, ENVELOPE))) == (timing, timing, "")


@pytest.mark.parametrize("build", EVERY)
def test_a_study_left_in_its_order_says_nothing_of_priority(build: Build) -> None:
    assert priority(parsed(build(flag(film()), ENVELOPE))) == ("", "", "")


@pytest.mark.parametrize("why", Withdrawal)
@pytest.mark.parametrize("build", EVERY)
def test_a_withdrawal_takes_priority_back(build: Build, why: Withdrawal) -> None:
    message = parsed(build(withdrawn(why), ENVELOPE))
    assert row(message, "OBR")[27] == "^^^^^R"
    assert [tq1[9] for tq1 in rows(message, "TQ1")] == ([] if build is build_orm else ["R^Routine^HL70485"])


@pytest.mark.parametrize("build", EVERY)
def test_no_order_is_told_less_than_it_said_itself(build: Build) -> None:
    ordered = {"order_urgency": Urgency.STAT}
    for told in (replace(flag(film(reasons=[EFFUSION])), **ordered), replace(withdrawn(Withdrawal.PERSON), **ordered)):
        assert row(parsed(build(told, ENVELOPE)), "OBR")[27] == "^^^^^S"


# What is said


def test_observations() -> None:
    message = parsed(build_oru(flag(film(reasons=[PNEUMOTHORAX, EFFUSION])), ENVELOPE))
    observations = rows(message, "OBX")
    assert [observation[1] for observation in observations] == [str(n + 1) for n in range(len(observations))]
    study, urgency, pneumothorax, probability, effusion, _, *words = observations
    assert study[2:12] == ["ST", "113014^DICOM Study^DCM", "", STUDY, *5 * [""], "O"]
    assert urgency[2:12] == ["CWE", "260870009^Priority^SCT", "", "49499008^Stat^SCT", *5 * [""], "P"]
    coded = "36118008^Pneumothorax^SCT^Pneumothorax^Pneumothorax^L"
    assert pneumothorax[2:12] == [
        *("CWE", "121071^Finding^DCM", "Pneumothorax", coded, "", "", "A", "0.9100", "", "P"),
    ]
    assert probability[2:12] == [
        *("NM", "111047^Probability^DCM", "Pneumothorax", "0.9100", "1^no units^UCUM", "<0.6200", "H", "", "", "P"),
    ]
    assert effusion[5].startswith("60046008^Pleural effusion^SCT")
    assert [word[5] for word in words] == list(sentences(flag(film(reasons=[PNEUMOTHORAX, EFFUSION]))))
    assert {word[2] for word in words} == {"TX"}
    assert [word[4] for word in words] == ["1", "2", "3", "4"]
    for observation in observations[1:]:
        assert observation[14] == "20250102101500"
        assert observation[17:19] == ["^starter 1.0", "0123456789abcdef^HILUM"]


def test_a_finding_keeps_its_number_from_revision_to_revision() -> None:
    first = rows(parsed(build_oru(flag(film(reasons=[EFFUSION])), ENVELOPE)), "OBX")
    second = rows(parsed(build_oru(flag(film(reasons=[PNEUMOTHORAX, EFFUSION]), revision=2), ENVELOPE)), "OBX")
    (named_first,) = {(o[3], o[4]) for o in first if o[2] == "NM"}
    assert named_first in {(o[3], o[4]) for o in second}


def test_any_finding() -> None:
    observations = rows(parsed(build_oru(flag(film(reasons=[ANY])), ENVELOPE)), "OBX")
    assert observations[2][5] == "118247008^Radiologic finding^SCT^Any finding^Any finding^L"


@pytest.mark.parametrize("revision", [1, 2])
def test_every_revision_is_preliminary(revision: int) -> None:
    message = parsed(build_oru(flag(revision=revision), ENVELOPE))
    assert row(message, "OBR")[25] == "P"
    assert {observation[11] for observation in rows(message, "OBX")} == {"O", "P"}


@pytest.mark.parametrize(("why", "status"), [(w, "D" if w is Withdrawal.REPORTED else "W") for w in Withdrawal])
def test_a_withdrawn_finding_is_posted_as_wrong(why: Withdrawal, status: str) -> None:
    message = parsed(build_oru(withdrawn(why), ENVELOPE))
    _, urgency, finding, *words = rows(message, "OBX")
    assert urgency[5] == "50811001^Routine^SCT"
    assert finding[2:12] == ["CWE", "121071^Finding^DCM", *7 * [""], status]
    assert {word[11] for word in words} == {"P"}
    assert row(message, "OBR")[25] == "P", "the films are still to be read: no status that ends or cancels the order"


@pytest.mark.parametrize("build", EVERY)
@pytest.mark.parametrize("case", VALID)
def test_what_the_policy_is_silent_on_is_not_told(build: Build, case: str) -> None:
    spoken = VALID[case]
    encoded = build(spoken, ENVELOPE).encoded.decode()
    silent = {f"{p:.4f}"[1:] for f in spoken.films for p in (f.binary, *f.findings.values()) if p is not None}
    assert not any(number in encoded for number in silent)
    if not spoken.reasons:
        assert "Pneumothorax" not in encoded


@pytest.mark.parametrize("build", [build_omi, build_orm])
def test_notes_of_an_order(build: Build) -> None:
    notes = rows(parsed(build(flag(), ENVELOPE)), "NTE")
    assert [note[3] for note in notes] == list(sentences(flag()))
    assert [note[1:3] for note in notes] == [[str(n + 1), "O"] for n in range(len(notes))]


def test_software() -> None:
    software = row(parsed(build_oru(flag(), ENVELOPE)), "SFT")
    assert software[1] == software[3] == "hilum"
    assert software[4] == flag().model_id


def test_codes_are_those_of_the_structured_report() -> None:
    report = sr.build_sr(flag()).to_json()
    for code in (PRIORITY, URGENCY[Urgency.STAT], CHEST_FILM):
        assert f'"{code.value}"' in report
        assert f'"{code.meaning}"' in report
    assert ANY_FINDING.value in sr.build_sr(flag(film(reasons=[ANY]))).to_json()


def test_the_patient_is_in_no_control_id() -> None:
    other = replace(PATIENT, patient_id="1", patient_name="Roe^Richard")
    assert build_oru(flag(context=other), ENVELOPE).control_id == build_oru(flag(), ENVELOPE).control_id
