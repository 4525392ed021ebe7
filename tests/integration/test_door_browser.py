"""The door in a real browser: by the first link in, locked by itself, in again at the same place, all by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from schemas.person import Role
from tests.browser import VIOLATIONS, Server
from tests.unit.worklist.ward import PNEUMOTHORAX, Ward, read
from worker.worklist.web.entry import digest, new_secret

PASSWORD = "a gate through which all enters"


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """One study, and somebody who was invited."""
    made = Ward(tmp_path)
    made.study(1, read(PNEUMOTHORAX))
    yield made
    made.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of somebody who is not signed in. At the end no rule of the policy was broken."""
    context = browser.new_context(timezone_id="UTC")
    opened = context.new_page()
    opened.add_init_script(VIOLATIONS)
    yield opened
    assert opened.evaluate("window.violations") == []
    context.close()


def welcome(ward: Ward, server: Server) -> str:
    secret = new_secret()
    person = ward.people.add("dr one", Role.RADIOLOGIST, ward.now)
    ward.people.invite(person.id, digest(secret), ward.now + timedelta(days=3))
    return f"{server.url}welcome/{secret}"


def focused(page: Page) -> None:
    """The field has the focus by itself: nobody need press anything before typing."""
    expect(page.locator("input[type=password]").first).to_be_focused()


def test_in_by_the_first_link_locked_by_itself_and_in_again_at_the_same_place(
    ward: Ward, server: Server, page: Page
) -> None:
    page.clock.install()
    page.goto(welcome(ward, server))
    focused(page)
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(server.url)
    page.goto(f"{server.url}?q=PHANTOM&urgency=STAT")
    expect(page.get_by_text("PHANTOM, ONE")).to_be_visible()

    ward.now += timedelta(minutes=31)
    page.clock.run_for(31_000)
    expect(page.get_by_role("heading", name="Locked")).to_be_visible()
    assert "PHANTOM, ONE" not in page.content()
    focused(page)
    page.keyboard.type("not the password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not right")
    focused(page)
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_text("PHANTOM, ONE")).to_be_visible()
    assert page.url == f"{server.url}?q=PHANTOM&urgency=STAT"

    page.get_by_role("button", name="Lock").press("Enter")
    expect(page.get_by_role("heading", name="Locked")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Locked")).to_be_visible()
    focused(page)
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Sign out").press("Enter")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert "PHANTOM, ONE" not in page.content()
