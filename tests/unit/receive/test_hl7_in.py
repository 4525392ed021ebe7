"""What is understood of HL7 v2 messages, good and hostile, and how they are answered."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from schemas.context import Content, Merge, Order, PatientRef, PatientUpdate, SignedReport, Verdict
from schemas.decision import Urgency
from schemas.errors import MessageRefused
from schemas.findings import Label
from worker.receive.hl7_content import Rules, understand
from worker.receive.hl7_in import Answer, acknowledge, moment, open_message, refuse
from worker.receive.hl7_listener import Hl7ListenerConfig
from worker.receive.report_verdict import LONGEST_TEXT, VerdictRules
from worker.settings import phrase

LUNGS = "\N{LUNGS}".encode()  # four bytes a character for what stands beside it
LONGEST = Hl7ListenerConfig().max_message
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SAID = datetime(2026, 3, 1, 11, 30, tzinfo=UTC)
PID = "PID|1||P1^^^HOSP^MR||Phantom^Chest^Q^Jr^Dr^^L||19610412|F"
RULES = Rules(
    verdicts=VerdictRules(
        positive=[phrase("pneumothorax is seen")],
        negative=[phrase("no acute (cardio)?pulmonary")],
        codes={"RID1": Label.MASS},
    )
)


def block(kind: str, *segments: str, control: str = "7", header: str = "", version: str = "2.5.1") -> bytes:
    head = f"MSH|^~\\&|RIS|HOSP|HILUM|X|20260301113000+0000||{kind}|{control}|P|{version}{header}"
    return "\r".join((head, *segments, "")).encode()


def segment(name: str, fields: dict[int, str]) -> str:
    return "|".join([name, *(fields.get(position, "") for position in range(1, max(fields) + 1))])


def hear(kind: str, *segments: str, rules: Rules = RULES, **more: str) -> tuple[Content, ...]:
    return understand(open_message(block(kind, *segments, **more)), rules, NOW)


def refused(encoded: bytes) -> str:
    with pytest.raises(MessageRefused) as caught:
        understand(open_message(encoded), RULES, NOW)
    return caught.value.condition


def many(count: int, first: int = 0) -> str:
    """So many identifiers of one patient."""
    return "~".join(f"P{first}.{number}" for number in range(count))


def signed(accession: str) -> str:
    return "OBR|1||R1|CXR" + 14 * "|" + accession + 7 * "|" + "F"


# Orders


def test_an_order_of_ihes_rad_4() -> None:
    (order,) = hear(
        "ORM^O01^ORM_O01",
        PID,
        "ORC|NW|PL1^RIS|F1^RIS||||^^^^^R",
        segment("OBR", {3: "F1^RIS", 13: "free text", 18: "A1", 27: "^^^^^S", 31: "R07.9^Chest pain^I10~R06^Dyspnoea"}),
        "ZDS|1.2.3^HILUM^Application^DICOM",
    )
    assert order == Order(
        accession_number="A1",
        placer_number="PL1",
        filler_number="F1",
        urgency=Urgency.STAT,
        reason="Chest pain; Dyspnoea",
        patient_id="P1",
        said_at=SAID,
    )


def test_an_order_of_omi_and_of_omg() -> None:
    (order,) = hear(
        "OMI^O23^OMI_O23", PID, "ORC|NW|PL1", "TQ1|1||||||||A^ASAP^HL70485", "OBR|1|PL1||CXR", "IPC|A7|RP|1.2"
    )
    assert isinstance(order, Order)
    assert (order.accession_number, order.urgency) == ("A7", Urgency.URGENT)
    first, second = hear("OMG^O19", PID, "ORC|NW||F1", "OBR|1||F1|CXR", "ORC|CA||F2", "OBR|2||F2|CXR")
    assert isinstance(first, Order)
    assert isinstance(second, Order)
    assert (first.accession_number, first.urgency, first.cancelled) == ("F1", None, False)
    assert (second.accession_number, second.cancelled) == ("F2", True)


@pytest.mark.parametrize(
    ("code", "urgency"),
    [
        ("S", Urgency.STAT),
        ("stat", Urgency.STAT),
        ("A", Urgency.URGENT),
        ("P", Urgency.URGENT),
        ("C", Urgency.URGENT),
        ("T", Urgency.URGENT),
        ("TM30", Urgency.URGENT),
        ("R", Urgency.ROUTINE),
        ("", None),
        ("whatever", None),
    ],
)
@pytest.mark.parametrize("place", ["OBR-27", "ORC-7", "TQ1-9", "OBR-5"])
def test_priorities(place: str, code: str, urgency: Urgency | None) -> None:
    orc, tq1, obr = "ORC|NW||F1", "TQ1|1", "OBR|1||F1|CXR"
    match place:
        case "OBR-27":
            obr += 23 * "|" + "^^^^^" + code
        case "ORC-7":
            orc += "||||^^^^^" + code
        case "TQ1-9":
            tq1 += 8 * "|" + code + "^words"
        case _:
            obr += "|" + code
    (order,) = hear("OMI^O23", PID, orc, tq1, obr)
    assert isinstance(order, Order)
    assert order.urgency is urgency


@pytest.mark.parametrize("orc", ["ORC|CA||F1", "ORC|DC||F1", "ORC|OC||F1", "ORC|SC||F1||CA", "ORC|SC||F1||DC"])
def test_cancelled_orders(orc: str) -> None:
    (order,) = hear("ORM^O01", PID, orc, "OBR|1||F1|CXR")
    assert isinstance(order, Order)
    assert order.cancelled


def test_the_site_says_where_the_accession_number_stands() -> None:
    segments = (PID, "ORC|NW|PL1|F1", "OBR|1|PL1|F1|CXR" + 14 * "|" + "A1")
    numbers = [
        order.accession_number
        for places in (["OBR-18"], ["OBR-3"], ["ORC-2"], ["IPC-1"], ["IPC-1", "ORC-3"])
        for order in hear("ORM^O01", *segments, rules=Rules(accession_in=places))  # type: ignore[arg-type]
        if isinstance(order, Order)
    ]
    assert numbers == ["A1", "F1", "PL1", "", "F1"]


# Patients


@pytest.mark.parametrize("event", ["A08", "A31"])
def test_a_corrected_patient(event: str) -> None:
    (update,) = hear(f"ADT^{event}", "EVN||20260301120500+0100", PID)
    assert update == PatientUpdate(
        patients=(PatientRef(id="P1", issuer="HOSP"),),
        name="Phantom^Chest^Q^Dr^Jr",
        birth_date="19610412",
        sex="F",
        said_at=datetime(2026, 3, 1, 11, 5, tzinfo=UTC),
    )


@pytest.mark.parametrize("event", ["A18", "A40", "A47"])
def test_a_merged_patient(event: str) -> None:
    pid = "PID|1||S9^^^STATE^SS~P2^^^HOSP^MR||New^Name"
    update, merge = hear(f"ADT^{event}", "EVN||", pid, "MRG|P1^^^HOSP^MR~S9^^^STATE^SS")
    assert isinstance(update, PatientUpdate)
    assert update.name == "New^Name"
    old, new = PatientRef(id="P1", issuer="HOSP"), PatientRef(id="P2", issuer="HOSP")
    assert merge == Merge(old=old, new=new, said_at=SAID)


def test_several_merges_in_one_message() -> None:
    contents = hear("ADT^A40", "PID|1||P2", "MRG|P1", "PID|2||P4", "MRG|P3")
    assert [(m.old.id, m.new.id) for m in contents if isinstance(m, Merge)] == [("P1", "P2"), ("P3", "P4")]


def test_a_patient_that_several_are_merged_into_is_corrected_once() -> None:
    merges = [s for n in range(50) for s in (PID, f"MRG|O{n}^^^HOSP^MR")]
    contents = hear("ADT^A40", *merges)
    assert sum(isinstance(content, PatientUpdate) for content in contents) == 1
    assert [m.old.id for m in contents if isinstance(m, Merge)] == [f"O{n}" for n in range(50)]


def test_of_two_corrections_in_one_message_the_later_stands_last() -> None:
    contents = hear("ADT^A08", "PID|1||P1||A", "PID|2||P1||B", "PID|3||P1||A", "PID|4||P1||A")
    assert [update.name for update in contents if isinstance(update, PatientUpdate)] == ["A", "B", "A"]


def test_a_hospital_number_is_never_merged_into_a_social_security_number() -> None:
    assert refused(block("ADT^A40", "PID|1||S9^^^STATE^SS", "MRG|P1^^^HOSP^MR")) == "101"


def test_what_is_damaged_or_deleted_corrects_nothing() -> None:
    for pid in ('PID|1||P1||""||""|""', "PID|1||P1||||19610231|U", "PID|1||P1||" + "x" * 65 + "||1961|?"):
        (update,) = hear("ADT^A08", pid)
        assert isinstance(update, PatientUpdate)
        assert (update.name, update.birth_date, update.sex) == ("", "", "")
    encoded = block("ADT^A08", "PID|1||P1||Gr\xfc\xdf", header=6 * "|" + "UNICODE UTF-8").decode().encode("latin-1")
    (update,) = understand(open_message(encoded), RULES, NOW)
    assert isinstance(update, PatientUpdate)
    assert update.name == ""


def test_a_name_in_three_representations() -> None:
    pid = "PID|1||P1||Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P~Nick^Name^^^^^N"
    (update,) = hear("ADT^A08", pid, header=6 * "|" + "UNICODE UTF-8")
    assert isinstance(update, PatientUpdate)
    assert update.name == "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_a_clock_that_is_ahead_does_not_keep_corrections_out() -> None:
    (update,) = hear("ADT^A08", "EVN||29990101", PID)
    assert update.said_at == NOW


# Reports


def result(status: str, *observations: str, accession: str = "A1", **more: str) -> tuple[Content, ...]:
    obr = "OBR|1||R1|CXR" + 14 * "|" + accession + 7 * "|" + status
    return hear("ORU^R01^ORU_R01", PID, "ORC|RE||F1", obr, *observations, **more)


def verdict(*observations: str) -> tuple[Verdict | None, str, tuple[Label, ...]]:
    (report,) = result("F", *observations)
    assert isinstance(report, SignedReport)
    return report.verdict, report.rule, report.findings


def test_a_signed_report() -> None:
    (report,) = result("F", "OBX|1|TX|IMP||No acute|||N|||F", "OBX|2|ST|113014^DICOM Study^DCM||1.2.3||||||F")
    assert report == SignedReport(
        accession_number="A1",
        study_uid="1.2.3",
        patients=(PatientRef(id="P1", issuer="HOSP"),),
        report_id="R1",
        verdict=Verdict.NEGATIVE,
        rule="OBX-8 N",
        said_at=SAID,
    )
    (corrected,) = result("C")
    assert isinstance(corrected, SignedReport)
    assert corrected.corrected


@pytest.mark.parametrize("status", ["P", "A", "X", "R", "I", ""])
def test_what_is_not_signed_is_no_report(status: str) -> None:
    assert result(status, "OBX|1|TX|IMP||Pneumothorax is seen|||A|||F") == ()


@pytest.mark.parametrize(
    ("observations", "expected"),
    [
        (("OBX|1|TX|X||x|||A|||F",), (Verdict.POSITIVE, "OBX-8 A", ())),
        (("OBX|1|TX|X||x|||AA|||F", "OBX|2|TX|X||x|||N|||F"), (Verdict.POSITIVE, "OBX-8 AA", ())),
        (("OBX|1|TX|X||x|||N~N|||F",), (Verdict.NEGATIVE, "OBX-8 N", ())),
        (("OBX|1|TX|X||x|||H|||F",), (None, "", ())),
        (
            ("OBX|1|CWE|X||36118008^Pneumothorax^SCT|||N~|||F", "OBX|2|CE|X||60046008^Effusion^SCT||||||F"),
            (Verdict.POSITIVE, "code 60046008", (Label.EFFUSION,)),
        ),
        (("OBX|1|CWE|X||L1^x^L^RID1^Mass^RADLEX||||||F",), (Verdict.POSITIVE, "code RID1", (Label.MASS,))),
        (
            ("OBX|1|TX|X||A right PNEUMOTHORAX||||||F", "OBX|2|TX|X||is seen.||||||F"),
            (Verdict.POSITIVE, "positive.0", ()),
        ),
        (
            ("OBX|1|FT|X||No\\.br\\acute \\H\\cardiopulmonary\\N\\ process||||||F",),
            (Verdict.NEGATIVE, "negative.0", ()),
        ),
        (
            ("OBX|1|TX|X||No acute pulmonary. Pneumothorax is seen.||||||F",),
            (None, "positive.0 and negative.0", ()),
        ),
        (("OBX|1|TX|X||Unremarkable||||||F",), (None, "", ())),
        (("OBX|1|TX|X||Pneumothorax is seen|||A|||D", "OBX|2|TX|X||x|||A|||W"), (None, "", ())),
        (("OBX|1|ED|X||^^^Base64^Pneumothorax is seen||||||F",), (None, "", ())),
        ((), (None, "", ())),
    ],
)
def test_what_a_report_says(
    observations: tuple[str, ...], expected: tuple[Verdict | None, str, tuple[Label, ...]]
) -> None:
    assert verdict(*observations) == expected


def test_a_text_that_is_too_long_to_be_read_whole_has_no_verdict() -> None:
    begins, ends = "OBX|1|TX|X||No acute pulmonary ", "OBX|3|TX|X||Pneumothorax is seen||||||F"
    filled = [f"{begins}{'x' * length}||||||F" for length in (1000, LONGEST_TEXT)]
    assert verdict(filled[0], ends) == (None, "positive.0 and negative.0", ())
    assert verdict(filled[1], ends) == (None, "text too long", ())
    assert verdict(filled[0], f"OBX|2|ED|X||^^^Base64^{'x' * LONGEST_TEXT}||||||F") == (
        Verdict.NEGATIVE,
        "negative.0",
        (),
    )


OWN = "OBX|1|CWE|121071^Finding^DCM|Pneumothorax|36118008^Pneumothorax^SCT|||A|0.91||F|||||||ab12^HILUM"


def test_what_we_said_ourselves_is_no_report() -> None:
    assert result("F", OWN) == ()
    assert verdict(OWN, "OBX|2|TX|X||x|||N|||F")[0] is Verdict.NEGATIVE
    ours = block("ORU^R01", PID, "OBR|1||R1|CXR" + 14 * "|" + "A1" + 7 * "|" + "F").replace(b"|RIS|", b"|HILUM|")
    assert understand(open_message(ours), RULES, NOW) == ()


def test_our_own_channels_result_comes_back_as_nothing() -> None:
    from tests.unit.notify.flags import flag
    from worker.notify.hl7_messages import Envelope, build_order, build_oru

    for envelope in (Envelope(), Envelope(sending_application="ENGINE")):
        assert understand(open_message(build_oru(flag(), envelope).encoded), RULES, datetime.now(UTC)) == ()
    assert understand(open_message(build_order(flag(), Envelope()).encoded), RULES, datetime.now(UTC)) == ()


def test_one_report_for_what_was_ordered_under_several_codes() -> None:
    obr = "OBR|{}||R{}|CXR" + 14 * "|" + "{}" + 7 * "|" + "F"
    reports = hear(
        "ORU^R01",
        PID,
        obr.format(1, 1, "A1"),
        "OBX|1|TX|X||x|||N|||F",
        obr.format(2, 2, "A1"),
        "OBX|1|TX|X||x|||A|||F",
        obr.format(3, 3, "A2"),
        "OBX|1|TX|X||x|||N|||F",
    )
    said = [(r.accession_number, r.verdict) for r in reports if isinstance(r, SignedReport)]
    assert said == [("A1", Verdict.POSITIVE), ("A2", Verdict.NEGATIVE)]


# The language


def test_other_delimiters_and_escapes() -> None:
    encoded = (
        b"MSH#*@!%#RIS#HOSP###20260301##ORM*O01#7#P#2.3\rPID#1##P1\r"
        b"ORC#NW##F!F!1!S!2!R!3!T!4!E!5!X4142!\rOBR#1###CXR#########lone ! mark"
    )
    (order,) = understand(open_message(encoded), RULES, NOW)
    assert isinstance(order, Order)
    assert order.filler_number == "F#1*2@3%4!5AB"
    assert order.reason == "lone ! mark"


def test_line_ends_and_byte_order_marks_of_careless_senders() -> None:
    encoded = b"\xef\xbb\xbf\r\n" + block("ADT^A08", PID).replace(b"\r", b"\r\n")
    assert len(understand(open_message(encoded), RULES, NOW)) == 1


@pytest.mark.parametrize(
    ("named", "codec", "name"),
    [
        ("", "utf-8", "Grüß"),
        ("", "latin-1", "Grüß"),
        ("8859/1", "latin-1", "Grüß"),
        ("8859/15", "iso8859-15", "Œuvre"),
        ("UNICODE UTF-8", "utf-8", "Жук"),
        ("GB 18030-2000", "gb18030", "誠誇"),  # with bytes that are ASCII's backslash and bar
        ("ISO IR87", "iso2022_jp", "山田"),
    ],
)
def test_character_sets(named: str, codec: str, name: str) -> None:
    encoded = block("ADT^A08", f"PID|1||P1||{name}", header=6 * "|" + named).decode().encode(codec)
    (update,) = understand(open_message(encoded), RULES, NOW)
    assert isinstance(update, PatientUpdate)
    assert update.name == name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("20260301113000.1234+0130", datetime(2026, 3, 1, 10, 0, 0, 123400, tzinfo=UTC)),
        ("2026", datetime(2026, 1, 1).astimezone()),
        ("202603011130", datetime(2026, 3, 1, 11, 30).astimezone()),
        ("20260231", None),
        ("0000", None),
        ("20260301+9999", None),
        ("00010101000000+1400", None),
        ("99991231235959-1400", None),
        ("yesterday", None),
        ("٢٠٢٦", None),
        ("", None),
    ],
)
def test_moments(value: str, expected: datetime | None) -> None:
    assert moment(value) == expected


# What is refused


@pytest.mark.parametrize(
    ("encoded", "condition"),
    [
        (b"", "100"),
        (b"MSH", "100"),
        (b"GET / HTTP/1.1\r\n\r\n", "100"),
        (b"FHS|^~\\&|x\rMSH|^~\\&|", "100"),
        ("MSH|^~\\&|".encode("utf-16"), "100"),
        (b"MSH|^^^^|RIS", "102"),
        (b"MSHabcdeRIS", "102"),
        (b"MSH|^~\\&RIS|", "102"),
        (b"MSH|\r\n\r\n\r\n", "102"),
        (b"MSH|^~\\&|\x00\x00\x00", "203"),
        (block("ADT^A08", PID, version="3.0"), "203"),
        (block("ADT^A08", PID, version=""), "203"),
        (block("ADT^A08", PID).replace(b"|P|", b"|T|"), "202"),
        (block("ADT^A08", PID, control=""), "101"),
        (block("ADT^A08", PID, control="7" * 200), "104"),
        (block("ADT^A08", PID, header=6 * "|" + "EBCDIC"), "103"),
        (block("ADT^A01", PID), "201"),
        (block("ORU^R30", PID), "201"),
        (block("SIU^S12", PID), "200"),
        (block("", PID), "200"),
        (block("ADT^A08"), "101"),
        (block("ADT^A08", "PID|1"), "101"),
        (block("ADT^A40", PID, "MRG|"), "101"),
        (block("ADT^A08", "PID|1||" + "P" * 251), "104"),
        (block("ADT^A08", "PID|1||P\xc3\x28", header=6 * "|" + "ASCII").replace(b"\xc3\x83", b"\xc3"), ""),
        (block("ORM^O01", PID), "101"),
        (block("ORM^O01", PID, "ORC|NW", "OBR|1"), "101"),
        (block("ORM^O01", PID, *["ORC|NW||F1"] * 201), "104"),
        (block("ADT^A08", PID, *["ZZZ"] * 30_000), "104"),
        (block("ADT^A40", PID, *[f"MRG|O{n}^^^HOSP" for n in range(201)]), "104"),
        (block("ADT^A40", *[f"PID|1||N{n}" for n in range(201)]), "104"),
        (block("ADT^A40", *[s for n in range(9900) for s in (f"PID|1||N{n}", f"MRG|O{n}")]), "104"),
        (block("ADT^A08", *[f"PID|1||{many(50, n)}" for n in range(21)]), "104"),
        (block("ORU^R01", *[s for n in range(21) for s in (f"PID|1||{many(50)}", signed(f"A{n}"))]), "104"),
        (block("ADT^A08", f"PID|1||{many(51)}"), "104"),
        (block("ADT^A08", "PID|1||P1" + 64 * "~" + "P2"), "104"),
        (block("ADT^A40", PID, f"MRG|{many(51)}"), "104"),
        (block("ADT^A08", *[f"PID|1||P1||{name}" for name in "ABABA"]), "104"),
        (block("ADT^A40", *[s for n in range(5) for s in (f"PID|1||N{n}", "MRG|P1")]), "104"),
        (block("ADT^A08", "PID|1||P_", header=6 * "|" + "8859/6").replace(b"P_", b"P\xff"), "102"),
        (block("ORM^O01", f"PID|1||{many(51)}", "ORC|NW||F1"), ""),
        (block("ADT^A40", *[s for n in range(200) for s in (f"PID|1||N{n}", f"MRG|O{n}")]), ""),
        (block("ADT^A08", f"PID|1||{many(50)}"), ""),
    ],
)
def test_what_is_refused_and_why(encoded: bytes, condition: str) -> None:
    if condition:
        assert refused(encoded) == condition
    else:
        assert understand(open_message(encoded), RULES, NOW)


def test_a_refusal_repeats_nothing_of_the_message() -> None:
    for encoded in (block("SECRET^NAME", PID), block("ADT^A08", "PID|1||" + "SECRET" * 99)):
        with pytest.raises(MessageRefused) as caught:
            understand(open_message(encoded), RULES, NOW)
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"|" * LONGEST,
        b"\r" * LONGEST,
        b"PID|1||" + b"~" * LONGEST,
        b"PID|1||" + LUNGS + b"x" * LONGEST,
        b"PID|1||" + b"^" * LONGEST,
        b"PID|1||P1||" + b"&" * LONGEST,
        b"PID|1||P1||" + b"\\X" + b"41" * (LONGEST // 2) + b"\\",
        b"PID|1||P1||" + b"\\" * LONGEST,
        b"OBR|1||R1|||" + 21 * b"|" + b"F\rOBX|1|TX|||" + b"no acute " * (LONGEST // 9),
        b"PID|1||P1\rOBR|1||R1|CXR"
        + 14 * b"|"
        + b"A1"
        + 7 * b"|"
        + b"F"
        + 4 * (b"\rOBX|1|TX|||" + LUNGS + b"x" * (LONGEST // 4)),
    ],
)
@pytest.mark.parametrize("kind", [b"ADT^A08", b"ORU^R01", b"ORM^O01"])
def test_a_message_as_long_as_may_be_is_dealt_with_soon_and_in_bounded_memory(kind: bytes, body: bytes) -> None:
    encoded = block(kind.decode(), "").rstrip(b"\r") + b"\r" + body
    tracemalloc.start()
    began = time.perf_counter()
    with contextlib.suppress(MessageRefused):
        understand(open_message(encoded), RULES, NOW)
    took, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert took < 20
    assert peak < 20 * LONGEST


@pytest.mark.parametrize("named", ["8859/6", "8859/7", "8859/8"])
def test_bytes_that_are_none_of_the_character_set_take_no_longer(named: str) -> None:
    def took(fill: bytes) -> float:
        encoded = block("ADT^A08", PID, header=6 * "|" + named) + fill * (LONGEST // 2)
        began = time.perf_counter()
        open_message(encoded)
        return time.perf_counter() - began

    assert took(b"\xff\xfe") < 5 * took(b"\xe1\xe2")


def test_no_noise_is_anything_but_understood_or_refused() -> None:
    chance = random.Random(4)
    seeds = [
        block("ORM^O01", PID, "ORC|NW|PL1|F1||||^^^^^S", "OBR|1|PL1|F1|CXR"),
        block("ADT^A40", "EVN||20260301", PID, "MRG|P0^^^HOSP^MR"),
        block("ORU^R01", PID, "OBR|1||R1|CXR" + 14 * "|" + "A1" + 7 * "|" + "F", "OBX|1|TX|X||x\\X41\\|||A|||F"),
    ]
    for _ in range(3000):
        noisy = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 12)):
            at = chance.randrange(len(noisy))
            match chance.randrange(3):
                case 0:
                    noisy[at] = chance.choice(b'|^~\\&\r\n\x00\xff"MSHPID')
                case 1:
                    del noisy[at : at + chance.randint(1, 20)]
                    noisy = noisy or bytearray(b"M")
                case _:
                    noisy[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 8)))
        message = None
        try:
            message = open_message(bytes(noisy))
            understand(message, RULES, NOW)
            answer = acknowledge(message, Answer.ACCEPT, NOW)
        except MessageRefused as refusal:
            answer = acknowledge(message, Answer.REJECT, NOW, refusal)
        assert answer == b"" or answer.startswith(b"MSH")
        beginning = refuse(bytes(noisy[: chance.randint(0, len(noisy))]), MessageRefused("104", "too long"), NOW)
        assert beginning == b"" or beginning.startswith(b"MSH")


# Answers


def answered(encoded: bytes, answer: Answer, refusal: MessageRefused | None = None) -> list[str]:
    return acknowledge(open_message(encoded), answer, NOW, refusal).decode().split("\r")


def test_an_acknowledgement() -> None:
    encoded = block("ADT^A08", PID)
    header, msa, end = answered(encoded, Answer.ACCEPT)
    fields = header.split("|")
    assert fields[:6] == ["MSH", "^~\\&", "HILUM", "X", "RIS", "HOSP"]
    assert fields[8:] == ["ACK^A08", fields[9], "P", "2.5.1"]
    assert (msa, end) == ("MSA|AA|7", "")
    assert answered(encoded, Answer.ACCEPT)[0].split("|")[9] == fields[9], "the same answer has the same number"


@pytest.mark.parametrize(
    ("version", "msa", "err"),
    [
        ("2.5.1", "MSA|AR|7", "ERR||MSH^1^9|201^Unsupported event code^HL70357|E||||its words"),
        ("2.8", "MSA|AR|7", "ERR||MSH^1^9|201^Unsupported event code^HL70357|E||||its words"),
        ("2.3.1", "MSA|AR|7|its words", "ERR|^^^201&Unsupported event code&HL70357"),
    ],
)
def test_errors_are_said_as_the_version_has_them(version: str, msa: str, err: str) -> None:
    refusal = MessageRefused("201", "its words", "MSH^1^9")
    assert answered(block("ADT^A01", PID, version=version), Answer.REJECT, refusal)[1:] == [msa, err, ""]
    assert answered(block("ADT^A01", PID, version=version), Answer.ERROR)[1] == "MSA|AE|7"
    assert "207" in answered(block("ADT^A01", PID, version=version), Answer.ERROR)[2]


@pytest.mark.parametrize(
    ("modes", "codes"),
    [
        ("||", "AA AE AR"),
        ("AL|NE", "CA CE CR"),
        ("AL|AL", "CA CE CR"),
        ("NE|AL", "AA AE AR"),
        ("NE|NE", ""),
        ("ER|NE", "CE CR"),
        ("SU|", "CA"),
        ("|AL", "AA AE AR"),
    ],
)
def test_enhanced_mode(modes: str, codes: str) -> None:
    encoded = block("ADT^A08", PID, header="|||" + modes)
    said = [acknowledge(open_message(encoded), answer, NOW) for answer in Answer]
    assert [a.split(b"MSA|")[1][:2].decode() for a in said if a] == codes.split()


def test_an_answer_holds_no_more_of_the_message_than_its_header() -> None:
    encoded = block("ADT^A08", PID).replace(b"|RIS|", b"|RIS\x0b\x1c" + b"x" * 500 + b"|")
    answer = acknowledge(open_message(encoded), Answer.ACCEPT, NOW)
    assert b"\x0b" not in answer
    assert b"\x1c" not in answer
    assert len(answer) < 600
    assert b"Phantom" not in answer
    encoded = block("ADT^A08", PID).replace(b"|ADT^A08|", b"|ADT^" + b"A" * 100_000 + b"|")
    assert len(acknowledge(open_message(encoded), Answer.REJECT, NOW, MessageRefused("201", "words"))) < 600


def test_without_a_header_the_answer_says_so() -> None:
    refusal = MessageRefused("100", "words", "MSH^1")
    answer = acknowledge(None, Answer.REJECT, NOW, refusal).decode().split("\r")
    assert answer[1:] == ["MSA|AR|", "ERR||MSH^1|100^Segment sequence error^HL70357|E||||words", ""]


def test_the_words_of_a_refusal_are_escaped_by_the_messages_own_delimiters() -> None:
    encoded = b"MSH:^~!&:RIS:HOSP:HILUM:X:20260301113000::ADT^A08:7:P:2.5.1\r"
    refusal = MessageRefused("104", "too long: !")
    assert answered(encoded, Answer.REJECT, refusal)[2] == "ERR:::104^Value too long^HL70357:E::::too long!F! !E!"


@pytest.mark.parametrize(
    ("beginning", "msa"),
    [
        (block("ORU^R01", PID), "MSA|AR|7"),
        (b"\xef\xbb\xbf\r\n" + block("ORU^R01", PID), "MSA|AR|7"),
        (block("ORU^R01", PID, version="2.3.1"), "MSA|AR|7|too long"),
        (block("ORU^R01", PID)[:30], "MSA|AR|"),
        (b"P" * 1000, "MSA|AR|"),
    ],
)
def test_what_is_not_read_is_refused_by_its_header(beginning: bytes, msa: str) -> None:
    said = refuse(beginning, MessageRefused("104", "too long"), NOW).decode().split("\r")
    assert said[1] == msa
    assert "104" in said[2]


def test_what_is_not_read_is_refused_in_the_mode_that_its_header_asks_for() -> None:
    asked = {"AL|NE": b"MSA|CR|7", "NE|NE": b"", "": b"MSA|AR|7"}
    for modes, expected in asked.items():
        said = refuse(block("ORU^R01", PID, header="|||" + modes), MessageRefused("104", "too long"), NOW)
        assert said == b"" if not expected else expected in said


def test_time_is_not_taken_from_the_future_by_a_second() -> None:
    late = NOW + timedelta(seconds=1)
    encoded = block("ADT^A08", PID).replace(b"20260301113000+0000", f"{late:%Y%m%d%H%M%S}+0000".encode())
    (update,) = understand(open_message(encoded), RULES, NOW)
    assert update.said_at == NOW
