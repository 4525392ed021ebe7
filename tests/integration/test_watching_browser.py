"""The watching page in a real browser: two of them see each other's pause, by keyboard, and nothing bars the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from schemas.errors import TransientFailure
from schemas.findings import Label
from schemas.not_analysed import NotAnalysed
from schemas.person import Role
from schemas.readings import Judgement
from schemas.scanner import Scanner
from schemas.standing import Line, Standing
from schemas.watching import DriftRules
from tests.browser import Server, blameless, entered
from tests.unit.worklist.ward import EFFUSION, NOW, PNEUMOTHORAX, Ward, not_read, read
from worker.record.destinations import Destinations
from worker.record.drift import Drift
from worker.record.pauses import Pauses
from worker.record.readings import Readings
from worker.worklist.web.watch_desk import WatchDesk

SCHEMES: tuple[Any, ...] = ("dark", "light")
RULES = DriftRules(films=12, recent=timedelta(days=2), learning=timedelta(days=4))
ROOM = Scanner(manufacturer="Acme", model="DR 9000", view="PA", bits_stored=12)


class Watched(Ward):
    """Destinations that can be asked, one of which is there."""

    def watch(self, **options: Any) -> WatchDesk:
        return super().watch(configured=["pacs", "pager"], rules=RULES, test=ask, watermark=1 << 30, **options)


def ask(name: str) -> str:
    if name == "pager":
        raise TransientFailure("pager:443: nothing listens there: is it running?")
    return "C-ECHO 0x0000"


@pytest.fixture
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """A day of films, a scanner that has changed, a destination that is down, readers who spoke, a stranger."""
    made = Watched(tmp_path_factory.mktemp("watching"))
    drift, readings = Drift(made.database), Readings(made.database)
    for study in range(1, 15):
        flags = (PNEUMOTHORAX,) if study % 5 == 0 else (EFFUSION,) if study % 3 == 0 else ()
        made.study(study, replace(read(*flags), scanner=ROOM), ago=timedelta(hours=1.5 * study))
        made.deliver()
    for seconds in (1, 2):
        drift.watch(RULES, NOW + timedelta(seconds=seconds))
    for study in range(20, 60):
        made.study(study, replace(not_read(NotAnalysed.BLANK), scanner=ROOM), ago=timedelta(minutes=study))
    drift.watch(RULES, NOW + timedelta(seconds=3))
    for study, said in ((3, Judgement.AGREE), (5, Judgement.AGREE), (10, Judgement.DISAGREE)):
        readings.read(f"2.25.{study}", "anna", NOW - timedelta(hours=1), judgement=said, findings=[Label.MASS])
    made.study(70, read(PNEUMOTHORAX))
    for delivery in made.outbox.claim("pacs", "courier", 9, timedelta(minutes=1), NOW + timedelta(seconds=4)):
        made.outbox.refuse(delivery.id, "courier", "0x0122 SOP class not supported: accept Comprehensive SR", NOW)
    door = Destinations(made.database)
    door.note(Standing(destination="pacs", since=NOW))
    door.note(
        Standing(destination="pager", line=Line.OPEN, failures=4, since=NOW, last_error="503: ask whoever runs it")
    )
    pauses = Pauses(made.database)
    pauses.pause("bert", "a night of tests", NOW - timedelta(days=1))
    pauses.resume("bert", "over", NOW - timedelta(hours=20))
    made.turn_away()
    made.receive(80, ago=timedelta(minutes=4))
    yield made
    made.close()


@pytest.fixture
def page(browser: Browser, server: Server, ward: Ward) -> Iterator[Page]:
    """An administrator's. At the end: nothing was said on the console, and no rule of the policy was broken."""
    with blameless(entered(browser, server, ward, Role.ADMINISTRATOR)) as opened:
        opened.goto(server.url + "watching")
        yield opened


def test_a_pause_by_keyboard_is_seen_by_whoever_reads_the_list(
    browser: Browser, server: Server, ward: Ward, page: Page
) -> None:
    context = entered(browser, server, ward, Role.RADIOLOGIST)
    reader = context.new_page()
    reader.goto(server.url + "watching")
    expect(reader.locator(".watch-facts")).to_contain_text("go out")
    expect(reader.get_by_role("button", name="Pause flags")).to_have_count(0)
    page.get_by_label("Pause flags, because").focus()
    page.keyboard.type("a new detector in room 2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Resume flags")).to_be_visible()
    expect(reader.locator(".watch-facts")).to_contain_text("a new detector in room 2", timeout=3000)
    page.get_by_label("Resume, because").focus()
    page.keyboard.press("Enter")
    expect(reader.locator(".watch-facts")).to_contain_text("go out", timeout=3000)
    context.close()


def test_destinations_are_tested_and_replayed(ward: Ward, page: Page) -> None:
    page.get_by_role("button", name="Test pager").click()
    expect(page.locator("#destinations")).to_contain_text("pager:443: nothing listens there: is it running?")
    page.get_by_role("button", name="Test pacs").click()
    expect(page.locator("#destinations")).to_contain_text("C-ECHO 0x0000")
    page.get_by_role("button", name="Replay what pacs refused").click()
    expect(page.get_by_role("button", name="Replay what pacs refused")).to_have_count(0)


def test_what_comes_in_does_not_take_the_keyboard_away(ward: Ward, page: Page) -> None:
    page.locator("#test-pager").focus()
    ward.receive(81)
    expect(page.locator(".watch-facts")).to_contain_text("films waiting2", timeout=3000)
    expect(page.locator("#test-pager")).to_be_focused()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("paused", [False, True])
def test_nothing_bars_the_way(browser: Browser, server: Server, ward: Ward, scheme: Any, paused: bool) -> None:
    """axe-core finds nothing; `bypass_csp` because it is a script of its own."""
    if paused:
        Pauses(ward.database).pause("anna", "a new detector", NOW)
    context = entered(browser, server, ward, Role.ADMINISTRATOR, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(server.url + "watching")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    context.close()


def test_it_fits_a_phone_and_is_kept_as_a_picture(browser: Browser, server: Server, ward: Ward, tmp_path: Path) -> None:
    context = entered(browser, server, ward, Role.AUDITOR, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(server.url + "watching")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "normal" not in page.locator("body").inner_text().lower()
    page.screenshot(path=tmp_path / "watching-phone.png", full_page=True)
    context.close()
    for scheme in SCHEMES:
        context = entered(browser, server, ward, Role.ADMINISTRATOR, color_scheme=scheme)
        page = context.new_page()
        page.goto(server.url + "watching")
        page.screenshot(path=tmp_path / f"watching-{scheme}.png", full_page=True)
        context.close()


def test_a_notice_that_comes_with_time_alone_is_shown(browser: Browser, server: Server, ward: Ward) -> None:
    context = entered(browser, server, ward, Role.RADIOLOGIST)
    reader = context.new_page()
    reader.clock.install()
    reader.goto(server.url)
    expect(reader.locator(".notice")).to_have_count(0)
    ward.status["notices"] = ["hilum is behind: 3 films wait"]
    reader.clock.fast_forward(90_000)
    reader.clock.fast_forward(10_000)
    expect(reader.locator(".notice")).to_contain_text("hilum is behind", timeout=5000)
    context.close()
