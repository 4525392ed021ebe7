"""The policy in a real browser: a threshold is dragged and the preview follows; what it said is what is enacted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from schemas.decision import Policy
from schemas.person import Role
from tests.browser import Server, blameless, entered
from tests.unit.worklist.policies import past_week, policy_desk
from tests.unit.worklist.ward import Ward


class PolicyWard(Ward):
    """A ward with a policy's desk and a week behind it."""

    def app(self, **options: Any) -> FastAPI:
        return super().app(policy=policy_desk(self), **options)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    made = PolicyWard(tmp_path_factory.mktemp("policy"))
    past_week(made, 200)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(ward: Ward) -> Iterator[Server]:
    made = Server(ward)
    yield made
    made.stop()


def shown_by(page: Page, server: Server) -> Page:
    """The policy, with its preview."""
    page.goto(f"{server.url}policy")
    expect(page.locator("main")).to_have_attribute("data-shown", "1", timeout=20_000)
    return page


def opened(browser: Browser, server: Server, ward: Ward, role: Role, **options: Any) -> Page:
    return shown_by(entered(browser, server, ward, role, **options).new_page(), server)


@pytest.fixture
def page(browser: Browser, server: Server, ward: Ward) -> Iterator[Page]:
    """The policy, open to an administrator. At the end: no word on the console, no rule of the browser's broken."""

    def spared(message: ConsoleMessage) -> bool:
        return "422" in message.text  # what is no policy is refused by the server

    with blameless(entered(browser, server, ward, Role.ADMINISTRATOR), spared) as made:
        yield shown_by(made, server)


def rule(page: Page, output: str) -> Any:
    return page.locator(f"tr[data-output='{output}']")


def flags(page: Page) -> list[int]:
    """Before and after, as the preview has them."""
    words = page.locator("#preview dl div").first.inner_text()
    return [int(part) for part in words.replace("flags", "").split("→")]


def shown(page: Page) -> int:
    return int(page.locator("main").get_attribute("data-shown") or 0)


def settled(page: Page, before: int) -> None:
    """The preview has followed the latest edit."""
    page.wait_for_function("before => Number(document.querySelector('main').dataset.shown) > before", arg=before)


def test_a_threshold_that_is_dragged_in_its_curve_changes_the_preview(page: Page) -> None:
    before, after = flags(page)
    assert before == after > 0
    rule(page, "Pneumothorax").locator(".pick").click()
    box = page.locator("#curve svg").bounding_box()
    assert box is not None
    seen = shown(page)
    y = box["y"] + box["height"] / 3
    page.mouse.move(box["x"] + box["width"] * 0.3, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.48, y, steps=8)
    page.mouse.up()
    settled(page, seen)
    written = float(rule(page, "Pneumothorax").locator(".point input").input_value())
    assert 0.1 < written < 0.9
    expect(page.locator("#curve-words")).to_contain_text(f"From {written:g} on")
    page.wait_for_function("() => !document.querySelector('#preview').textContent.includes('0 lose')")
    assert flags(page)[1] < before
    rule(page, "Pneumothorax").locator(".to-card").click()
    expect(rule(page, "Pneumothorax").locator(".point input")).to_have_value("")
    page.wait_for_function("() => document.querySelector('#preview').textContent.includes('0 lose')")
    assert flags(page) == [before, before]


def test_a_threshold_is_moved_by_keyboard_and_by_number(page: Page) -> None:
    slider = rule(page, "Effusion").locator("input[type=range]")
    slider.focus()
    expect(page.locator("#curve-name")).to_have_text("Effusion")
    at = float(slider.get_attribute("aria-valuetext") or 0)
    page.keyboard.press("ArrowRight")
    number = rule(page, "Effusion").locator(".point input")
    moved = float(number.input_value())
    assert at < moved < at * 1.1
    number.fill("0.25")
    expect(slider).to_have_attribute("aria-valuetext", "0.25")
    seen = shown(page)
    number.fill("2")
    expect(page.locator("#preview")).to_contain_text("Effusion: threshold")
    number.fill("0.25")
    settled(page, seen)
    page.locator("button[type=reset]").click()
    expect(number).to_have_value("")


def test_the_preview_follows_quickly(page: Page) -> None:
    """From the edit to the drawn preview; machines that run tests are busy: the best of some counts."""
    took = []
    for threshold in ("0.05", "0.06", "0.07", "0.08"):
        seen = shown(page)
        began = time.perf_counter()
        rule(page, "Pneumothorax").locator(".point input").fill(threshold)
        settled(page, seen)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.5


def test_a_budget_is_drawn_as_a_line(page: Page) -> None:
    assert page.locator("line.budget").count() == 0
    page.locator("input[name=budget]").fill("0.1")
    expect(page.locator("#curve line.budget")).to_have_count(1)
    expect(page.locator("#hours-chart line.budget")).to_have_count(1)
    expect(page.locator("#preview")).to_contain_text("over the budget")


def test_an_edit_is_proposed_looked_at_and_enacted(page: Page, ward: Ward) -> None:
    seen = shown(page)
    rule(page, "Mass").locator("select").select_option("URGENT")
    settled(page, seen)
    dry = flags(page)
    page.locator("input[name=note]").fill("masses are read the same day")
    page.get_by_role("button", name="Dry run…").click()
    expect(page.locator("h1")).to_have_text("Policy 1")
    raised = page.locator("tr", has_text="Studies raised").locator("td").all_inner_texts()
    assert [int(x) for x in raised] == dry
    page.get_by_label("Why it comes into force").fill("agreed in the meeting")
    page.get_by_role("button", name="Enact policy 1").click()
    expect(page.locator("main")).to_contain_text("In force from")
    current = policy_desk(ward).policies.current(ward.now)
    assert current is not None
    assert current.number == 1


def test_who_may_not_change_it_looks_at_curves(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, Role.RADIOLOGIST)
    assert page.locator(".rule :is(select, input):enabled").count() == 0
    rule(page, "Nodule").locator(".pick").click()
    expect(page.locator("#curve-name")).to_have_text("Nodule")
    expect(page.locator("#curve-words")).to_contain_text("sensitivity")
    page.context.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_nothing_bars_the_way(browser: Browser, server: Server, ward: Ward, scheme: str) -> None:
    """axe-core finds nothing, on the table and on a policy's own page."""
    made = policy_desk(ward).policies.propose(Policy(findings={}), made_by="dr axe", note="", now=ward.now)
    for path in ("policy", "policy/0", f"policy/{made.number}"):
        page = opened(browser, server, ward, Role.ADMINISTRATOR, color_scheme=scheme, bypass_csp=True)
        if path != "policy":
            page.goto(server.url + path)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.context.close()


def test_it_fits_a_phone(browser: Browser, server: Server, ward: Ward) -> None:
    page = opened(browser, server, ward, Role.ADMINISTRATOR, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 390
    page.context.close()
