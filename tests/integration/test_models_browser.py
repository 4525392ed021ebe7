"""The pages of the models in a real browser: promoted and rolled back by keyboard, nothing bars the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from schemas.person import Role
from schemas.registry import ModelReader, ModelState
from tests.browser import Server, blameless, entered
from tests.unit.worklist.test_models import LIVE, NEW, PROOF, A, B, version
from tests.unit.worklist.ward import EFFUSION, NOW, PNEUMOTHORAX, Ward, read
from worker.record.registry import Registry
from worker.record.shadow import Shadows

SCHEMES: tuple[Any, ...] = ("dark", "light")
PATHS = ("models", f"models/{A}", f"models/{B}", f"models/{B}/compare?days=30")


@pytest.fixture
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """The starter reads, its next version reads along and has read a night of films, an old one is retired."""
    made = Ward(tmp_path_factory.mktemp("models"))
    registry = Registry(made.database)
    registry.first("starter", LIVE, NOW - timedelta(days=40), [PROOF])
    old = registry.add("old", version("0.1.9"), who="bert", why="retrained on spring", now=NOW, proofs=[PROOF])
    registry.move(old.model_id, ModelState.RETIRED, who="bert", why="superseded", now=NOW)
    registry.add("next", NEW, who="bert", why="retrained with feedback", now=NOW, proofs=[PROOF])
    registry.move(B, ModelState.SHADOW, who="bert", why="to be seen on live films", now=NOW)
    registry.report(
        ModelReader(
            reader="reader-1/8d2f/4711/99", model_id=A, since=NOW, shadow_id=B, fault="", dropped=3, seen_at=NOW
        )
    )
    shadows = Shadows(made.database)
    for study in range(1, 31):
        aloud = (PNEUMOTHORAX,) if study % 9 == 1 else (EFFUSION,) if study % 5 == 1 else ()
        silent = (PNEUMOTHORAX,) if study % 9 == 1 else (EFFUSION,) if study % 7 == 1 else ()
        made.study(study, read(*aloud), ago=timedelta(minutes=11 * (31 - study) - 10 * (study % 2)))
        live, said = read(*aloud), read(*silent)
        said = replace(said, prediction=replace(said.prediction, model_id=B))
        shadows.keep(study, (said.prediction, said.decision), (live.prediction, live.decision), NOW)
    yield made
    made.close()


@pytest.fixture
def page(browser: Browser, server: Server, ward: Ward) -> Iterator[Page]:
    """An administrator's. At the end: nothing was said on the console, and no rule of the policy was broken."""
    with blameless(entered(browser, server, ward, Role.ADMINISTRATOR)) as opened:
        opened.goto(server.url + "models")
        yield opened


def test_promoted_and_rolled_back_by_keyboard(ward: Ward, page: Page) -> None:
    registry = Registry(ward.database)
    page.get_by_role("link", name="starter 0.2.1").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Promotion gate")).to_be_visible()
    expect(page.get_by_role("button", name="Promote now")).to_be_hidden()
    page.locator("summary", has_text="Promote…").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("as good, and more films")
    page.keyboard.press("Enter")
    expect(page.locator(".head")).to_contain_text("reads")
    assert registry.wanted() == (B, None)
    page.goto(page.url.rpartition("/")[0])
    page.locator("summary", has_text="Roll back to starter 0.2.0").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("too many flags at night")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".history").last).to_contain_text("too many flags at night")
    assert registry.wanted() == (A, None)


def test_a_roll_back_wants_a_reason(ward: Ward, page: Page) -> None:
    Registry(ward.database).promote(B, instead_of=A, who="bert", why="better", now=NOW)
    page.reload()
    page.locator("summary", has_text="Roll back").click()
    page.get_by_role("button", name="Roll back now").click()
    assert Registry(ward.database).wanted() == (B, None)
    page.locator(".confirm input[name=why]").fill("a reason")
    page.get_by_role("button", name="Roll back now").click()
    expect(page.locator(".live-name")).to_contain_text("starter 0.2.0")
    assert Registry(ward.database).wanted() == (A, None)


def test_what_was_live_at(page: Page) -> None:
    page.get_by_label("Moment, UTC").fill("2026-03-01T03:12:00")
    page.get_by_role("button", name="Look").click()
    expect(page.locator("#at [role=status]")).to_contain_text("starter 0.2.0")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_bars_the_way(browser: Browser, server: Server, ward: Ward, scheme: Any) -> None:
    """axe-core finds nothing; `bypass_csp` because it is a script of its own."""
    context = entered(browser, server, ward, Role.ADMINISTRATOR, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    for path in PATHS:
        page.goto(server.url + path)
        for summary in page.locator("summary").all():
            summary.click()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    context.close()


@pytest.mark.parametrize("path", PATHS)
def test_it_fits_a_phone_and_is_kept_as_a_picture(
    browser: Browser, server: Server, ward: Ward, path: str, tmp_path: Path
) -> None:
    context = entered(browser, server, ward, Role.AUDITOR, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(server.url + path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "normal" not in page.locator("body").inner_text().lower()
    name = path.partition("?")[0].replace("/", "-")
    page.screenshot(path=tmp_path / f"{name}-phone.png", full_page=True)
    context.close()
    for scheme in SCHEMES:
        context = entered(browser, server, ward, Role.ADMINISTRATOR, color_scheme=scheme)
        page = context.new_page()
        page.goto(server.url + path)
        page.screenshot(path=tmp_path / f"{name}-{scheme}.png", full_page=True)
        context.close()
