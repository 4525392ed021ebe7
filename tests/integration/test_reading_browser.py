"""Readers at work in real browsers: claiming, reading and undoing by keyboard, two of them, and nobody who may not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from schemas.flag import Withdrawal
from schemas.not_analysed import NotAnalysed
from schemas.person import Role
from tests.browser import Server, entered
from tests.unit.worklist.ward import EFFUSION, PNEUMOTHORAX, Ward, not_read, read
from worker.worklist import passwords


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    made.study(1, read(PNEUMOTHORAX), "PHANTOM^ONE", ago=timedelta(minutes=41))
    made.study(2, read(EFFUSION), "PHANTOM^TWO", ago=timedelta(minutes=5))
    made.study(3, not_read(NotAnalysed.LATERAL), "PHANTOM^THREE")
    yield made
    made.close()


def opened(browser: Browser, server: Server, ward: Ward, name: str, path: str = "") -> Page:
    page = entered(browser, server, ward, name=name).new_page()
    page.goto(server.url + path)
    return page


def row(page: Page, name: str) -> Any:
    return page.locator("tr[data-key]", has_text=name)


def test_two_readers_see_each_others_claims(browser: Browser, server: Server, ward: Ward) -> None:
    one, two = (opened(browser, server, ward, name) for name in ("Dr One", "Dr Two"))
    for page in (one, two):
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
    one.keyboard.press("j")
    one.keyboard.press("c")
    expect(row(one, "PHANTOM, ONE").locator(".reader")).to_have_text("you")
    expect(row(two, "PHANTOM, ONE").locator(".reader")).to_have_text("Dr One")
    two.keyboard.press("j")
    two.keyboard.press("c")
    expect(two.locator("#said")).to_have_text("Dr One has claimed it")
    one.keyboard.press("c")  # given up
    expect(row(two, "PHANTOM, ONE").locator(".reader")).not_to_have_text("Dr One")


def test_read_and_undo_by_keyboard_on_the_list(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, "Dr One")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    page.keyboard.press("j")
    page.keyboard.press("r")
    expect(row(page, "PHANTOM, ONE")).to_have_count(0)
    expect(row(page, "PHANTOM, TWO").locator("a")).to_be_focused()
    page.keyboard.press("u")
    expect(row(page, "PHANTOM, ONE")).to_have_count(1)


def test_agree_and_disagree_are_kept_as_labels(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, "Dr One", "studies/2.25.1")
    expect(page.locator("h1")).to_have_text("PHANTOM, ONE")
    page.keyboard.press("a")
    page.wait_for_url(server.url)
    expect(row(page, "PHANTOM, ONE")).to_have_count(0)
    page.goto(server.url + "studies/2.25.2")
    page.keyboard.press("d")
    page.get_by_label("Cardiomegaly").check()
    page.get_by_role("button", name="Read, disagree").click()
    page.wait_for_url(server.url)
    said = [(f.study_uid, f.judgement.value, list(map(str, f.findings))) for f in ward.desk().readings.feedback()]
    assert said == [("2.25.1", "agree", []), ("2.25.2", "disagree", ["Cardiomegaly"])]


def test_search_by_key_and_a_view_that_is_kept(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, "Dr One")
    page.keyboard.press("/")
    page.keyboard.type("two phantom")
    page.keyboard.press("Enter")
    expect(page.locator("tr[data-key]")).to_have_count(1)
    page.get_by_placeholder("name of this view").fill("twos")
    page.get_by_role("button", name="Keep view").click()
    page.goto(server.url)
    expect(page.locator("tr[data-key]")).to_have_count(3)
    page.get_by_role("link", name="twos").click()
    expect(page.locator("tr[data-key]")).to_have_count(1)


def test_an_idle_browser_locks_and_keeps_its_place(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, "Dr One", "studies/2.25.1")
    account = ward.people.named("Dr One")
    assert account is not None
    ward.people.rehash(account.id, passwords.hashed("a quiet reading room"))
    ward.now += timedelta(hours=1)
    page.reload()
    expect(page.get_by_role("heading", name="Locked")).to_be_visible()
    assert "PHANTOM" not in page.content()
    page.get_by_label("Password").fill("a quiet reading room")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("h1")).to_have_text("PHANTOM, ONE")


def test_a_flag_that_nobody_opened_stands_out(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, "Dr One")
    expect(row(page, "PHANTOM, ONE").locator(".unopened")).to_have_text("not opened")
    expect(row(page, "PHANTOM, TWO").locator(".unopened")).to_have_count(0)
    page.goto(server.url + "studies/2.25.1")
    page.goto(server.url)
    expect(row(page, "PHANTOM, ONE").locator(".unopened")).to_have_count(0)


PAGES = ("", "studies/2.25.1", "studies/2.25.3", "studies/2.25.1/disagree", "second-look", "people", "audit")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_nothing_on_any_page(browser: Browser, server: Server, ward: Ward, scheme: str) -> None:
    """WCAG 2.2 AA as far as axe-core can tell."""
    ward.turn_away()
    ward.withdraw(2, Withdrawal.PERSON)
    colours: Any = scheme
    context = entered(browser, server, ward, color_scheme=colours, bypass_csp=True, reduced_motion="reduce")
    context.clear_cookies()
    administrator = {"name": "hilum", "value": ward.session(Role.ADMINISTRATOR), "url": server.url}
    page = context.new_page()
    tags = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    for path in ("sign-in", *PAGES):
        if path == PAGES[0]:
            context.add_cookies([administrator])  # type: ignore[list-item]
        page.goto(server.url + path)
        found = Axe().run(page, options=tags)
        assert found.violations_count == 0, f"/{path}\n{found.generate_report()}"
    context.close()


def test_the_list_does_not_move_under_a_pointer_that_aims(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, "Dr One")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    box = page.locator("tr[data-key]").nth(1).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 10)
    ward.study(4, read(PNEUMOTHORAX), "PHANTOM^FOUR")
    counts = set()
    for step in range(8):
        page.mouse.move(box["x"] + 200 + step, box["y"] + 10)
        page.wait_for_timeout(100)
        counts.add(page.locator("tr[data-key]").count())
    assert counts == {3}
    expect(page.locator("tr[data-key]")).to_have_count(4)  # it rests


def test_a_study_is_taken_over_and_what_was_read_in_it_is_undone_from_the_list(
    browser: Browser, server: Server, ward: Ward
) -> None:
    ward.desk().readings.claim("2.25.1", "Dr Gone", ward.now)
    page = opened(browser, server, ward, "Dr One", "studies/2.25.1")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    page.keyboard.press("c")
    expect(page.locator("#said")).to_have_text("Dr Gone has claimed it")
    page.keyboard.press("Shift+C")
    expect(page.locator(".identity")).to_contain_text("Dr One")
    page.keyboard.press("r")
    page.wait_for_url(server.url)
    expect(page.locator("#said")).to_have_text("read; u takes it back")
    expect(row(page, "PHANTOM, ONE")).to_have_count(0)
    page.keyboard.press("u")
    expect(row(page, "PHANTOM, ONE")).to_have_count(1)


def test_what_came_since_the_page_was_drawn_is_not_read_with_it(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, "Dr One", "studies/2.25.2")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    page.route("**/studies/2.25.2", lambda route: route.abort())  # the page hears of nothing new
    ward.study(2, read(PNEUMOTHORAX), "PHANTOM^TWO")
    page.keyboard.press("r")
    expect(page.locator("#said")).to_have_text("something new was said of it since you looked: look again")
