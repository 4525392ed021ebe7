"""The real process under test: `hilum serve` in a folder of its own, killed and started at will."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydicom.filereader import read_file_meta_info

from schemas.lifecycle import OutboxState, StudyState
from tests.orthanc import free_ports
from tests.waiting import eventually
from worker.record.database import Database
from worker.record.outbox import Outbox
from worker.record.worklist import Worklist, WorklistRow

HILUM = Path(sys.executable).with_name("hilum")
STORESCU = "/usr/bin/storescu"  # dcmtk's; pynetdicom hides it on the PATH
DCMSEND = "/usr/bin/dcmsend"

CONFIG = """
[dicom]
port = {dicom}

[database]
url = "{database}"

[spool]
path = "{folder}/spool"
watermark_mib = 64

[web]
port = {web}

[reading]
quiet_seconds = 2

[[destinations]]
name = "pacs"
kind = "dicom-sr"
when = "analysed"
ae_title = "PACS"
port = {pacs}
"""


def free_port() -> int:
    """A loopback port that nobody listens on."""
    return free_ports(1)[0]


def until(what: str, probe: Any, timeout: float = 60.0, every: float = 0.05) -> Any:
    """The first true answer of `probe`; fails with `what` after `timeout` seconds."""
    return eventually(probe, timeout, f"waited for: {what}", every)


@dataclass
class Hilum:
    """One configured worker and its process."""

    folder: Path
    pacs_port: int
    database: str = ""
    extra: str = ""
    dicom_port: int = field(default_factory=free_port)
    web_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = self.database or f"sqlite:///{self.folder}/hilum.db"
        self.config = self.folder / "hilum.toml"
        self.config.write_text(
            CONFIG.format(
                dicom=self.dicom_port,
                web=self.web_port,
                pacs=self.pacs_port,
                database=self.database,
                folder=self.folder,
            )
            + self.extra
        )
        self.run("migrate")

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A `hilum` command on this worker's configuration."""
        command, *rest = args
        return subprocess.run(
            [HILUM, command, "--config", self.config, *rest], capture_output=True, text=True, check=check, timeout=300
        )

    def start(self, *, wait: bool = True) -> float:
        """Start `hilum serve`; seconds until the port is open."""
        log = (self.folder / "serve.log").open("ab")
        began = time.monotonic()
        self.process = subprocess.Popen([HILUM, "serve", "--config", self.config], stdout=log, stderr=log)
        log.close()
        if wait:
            until("the port to open", self.is_open, 60)
        return time.monotonic() - began

    def is_open(self) -> bool:
        """Whether the DICOM port answers; fails with the log when the process has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"hilum serve ended:\n{self.log()[-4000:]}")
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.dicom_port)) == 0

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process is None or self.process.poll() is not None:
            return -1
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def log(self) -> str:
        """What the process has said."""
        return (self.folder / "serve.log").read_text(errors="replace")

    @cached_property
    def record(self) -> Database:
        """The worker's database, looked at from outside."""
        return Database(self.database)

    def worklist(self) -> dict[str, WorklistRow]:
        """The open studies by UID."""
        return {row.study_uid: row for row in Worklist(self.record).rows(10_000)}

    def results(self, study_uid: str) -> dict[str, Any]:
        """The whole story of a study."""
        story = Worklist(self.record).results(study_uid)
        assert story is not None, study_uid
        return story

    def settled(self) -> bool:
        """Whether no film waits or is being read."""
        return all(row.state is not StudyState.RECEIVING for row in self.worklist().values())

    def undelivered(self) -> int:
        """Flags that are still on their way to some destination."""
        counts = Outbox(self.record).counts().get("pacs", {})
        return counts.get(OutboxState.PENDING, 0) + counts.get(OutboxState.SENDING, 0)

    def get(self, path: str) -> Any:
        """JSON from the web API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=10) as answer:
            return json.loads(answer.read())


# storescu proposes what it is told to: its option for each Transfer Syntax.
PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}


def storescu(
    port: int, files: Sequence[Path], *options: str, ae_title: str = "HILUM"
) -> subprocess.CompletedProcess[str]:
    """dcmtk sends `files`, all of one Transfer Syntax, on one association, each as it is.

    JPEG lossless process 14 with another selection value than 1 has no option: dcmtk's `dcmsend` takes it.
    """
    syntax = str(read_file_meta_info(files[0]).TransferSyntaxUID)
    command = [STORESCU, "-v", "-R", PROPOSE[syntax]] if syntax in PROPOSE else [DCMSEND, "-v", "--decompress-never"]
    command += ["-aec", ae_title, *options, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
