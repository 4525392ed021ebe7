"""A real Orthanc as the hospital's PACS: own folder, free ports, loopback, ended by its process id."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

BINARY = "/usr/sbin/Orthanc"


class Orthanc:
    """A running Orthanc; `modalities` maps its names of peers to (AE title, host, port)."""

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ORTHANC",
        modalities: Mapping[str, tuple[str, str, int]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if not Path(BINARY).is_file():
            pytest.fail(f"{BINARY} is missing: apt install orthanc")
        self.ae_title = ae_title
        self.host = "127.0.0.1"
        self.port, self.http_port = free_ports(2)
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "orthanc.log"
        config = folder / "orthanc.json"
        config.write_text(
            json.dumps(
                {
                    "Name": "hilum-test",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "index"),
                    "Plugins": [],
                    "HttpServerEnabled": True,
                    "HttpPort": self.http_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomServerEnabled": True,
                    "DicomAet": ae_title,
                    "DicomPort": self.port,
                    "DicomCheckCalledAet": True,
                    "DicomAlwaysAllowEcho": True,
                    "DicomAlwaysAllowStore": True,
                    "DicomModalities": {name: list(peer) for name, peer in (modalities or {}).items()},
                    "OverwriteInstances": True,
                    "StableAge": 1,
                    **(settings or {}),
                }
            ),
            encoding="utf-8",
        )
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([BINARY, str(config)], stdout=log, stderr=subprocess.STDOUT)
        self._await()

    def get(self, path: str) -> Any:
        """GET, JSON decoded."""
        return json.loads(self._request("GET", path))

    def get_bytes(self, path: str) -> bytes:
        """GET, as it comes: `/instances/{id}/file`."""
        return self._request("GET", path)

    def post(self, path: str, body: object) -> Any:
        """POST of bytes (a DICOM file to `/instances`) or of anything as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads(self._request("POST", path, data))

    def instances_of(self, study_uid: str) -> list[dict[str, Any]]:
        """Every instance of the study, as Orthanc describes them."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}, "Expand": True}
        found: list[dict[str, Any]] = self.post("/tools/find", query)
        return found

    def empty(self) -> None:
        """Forget every patient."""
        for patient in self.get("/patients"):
            self._request("DELETE", f"/patients/{patient}")

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _request(self, method: str, path: str, data: bytes | None = None) -> bytes:
        url = f"http://{self.host}:{self.http_port}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as answer:
            return bytes(answer.read())

    def _await(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            try:
                self.get("/system")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        self.stop()
        pytest.fail(f"Orthanc did not start:\n{self.log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def orthanc_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One for the tests of a module: to start and to end takes it seconds."""
    server = Orthanc(tmp_path_factory.mktemp("orthanc"))
    yield server
    server.stop()


@pytest.fixture
def orthanc(orthanc_of_module: Orthanc) -> Orthanc:
    """An empty one; import `orthanc_of_module` along with it."""
    orthanc_of_module.empty()
    return orthanc_of_module


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [int(held.getsockname()[1]) for held in sockets]
    for held in sockets:
        held.close()
    return ports
