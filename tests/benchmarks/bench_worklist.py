"""What others see of the reading list, and how soon. `python -m tests.benchmarks.bench_worklist`"""

from __future__ import annotations

import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom.sop_class import ModalityWorklistInformationFind, UnifiedProcedureStepPull

from tests.integration.open_windows import House, fill, open_house
from tests.integration.raw_peer import COMMAND, IMPLICIT, LAST, P_DATA, associate_rq, command, encode, pdu, pdv

STUDIES = 10_000
REPEATS = 20
FINDSCU = "/usr/bin/findscu"
MWL, UPS = str(ModalityWorklistInformationFind), str(UnifiedProcedureStepPull)


def run() -> list[tuple[str, str, str]]:
    """Rows of figure, measured, goal."""
    with tempfile.TemporaryDirectory() as name, open_house(Path(name)) as house:
        fill(house.record.database, 1)
        rows = [("Modality Worklist, 1 study open", _figures(lambda: _asked(house.port, MWL, _mwl()), 1), "≤ 20 ms")]
    with tempfile.TemporaryDirectory() as name, open_house(Path(name)) as house:
        fill(house.record.database, STUDIES)
        all_of_it, none = f"{STUDIES:,} studies open", _mwl()
        none.PatientID = "P7777"
        rows += [
            (f"Modality Worklist, {all_of_it}: first query", _figures(_all(house, MWL, _mwl()), 1, 1), "≤ 1 s"),
            (f"… the next ones, all {STUDIES:,} answers", _figures(_all(house, MWL, _mwl()), STUDIES), "≤ 1 s"),
            ("… one of them by Patient ID", _figures(_all(house, MWL, none), 1), "≤ 20 ms"),
            ("UPS Pull, all of them", _figures(_all(house, UPS, _ups()), STUDIES), "≤ 1 s"),
            (f"dcmtk's findscu, all {STUDIES:,}, the program's start included", _by_findscu(house.port), "none set"),
        ]
    return rows


def _all(house: House, sop_class: str, query: Dataset) -> Callable[[], int]:
    return lambda: _asked(house.port, sop_class, query)


def _figures(act: Callable[[], int], expected: int, repeats: int = REPEATS) -> str:
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        found = act()
        took.append(1000 * (time.perf_counter() - began))
        assert repeats == 1 or found == expected, found
    took.sort()
    return f"p50 {statistics.median(took):.1f} ms, longest {took[-1]:.1f} ms"


def _asked(port: int, sop_class: str, query: Dataset) -> int:
    """How many Pending responses a query gets, by a client that only counts: association, query, last response."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(associate_rq(contexts=((sop_class, [IMPLICIT]),), max_pdu=131072))
        stream = peer.makefile("rb", buffering=1 << 20)
        next(_pdus(stream.read))
        asked = command(0x0020, AffectedSOPClassUID=sop_class, Priority=0)
        peer.sendall(
            pdu(P_DATA, pdv(1, COMMAND | LAST, asked)) + pdu(P_DATA, pdv(1, LAST, encode(query, implicit=True)))
        )
        pending = b"\0\0\0\x09\2\0\0\0\0\xff"  # Status 0xFF00
        count = 0
        for body in _pdus(stream.read):
            if body[5] & COMMAND:
                if pending not in body:
                    return count
                count += 1
    return count


def _pdus(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while header := read(6):
        yield read(struct.unpack(">BxI", header)[1])


def _mwl() -> Dataset:
    """What a modality asks for."""
    query, step = Dataset(), Dataset()
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName"),
        *("StudyInstanceUID", "RequestedProcedureID", "RequestedProcedureDescription", "RequestedProcedurePriority"),
        *("RequestedProcedureComments", "PatientWeight", "MedicalAlerts", "Allergies"),
    ):
        setattr(query, keyword, None)
    for keyword in (
        *("Modality", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"),
        *("ScheduledPerformingPhysicianName", "ScheduledProcedureStepDescription", "ScheduledProcedureStepID"),
    ):
        setattr(step, keyword, None)
    query.ScheduledProcedureStepSequence = [step]
    return query


def _ups() -> Dataset:
    """What a reading workstation asks for."""
    query = Dataset()
    for keyword in (
        *("SOPInstanceUID", "PatientName", "PatientID", "StudyInstanceUID", "ScheduledProcedureStepPriority"),
        *("ProcedureStepLabel", "ProcedureStepState", "ScheduledProcedureStepStartDateTime"),
        "CommentsOnTheScheduledProcedureStep",
    ):
        setattr(query, keyword, None)
    query.ScheduledWorkitemCodeSequence = []
    return query


def _by_findscu(port: int) -> str:
    keys = ["PatientName", "PatientID", "AccessionNumber", "RequestedProcedurePriority", "StudyInstanceUID"]
    asked = [
        FINDSCU,
        "-q",
        "-W",
        "-aec",
        "HILUM",
        "127.0.0.1",
        str(port),
        *(word for key in keys for word in ("-k", key)),
    ]

    def once() -> int:
        subprocess.run(asked, check=True, capture_output=True)
        return 0

    return _figures(once, 0, 5)


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
