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
from pathlib import Path
from typing import Any

from schemas.lifecycle import OutboxState
from worker.record.database import Database
from worker.record.outbox import Outbox

HILUM = Path(sys.executable).with_name("hilum")
STORESCU = "/usr/bin/storescu"  # dcmtk's; pynetdicom hides it on the PATH

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
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until(what: str, probe: Any, timeout: float = 60.0, every: float = 0.05) -> Any:
    """The first true answer of `probe`; fails with `what` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s for: {what}")
        time.sleep(every)


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

    def worklist(self) -> dict[str, dict[str, Any]]:
        """`hilum worklist --json`, keyed by study."""
        lines = self.run("worklist", "--json", "--limit", "10000").stdout.splitlines()
        return {row["study_uid"]: row for row in map(json.loads, lines)}

    def results(self, study_uid: str) -> dict[str, Any]:
        """`hilum results`."""
        story: dict[str, Any] = json.loads(self.run("results", study_uid, "--json").stdout)
        return story

    def undelivered(self) -> int:
        """Flags that are still on their way to some destination."""
        record = Database(self.database)
        counts = Outbox(record).counts().get("pacs", {})
        record.close()
        return counts.get(OutboxState.PENDING, 0) + counts.get(OutboxState.SENDING, 0)

    def get(self, path: str) -> Any:
        """JSON from the web API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=10) as answer:
            return json.loads(answer.read())


def storescu(
    port: int, files: Sequence[Path], *options: str, ae_title: str = "HILUM"
) -> subprocess.CompletedProcess[str]:
    """dcmtk sends `files` on one association, each in its own transfer syntax."""
    command = [STORESCU, "-v", "-aec", ae_title, *options, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
