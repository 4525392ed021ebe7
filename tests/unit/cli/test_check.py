"""`hilum check` of the ports that will be listened on."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.errors import ConfigurationError, TransientFailure
from worker.cli import check
from worker.cli.check import Doubt, opens
from worker.cli.main import app


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        yield door.getsockname()[1]


def test_a_port_that_is_free_in_use_or_nobodys(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        free = door.getsockname()[1]
    assert opens("dicom", "127.0.0.1", free) == f"127.0.0.1:{free} is free"
    assert opens("dicom", "127.0.0.1", 0) == "any free port"
    for host in ("127.0.0.1", "0.0.0.0", "localhost"):
        with pytest.raises(Doubt, match=rf"{host}:{taken} is in use \(is hilum running already\?\)"):
            opens("dicom", host, taken)
    with pytest.raises(ConfigurationError, match=r"mend \[web\] host"):
        opens("web", "192.0.2.1", free)  # RFC 5737: nobody's
    with pytest.raises(ConfigurationError, match=r"mend \[web\] host"):
        opens("web", "nowhere.invalid", free)

    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    with pytest.raises(Doubt, match="account"):
        opens("dicom", "127.0.0.1", 104)


@pytest.mark.parametrize("fails", [False, True])
def test_a_note_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    def doubt() -> str:
        raise Doubt("it is [in] use")

    def fault() -> str:
        raise TransientFailure("nobody is there")

    proofs: list[tuple[str, Callable[[], str]]] = [("port of [dicom]", doubt), ("decoders", lambda: "all")]
    monkeypatch.setattr(check, "_checks", lambda _: iter([*proofs, ("destination pacs", fault)] if fails else proofs))
    (tmp_path / "hilum.toml").write_text("")
    run = CliRunner().invoke(app, ["check", "--config", str(tmp_path / "hilum.toml")])
    lines = ["ok   configuration", "note port of [dicom]: it is [in] use", "ok   decoders: all"]
    assert run.output.splitlines() == [*lines, *(["FAIL destination pacs: nobody is there"] if fails else [])]
    assert run.exit_code == (1 if fails else 0)


def test_every_port_of_the_configuration_is_tried(tmp_path: Path, taken: int) -> None:
    (tmp_path / "hilum.toml").write_text(
        f'[dicom]\nport = {taken}\n[hl7]\nenabled = true\nport = 0\n[database]\nurl = "sqlite:///{tmp_path}/none.db"\n'
        f'[model]\nbundle = "nowhere"\nstore = "{tmp_path}"\n[spool]\npath = "{tmp_path}/spool"\nwatermark_mib = 0\n'
    )
    run = CliRunner().invoke(app, ["check", "--config", str(tmp_path / "hilum.toml")])
    assert f"note port of [dicom]: 127.0.0.1:{taken} is in use" in run.output
    assert "port of [web]: 127.0.0.1:8080 " in run.output
    assert "ok   port of [hl7]: any free port" in run.output
