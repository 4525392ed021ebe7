"""Chromium and the page served to it: what every test in a browser shares.

from tests.browser import browser, server  # noqa: F401  in a conftest; a module brings its own `ward`
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from schemas.person import Role
from tests.unit.worklist.ward import Ward

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
"""


class Server:
    """The page, served on a port that the system picks; can go away and come back on the same port."""

    def __init__(self, ward: Ward, **options: Any) -> None:
        """`options`: of `Ward.app`."""
        self._ward, self._options = ward, options
        self.port = 0
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(
            self._ward.app(**self._options), host="127.0.0.1", port=self.port, log_config=None, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Launched, and closed at the end."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for the tests of a module; each opens contexts of its own."""
    with chromium() as launched:
        yield launched


@pytest.fixture
def server(ward: Ward) -> Iterator[Server]:
    """The page on the test's record."""
    made = Server(ward)
    yield made
    made.stop()


def entered(
    browser: Browser, server: Server, ward: Ward, role: Role = Role.RADIOLOGIST, name: str = "", **options: Any
) -> BrowserContext:
    """A browser in which somebody of this role is signed in; `options`: of Playwright's context."""
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, "timezone_id": "UTC", **options})
    cookie = ward.session(role, name)
    context.add_cookies([{"name": "hilum", "value": cookie, "url": server.url, "httpOnly": True, "sameSite": "Lax"}])
    return context


def _nothing(_: ConsoleMessage) -> bool:
    return False


@contextmanager
def blameless(context: BrowserContext, spared: Callable[[ConsoleMessage], bool] = _nothing) -> Iterator[Page]:
    """A page. At the end: nothing was said on the console that is not `spared`, nothing failed in a script, no dialog
    opened, and no rule of the policy was broken."""
    opened = context.new_page()
    opened.add_init_script(VIOLATIONS)
    complaints: list[str] = []
    opened.on("console", lambda message: spared(message) or complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: (complaints.append("a dialog opened"), dialog.dismiss()))
    yield opened
    assert opened.evaluate("window.violations") == []
    assert complaints == []
    context.close()


# Every text has at least 4.5 : 1 against what is behind it (WCAG 2.2, 1.4.3); those that have not.
CONTRAST = """() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *:not(.none *)")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.className || e.tagName}: ${e.textContent.trim()} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
