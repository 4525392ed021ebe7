"""A training run started, watched, cancelled and resumed in a browser; the trainer is real, its training a script."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from schemas.person import Role
from tests.browser import Server, blameless, entered
from tests.training.test_trainer import FINISH, child
from tests.unit.worklist.ward import Ward
from training.runs import Runs
from training.trainer import Trainer

EPOCHS = """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if (folder / "again").exists():
        (folder / "report.html").write_text("<style>h1 { color: teal }</style><h1>How it went</h1>")
        say(task="done")
        sys.exit(0)
    (folder / "again").touch()
    history = folder / "multilabel" / "64px" / "history.json"
    history.parent.mkdir(parents=True)
    told = []
    for epoch in (1, 2, 3):
        told.append({"epoch": epoch, "loss": 0.7 / epoch, "auroc": 0.6 + epoch / 50, "films_per_second": 70.5})
        history.write_text(json.dumps(told))
        print(f"epoch {epoch} has ended", flush=True)
        say(task="multilabel", stage="64px", epoch=epoch, epochs=3, step=10 * epoch, steps=30, loss=0.7 / epoch,
            films_per_second=70.5, seconds_left=60 * (3 - epoch))
        while not (folder / f"go{epoch}").exists():
            time.sleep(0.02)
    time.sleep(600)
"""


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    (tmp_path / "films").mkdir()
    yield made
    made.close()


@pytest.fixture
def page(browser: Browser, server: Server, ward: Ward) -> Iterator[Page]:
    """An administrator's. At the end: nothing was said on the console, and no rule of the policy was broken."""

    def spared(message: ConsoleMessage) -> bool:
        return "status of 422" in message.text  # what was filled in wrongly on purpose

    with blameless(entered(browser, server, ward, Role.ADMINISTRATOR), spared) as opened:
        opened.set_default_timeout(60_000)
        opened.goto(server.url + "training")
        yield opened


@pytest.fixture
def trainer(ward: Ward) -> Iterator[threading.Thread]:
    """Not started."""
    over = threading.Event()
    queue = Runs(f"sqlite:///{ward.folder / 'hilum.db'}")
    works = Trainer(
        queue,
        ward.folder / "runs",
        command=child(FINISH, EPOCHS),
        stopping=over.is_set,
        clock=lambda: ward.now,
        beat=0.05,
        idle=0.05,
    )
    thread = threading.Thread(target=works.work)
    yield thread
    over.set()
    if thread.ident is not None:
        thread.join(60)
    queue.close()


def test_a_run_is_started_watched_cancelled_resumed_and_read_of(
    ward: Ward, page: Page, trainer: threading.Thread
) -> None:
    expect.set_options(timeout=60_000)
    expect(page.get_by_text("No trainer is there")).to_be_visible()
    trainer.start()
    expect(page.get_by_text("1 trainer there")).to_be_visible()  # without a reload
    page.reload()  # the form knows the presets of the trainer from now on
    page.get_by_label("Preset").select_option("quick")
    page.get_by_label("Folder of films").fill(str(ward.folder / "films"))
    page.get_by_label("Name of the run").fill("browser")
    page.keyboard.press("Enter")

    expect(page.locator("h1")).to_have_text("Run 1 browser")
    page.evaluate("window.sameDocument = true")
    folder = ward.folder / "runs" / "00001-browser"
    dots = page.locator("svg[aria-label^='loss of the multilabel model'] circle")
    expect(dots).to_have_count(1)
    expect(page.locator(".run-state")).to_have_text("running")
    expect(page.locator(".so-far")).to_contain_text(
        "multilabel 64px, epoch 1 of 3 70.5 films/s 2 min left of this stage"
    )
    expect(page.locator("progress")).to_have_attribute("value", "20.0")  # 1 of 5 epochs
    expect(page).to_have_title("(20 %) hilum training 1")
    page.locator("#cancel").focus()
    (folder / "go1").touch()
    expect(dots).to_have_count(2)
    (folder / "go2").touch()
    expect(dots).to_have_count(3)
    expect(page.locator("progress")).to_have_attribute("value", "60.0")
    expect(page.locator(".log")).to_contain_text("epoch 3 has ended")
    expect(page.locator("#cancel")).to_be_focused()  # each change swapped the page under it
    assert page.evaluate("window.sameDocument")

    page.keyboard.press("Enter")
    expect(page.locator(".run-state")).to_have_text("cancelled")
    expect(dots).to_have_count(3)  # what was told stays
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".run-state")).to_have_text("done")
    expect(page.locator("#result + dl")).to_contain_text("mean AUROC of the findings0.70 (0.60 to 0.80)")
    page.get_by_role("link", name="Open the report").click()
    expect(page.get_by_role("heading", name="How it went")).to_have_css("color", "rgb(0, 128, 128)")
    page.go_back()
    page.keyboard.press("Escape")
    expect(page.locator("main")).to_be_visible()


def test_what_is_being_written_outlives_the_news(ward: Ward, page: Page, trainer: threading.Thread) -> None:
    expect.set_options(timeout=60_000)
    page.get_by_label("Name of the run").fill("half wri")
    trainer.start()
    expect(page.get_by_text("1 trainer there")).to_be_visible()
    expect(page.get_by_label("Name of the run")).to_have_value("half wri")
    expect(page.get_by_label("Name of the run")).to_be_focused()


def test_the_calendar_by_keyboard(page: Page) -> None:
    page.get_by_label("Preset").fill("quick")
    page.get_by_label("Folder of films").fill("/films")
    page.get_by_label("or regularly").fill("0 2 * * 0")
    page.get_by_role("button", name="Put into the calendar").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("name the weekdays")
    page.get_by_label("or regularly").fill("0 2 * * sun")
    page.get_by_role("button", name="Put into the calendar").press("Enter")
    expect(page.locator("section[aria-labelledby=calendar] tbody tr")).to_contain_text("0 2 * * sun")
    page.get_by_role("button", name="Take quick off the calendar").press("Enter")
    expect(page.get_by_text("Nothing is asked for regularly")).to_be_visible()
