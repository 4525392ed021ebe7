"""Both people's work on the running worker, in a real browser, with films that come by C-STORE."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Browser, Page, expect
from pynetdicom import AE

from tests.acceptance.harness import Hilum, until
from tests.acceptance.hospital import Hospital, phantom_films

PASSWORD = "a quiet reading room"
# When each row first stood in the page, in milliseconds of the machine's clock.
WATCH = """
window.seen = {};
const note = () => {
  for (const row of document.querySelectorAll("tr[data-key]")) {
    window.seen[row.dataset.key] ??= performance.timeOrigin + performance.now();
  }
};
document.addEventListener("DOMContentLoaded", () => {
  note();
  new MutationObserver(note).observe(document.body, { childList: true, subtree: true });
});
"""


@pytest.fixture
def hilum(hospital: Hospital) -> Hilum:
    """A running worker."""
    worker = hospital.hilum()
    worker.start()
    until("the page to open", lambda: "worklist at" in worker.log())
    return worker


def enter(browser: Browser, worker: Hilum) -> Page:
    """The administrator's first entry, by the link that the worker printed."""
    link = until("the first link", lambda: re.search(r"http://\S+/welcome/[\w-]+", worker.log())).group()
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.add_init_script(WATCH)
    page.goto(link)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.get_by_role("button", name="Enter").click()
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    return page


def store(worker: Hilum, path: Path) -> tuple[str, float]:
    """The study's UID, and when the C-STORE was answered, in seconds of the machine's clock."""
    film = pydicom.dcmread(path)
    ae = AE("ROOM1")
    ae.add_requested_context(film.SOPClassUID, film.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", worker.dicom_port, ae_title="HILUM")
    assert association.is_established
    status = association.send_c_store(film)
    answered = time.time()
    association.release()
    assert status.Status == 0x0000
    return str(film.StudyInstanceUID), answered


def test_a_film_that_is_sent_stands_in_the_list_and_is_claimed_read_and_told(
    browser: Browser, hilum: Hilum, tmp_path: Path
) -> None:
    page = enter(browser, hilum)
    took = []
    for path in phantom_films(tmp_path / "films", 5):
        uid, answered = store(hilum, path)
        page.wait_for_function("(uid) => uid in window.seen", arg=uid)
        took.append(page.evaluate("(uid) => window.seen[uid]", uid) - 1000 * answered)
    print(f"C-STORE answered to row in the page: {sorted(round(ms) for ms in took)} ms")
    until("every film to be read", hilum.settled)
    expect(page.locator("tr[data-key]")).to_have_count(5)
    first = page.locator("tr[data-key]").first
    uid = first.get_attribute("data-key")
    page.keyboard.press("j")
    page.keyboard.press("c")
    expect(first.locator(".reader")).to_have_text("you")
    page.keyboard.press("Enter")
    page.wait_for_url("**/studies/*")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    page.keyboard.press("a")
    expect(page.locator("tr[data-key]")).to_have_count(4)
    assert uid not in [row.get_attribute("data-key") for row in page.locator("tr[data-key]").all()]
    assert uid is not None
    assert hilum.results(uid)["read_by"] == "administrator"
    page.goto(page.url + "audit")
    for deed in ("signed in", "claimed", "looked", "read"):
        expect(page.locator("tbody")).to_contain_text(deed)
    page.context.close()


def test_the_first_link_works_once_and_a_restart_makes_no_other(browser: Browser, hilum: Hilum) -> None:
    page = enter(browser, hilum)
    link = re.search(r"http://\S+/welcome/[\w-]+", hilum.log())
    assert link is not None
    stranger = browser.new_context().new_page()
    stranger.goto(link.group())
    expect(stranger.locator("h1")).to_contain_text("This link was used")
    hilum.stop()
    hilum.start()
    until("the page to open", lambda: hilum.log().count("worklist at") == 2)
    assert hilum.log().count("/welcome/") == 1
    page.reload()
    expect(page.locator("#link")).to_have_attribute("data-state", "live")  # the session outlives the process
    stranger.context.close()
    page.context.close()
