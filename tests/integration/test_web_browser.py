"""The worklist page in a real browser, on a real record: live, harmless, and usable by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from schemas.not_analysed import NotAnalysed
from tests.browser import CONTRAST, VIOLATIONS, Server, blameless, entered
from tests.unit.worklist.ward import EFFUSION, PNEUMOTHORAX, Ward, not_read, read
from worker.worklist.web.words import person


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.close()


@pytest.fixture
def page(browser: Browser, server: Server, ward: Ward) -> Iterator[Page]:
    """The worklist, open. At the end: nothing was said on the console, and no rule of the policy was broken."""

    def spared(message: ConsoleMessage) -> bool:
        # The films of this record were never on a disk: that their pixels are asked for in vain is no fault. Nor is a
        # server that is stopped by a test.
        return message.location["url"].endswith("/pixels") or "ERR_" in message.text

    with blameless(entered(browser, server, ward), spared) as opened:
        opened.goto(server.url)
        expect(opened.locator("#link")).to_have_attribute("data-state", "live")
        yield opened


def test_a_new_study_appears_without_reload(ward: Ward, page: Page) -> None:
    expect(page.get_by_text("No study is waiting")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    ward.receive(1, "PHANTOM^FIRST")
    expect(page.locator("tr[data-key]")).to_contain_text("PHANTOM, FIRST")
    expect(page.locator("tr[data-key]")).to_contain_text("being read")
    ward.conclude(read(EFFUSION))
    expect(page.locator(".group-urgent")).to_contain_text("effusion 0.83")
    ward.study(2, read(PNEUMOTHORAX), "PHANTOM^SECOND")
    expect(page.locator("tr[data-key]")).to_have_count(2)
    expect(page.locator("tr[data-key]").first).to_contain_text("PHANTOM, SECOND")  # overtook the first
    expect(page).to_have_title("(1 STAT) hilum worklist")
    assert page.evaluate("window.sameDocument")


def test_who_is_turned_away_appears_without_reload(ward: Ward, page: Page) -> None:
    ward.turn_away()
    expect(page.locator("#door")).to_contain_text("set the called AE title of the sender to HILUM")


def test_a_delivery_is_told_without_reload(ward: Ward, page: Page) -> None:
    ward.study(1, read(EFFUSION))
    expect(page.locator(".told")).to_contain_text("pacs waiting")
    ward.deliver()
    expect(page.locator(".told")).to_contain_text("pacs told")


@pytest.mark.parametrize(
    "hostile",
    [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        '"><svg onload=alert(1)>',
        "</table><iframe srcdoc='<script>parent.alert(1)</script>'>",
    ],
)
def test_hostile_names_do_not_become_markup(ward: Ward, page: Page, hostile: str) -> None:
    foreign = page.locator("img, iframe, script:not([src^='/static/'])")
    expect(foreign).to_have_count(0)
    ward.study(1, not_read(NotAnalysed.UNREADABLE, hostile), hostile, patient_id=hostile, study_description=hostile)
    ward.turn_away(hostile, hostile)
    expect(page.locator("tr[data-key] .patient")).to_contain_text(hostile)  # by the swap
    expect(page.locator("#door")).to_contain_text(hostile)
    page.reload()
    expect(page.locator("tr[data-key] .patient")).to_contain_text(hostile)  # and by the server
    page.locator("tr[data-key] a").click()
    expect(page.locator("h1")).to_have_text(person(hostile))
    expect(page.locator(".identity")).to_contain_text(hostile)
    expect(foreign).to_have_count(0)


def test_the_policy_stops_what_is_inline(browser: Browser, server: Server, ward: Ward) -> None:
    """The canary of the other tests: a violation is noticed."""
    context = entered(browser, server, ward)
    opened = context.new_page()
    opened.add_init_script(VIOLATIONS)
    opened.goto(server.url)
    opened.evaluate(
        """() => {
            try { document.body.innerHTML = "<p>markup</p>"; } catch { /* Trusted Types */ }
            document.body.setAttribute("style", "color: red");
        }"""
    )
    expect(opened.locator("p", has_text="markup")).to_have_count(0)
    opened.wait_for_function("window.violations.length === 2")
    assert set(opened.evaluate("window.violations")) == {"require-trusted-types-for", "style-src-attr"}
    context.close()


def test_keys_move_and_open(ward: Ward, page: Page) -> None:
    ward.study(1, read(), "PHANTOM^LATER", ago=timedelta(minutes=1))
    ward.study(2, read(PNEUMOTHORAX), "PHANTOM^FIRST")
    expect(page.locator("tr[data-key]")).to_have_count(2)
    page.keyboard.press("ArrowDown")
    expect(page.locator("tr[data-key]").nth(0).locator("a")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator("tr[data-key]").nth(1).locator("a")).to_be_focused()
    ward.study(3, read(EFFUSION), "PHANTOM^BETWEEN")  # the list moves, the focus stays with its study
    expect(page.locator("tr[data-key]")).to_have_count(3)
    expect(page.get_by_role("link", name="PHANTOM, LATER")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("PHANTOM, LATER")
    page.keyboard.press("Escape")
    expect(page.locator("tr[data-key]")).to_have_count(3)


def test_the_whole_row_opens_the_study_and_it_is_live_too(ward: Ward, page: Page) -> None:
    ward.study(1, read(), "PHANTOM^ONE")
    state = page.locator("tr[data-key] .state").bounding_box()
    assert state is not None
    page.mouse.click(state["x"] + 5, state["y"] + 5)
    expect(page.locator("h1")).to_have_text("PHANTOM, ONE")
    ward.study(1, read(PNEUMOTHORAX))
    expect(page.locator(".head")).to_contain_text("STAT")
    expect(
        page.locator("section", has=page.get_by_role("heading", name="Revisions")).locator("tbody tr")
    ).to_have_count(2)


def test_a_list_that_is_no_longer_live_says_so_and_recovers(ward: Ward, server: Server, page: Page) -> None:
    ward.study(1, read(), "PHANTOM^ONE")
    expect(page.locator("tr[data-key]")).to_have_count(1)
    server.stop()
    expect(page.locator("#link")).to_contain_text("no connection to hilum: list as of")
    expect(page.locator("tr[data-key]")).to_have_count(1)  # what was known stays in sight
    ward.study(2, read(PNEUMOTHORAX), "PHANTOM^TWO")
    server.start()
    expect(page.locator("tr[data-key]")).to_have_count(2, timeout=30_000)
    expect(page.locator("#link")).to_have_text("live")


def test_a_connection_that_died_unnoticed_is_made_anew(browser: Browser, server: Server, ward: Ward) -> None:
    context = entered(browser, server, ward)
    opened = context.new_page()
    opened.clock.install()
    opened.goto(server.url)
    expect(opened.locator("#link")).to_have_attribute("data-state", "live")
    with opened.expect_request("**/events"):
        opened.clock.fast_forward(40_000)  # the page's own clock: nothing was heard for so long
    expect(opened.locator("#link")).to_have_attribute("data-state", "live")
    context.close()


def test_a_hidden_page_lets_its_connection_go(browser: Browser, ward: Ward, server: Server) -> None:
    """Seven worklists in one browser: it allows six connections to a host, and the seventh must load all the same."""
    context = entered(browser, server, ward)
    pages = [context.new_page() for _ in range(7)]
    for opened in pages:
        opened.add_init_script("Object.defineProperty(document, 'hidden', { get: () => window.away ?? false })")
        opened.goto(server.url)
        expect(opened.locator("#link")).to_have_attribute("data-state", "live")
        if opened is not pages[-1]:
            opened.evaluate("window.away = true; document.dispatchEvent(new Event('visibilitychange'))")
    ward.study(1, read(), "PHANTOM^ONE")
    expect(pages[-1].locator("tr[data-key]")).to_have_count(1)
    expect(pages[0].locator("tr[data-key]")).to_have_count(0)
    pages[0].evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    expect(pages[0].locator("tr[data-key]")).to_have_count(1)
    context.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_colours_have_contrast(browser: Browser, ward: Ward, server: Server, scheme: str) -> None:
    """Every text has at least 4.5 : 1 against what is behind it (WCAG 2.2, 1.4.3)."""
    ward.study(1, read(PNEUMOTHORAX), ago=timedelta(minutes=5))
    ward.study(2, read(EFFUSION))
    ward.study(3, not_read(NotAnalysed.LATERAL))
    ward.turn_away()
    colours: Any = scheme
    context = entered(browser, server, ward, color_scheme=colours, reduced_motion="reduce")
    opened = context.new_page()
    opened.goto(server.url)
    expect(opened.locator("tr[data-key]")).to_have_count(3)
    poor = opened.evaluate(CONTRAST)
    context.close()
    assert poor == []
