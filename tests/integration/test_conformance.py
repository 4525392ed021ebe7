"""What the conformance statement says is accepted is accepted, and nothing else; what it says is proposed is proposed.

By association with the worker's own port (pynetdicom, dcmtk's echoscu and findscu), and from its channels.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom.uid import (
    MPEG2MPML,
    AllTransferSyntaxes,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from typer.testing import CliRunner

from schemas.errors import HilumError
from tests.acceptance.harness import free_port
from worker.assemble import Role, Worker, channel, database
from worker.cli.conformance import statement
from worker.cli.main import app
from worker.receive.negotiation import known_storage
from worker.settings import Settings, load

QUERY_RETRIEVE = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root, FIND
PRINT = "1.2.840.10008.5.1.1.9"
UPS_WATCH = "1.2.840.10008.5.1.4.34.6.2"
MWL = "1.2.840.10008.5.1.4.31"
COMMITMENT = "1.2.840.10008.1.20.1"

CONFIG = """
[dicom]
ae_title = "READER"
port = {port}
max_associations = 7
[[dicom.also]]
ae_title = "READER_ER"
order_urgency = "STAT"
accept = [{{ ae_title = "ER1" }}]
[database]
url = "sqlite:///{folder}/hilum.db"
[spool]
path = "{folder}/spool"
watermark_mib = 1
"""
DESTINATIONS = """
[[destinations]]
name = "pacs"
kind = "dicom-sr"
ae_title = "PACS"
port = {peer}
commitment = true
[[destinations]]
name = "page"
kind = "dicom-sc"
ae_title = "PACS"
port = {peer}
[[destinations]]
name = "tasks"
kind = "dicom-ups"
ae_title = "TASKS"
port = {peer}
calling_ae_title = "TASKGIVER"
"""


def configured(folder: Path, extra: str = "", *, peer: int = 4) -> Settings:
    path = folder / "hilum.toml"
    path.write_text((CONFIG + DESTINATIONS + extra).format(folder=folder, port=free_port(), peer=peer))
    return load(path)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return configured(tmp_path)


@pytest.fixture
def listening(settings: Settings) -> Iterator[Settings]:
    """The worker's own port, as `hilum serve --only receive` opens it."""
    database(settings).migrate()
    worker = Worker(settings, [Role.RECEIVE])
    worker.start()
    yield settings
    worker.stop()


def accepted_by(words: str) -> dict[str, set[str]]:
    """SOP class to transfer syntaxes, read from the document as a person would."""
    section = words.partition("### Presentation contexts accepted")[2].partition("### Presentation contexts proposed")[
        0
    ]
    accepted: dict[str, set[str]] = {}
    classes: list[str] = []
    table = ""
    for line in section.splitlines():
        if line.startswith("| SOP class"):
            table, classes = "classes", []
        elif line.startswith("| Transfer syntax"):
            table = "syntaxes"
        elif uid := re.search(r"\| ([0-9.]+) \|$", line):
            if table == "classes":
                classes.append(uid[1])
            for each in classes if table == "syntaxes" else ():
                accepted.setdefault(each, set()).add(uid[1])
    return accepted


def negotiate(settings: Settings, contexts: Sequence[tuple[str, list[str]]], called: str = "READER") -> dict[str, str]:
    """Which SOP classes were accepted, and in which transfer syntax."""
    taken: dict[str, str] = {}
    for start in range(0, len(contexts), 100):
        ae = AE("ROOM1")
        ae.requested_contexts = [build_context(uid, syntaxes) for uid, syntaxes in contexts[start : start + 100]]
        association = ae.associate("127.0.0.1", settings.dicom.port, ae_title=called)
        taken |= {str(c.abstract_syntax): str(c.transfer_syntax[0]) for c in association.accepted_contexts}
        if association.is_established:
            association.release()
    return taken


def test_every_listed_sop_class_is_accepted_in_every_listed_syntax(listening: Settings) -> None:
    accepted = accepted_by(statement(listening))
    assert len(accepted) > 150
    assert {MWL, COMMITMENT, "1.2.840.10008.1.1"} <= set(accepted)
    for syntax in sorted(set().union(*accepted.values())):
        listed = sorted(uid for uid, syntaxes in accepted.items() if syntax in syntaxes)
        assert negotiate(listening, [(uid, [syntax]) for uid in listed]) == dict.fromkeys(listed, syntax)


def test_what_is_not_listed_is_refused(listening: Settings) -> None:
    accepted = accepted_by(statement(listening))
    everything = [str(syntax) for syntax in AllTransferSyntaxes]
    others = [uid for uid in (QUERY_RETRIEVE, PRINT, UPS_WATCH) if uid not in accepted]
    assert others == [QUERY_RETRIEVE, PRINT, UPS_WATCH]
    assert negotiate(listening, [(uid, everything) for uid in others]) == {}
    film = "1.2.840.10008.5.1.4.1.1.1.1"
    missing = [syntax for syntax in everything if syntax not in accepted[film]]
    assert str(MPEG2MPML) in missing
    assert negotiate(listening, [(film, missing)]) == {}
    assert negotiate(listening, [(MWL, [str(ExplicitVRBigEndian)])]) == {}


def test_what_is_switched_off_is_neither_listed_nor_accepted(tmp_path: Path) -> None:
    off = "[worklist]\nmwl = false\nups = false\n[commitment]\noffered = false\n"
    path = tmp_path / "hilum.toml"
    path.write_text((CONFIG + off).format(folder=tmp_path, port=free_port()))
    settings = load(path)
    words = statement(settings)
    assert {MWL, COMMITMENT}.isdisjoint(accepted_by(words))
    assert "| Storage | yes | no |" in words
    database(settings).migrate()
    worker = Worker(settings, [Role.RECEIVE])
    worker.start()
    try:
        plain = [str(ImplicitVRLittleEndian), str(ExplicitVRLittleEndian)]
        assert negotiate(settings, [(MWL, plain), (COMMITMENT, plain)]) == {}
    finally:
        worker.stop()


def test_identity_and_limits_are_those_of_the_association(listening: Settings) -> None:
    words = statement(listening)
    ae = AE("ROOM1")
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", listening.dicom.port, ae_title="READER")
    acceptor = association.acceptor
    said = (acceptor.implementation_class_uid, acceptor.implementation_version_name, acceptor.maximum_length)
    association.release()
    for name, value in zip(
        ("Implementation Class UID", "Implementation Version Name", "Maximum PDU length received"), said, strict=True
    ):
        assert re.search(rf"^\| {name} \| {re.escape(str(value))} \|", words, re.MULTILINE), (name, value)
    assert "| Associations at once | 7 |" in words


def test_dcmtk_finds_the_titles_as_stated(listening: Settings) -> None:
    words = statement(listening)
    port = str(listening.dicom.port)

    def call(tool: str, called: str, calling: str, *options: str) -> int:
        command = [f"/usr/bin/{tool}", "-aet", calling, "-aec", called, *options, "127.0.0.1", port]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    assert "| READER | any | any |" in words
    assert "| READER_ER | ER1 | 0.0.0.0/0 |" in words
    assert call("echoscu", "READER", "ANYBODY") == 0
    assert call("echoscu", "READER_ER", "ER1") == 0
    assert call("echoscu", "READER_ER", "ANYBODY") != 0
    assert call("echoscu", "ELSEWHERE", "ER1") != 0
    assert call("findscu", "READER", "ANYBODY", "-W", "-k", "PatientName") == 0


def test_what_is_proposed_is_what_the_statement_says(tmp_path: Path) -> None:
    asked: dict[str, list[tuple[str, str]]] = {}
    identities = set()
    heard = threading.Event()

    def on_requested(event: evt.Event) -> None:
        requestor = event.assoc.requestor
        contexts = requestor.primitive.presentation_context_definition_list
        calling = str(requestor.ae_title).strip()
        asked.setdefault(calling, []).extend(
            (str(c.abstract_syntax), str(s)) for c in contexts for s in c.transfer_syntax
        )
        identities.add((str(requestor.implementation_class_uid), requestor.implementation_version_name))
        heard.set()

    ae = AE("PACS")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_REQUESTED, on_requested)])
    try:
        settings = configured(tmp_path, peer=server.server_address[1])
        words = statement(settings)
        for destination in settings.destinations:
            asked.clear()
            with pytest.raises(HilumError, match=r"does not accept|UPS"):
                channel(destination, settings).check()
            (contexts,) = asked.values()
            section = words.split(f"\nTo {destination.name} (")[1].split("\nTo ")[0].split("\n#")[0]
            stated = re.findall(r"\| ([0-9.]+) \| [^|]+ \| ([0-9.]+) \|$", section, re.MULTILINE)
            assert sorted(stated) == sorted(contexts)
    finally:
        server.shutdown()
    ((class_uid, version),) = identities
    assert re.search(rf"^\| Implementation Class UID \| [0-9.]+ \| {re.escape(class_uid)} \|", words, re.MULTILINE)
    assert re.search(rf"^\| Implementation Version Name \| \S+ \| {re.escape(version)} \|", words, re.MULTILINE)


def test_all_sections_of_the_template_are_there_and_tables_are_whole(settings: Settings) -> None:
    words = statement(settings)
    for title in (
        "1 Overview",
        "2 Table",
        "3 Intro",
        "4 Implementation",
        "5 Service",
        "6 Config",
        "7 Network",
        "8 Sec",
    ):
        assert f"\n## {title}" in words
    columns = 0
    for line in words.splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not cells or not columns or cells == columns, line
        columns = cells
    assert "normal" not in words.lower().replace("abnormal", "")
    assert set(known_storage()) <= set(accepted_by(words))


def test_the_command_writes_it(tmp_path: Path) -> None:
    configured(tmp_path)
    run = CliRunner().invoke(app, ["conformance", "-c", str(tmp_path / "hilum.toml"), "-o", str(tmp_path / "c.md")])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "c.md").read_text(encoding="utf-8").startswith("# DICOM Conformance Statement")
    fault = CliRunner().invoke(app, ["conformance", "-c", str(tmp_path / "hilum.toml"), "-o", str(tmp_path)])
    assert fault.exit_code == 2
