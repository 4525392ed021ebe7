"""The film viewer in a real browser, on the study page: every grey, by hand, by keyboard and by touch."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from schemas.activation import Activation
from schemas.errors import NotAnalysable
from schemas.gate import GateRules
from schemas.not_analysed import NotAnalysed
from schemas.original import FirstWindow, Function, Original
from tests.browser import CONTRAST, VIOLATIONS, Server
from tests.unit.decode.test_original import look
from tests.unit.worklist.ward import PNEUMOTHORAX, Ward, not_read, read
from worker.decode.film import read_film
from worker.decode.original import read_original
from worker.simulate import phantom
from worker.worklist.web.desk import Rules
from worker.worklist.web.film_stream import description

DESKTOP = {"width": 1600, "height": 1000}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@dataclass
class Films:
    """What the hospital keeps, by SOP Instance UID."""

    kept: dict[str, Callable[[], Original]] = field(default_factory=dict)
    looked: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)

    def original(self, _study: str, sop: str) -> Original | None:
        self.looked.append(sop)
        return self.kept[sop]() if sop in self.kept else None

    def activation(self, _study: str, _sop: str, finding: str) -> Activation:
        self.maps.append(finding)
        values = np.full((7, 7), -1.0, np.float32)
        if finding != "Edema":  # nothing speaks for that one
            values[2, 1], values[2, 2] = 4.0, 2.0
        return Activation(finding=finding, model_id="0123456789abcdef", values=values)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path)
    yield made
    made.close()


@pytest.fixture
def stock() -> Films:
    return Films()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A frontal film as large as they come; a lateral one; a signed one of which low values are bright."""
    folder = tmp_path_factory.mktemp("films")
    paths = [folder / f"{number}.dcm" for number in range(3)]
    for number, dataset in enumerate(
        (
            phantom.dataset(1, rows=3000, columns=2500, finding="pneumothorax"),
            phantom.dataset(2, rows=900, columns=700, view="LL"),
            phantom.dataset(3, rows=500, columns=400, photometric="MONOCHROME1", signed=True, window=False),
        )
    ):
        dataset.save_as(paths[number], enforce_file_format=True)
    return paths


@pytest.fixture
def study(ward: Ward, stock: Films, drawn: list[Path]) -> None:
    """The first of them was raised."""
    for path, outcome in zip(drawn, (read(PNEUMOTHORAX), not_read(NotAnalysed.LATERAL), read()), strict=True):
        sop = ward.receive(1).sop_uid
        ward.conclude(outcome)
        stock.kept[sop] = partial(read_original, path)


class Room:
    """Browsers on one server; whatever they complain of is a fault."""

    def __init__(self, ward: Ward, stock: Films, browser: Browser, *, research: bool) -> None:
        self._ward, self._browser = ward, browser
        self._server = Server(
            ward, original=stock.original, activation=stock.activation, rules=Rules(research=research)
        )
        self.url = self._server.url.rstrip("/")
        self.complaints: list[str] = []
        self._contexts: list[BrowserContext] = []

    def open(self, *, whole: bool = True, **options: Any) -> Page:
        context = self._browser.new_context(**{"viewport": DESKTOP, "color_scheme": "dark", **options})
        self._contexts.append(context)
        context.add_cookies([{"name": "hilum", "value": self._ward.session(), "url": self.url}])
        page = context.new_page()
        page.add_init_script(VIOLATIONS)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(f"{self.url}/studies/2.25.1")
        if whole:
            settled(page)
        return page

    def close(self) -> None:
        for context in self._contexts:
            for page in context.pages:
                assert page.evaluate("window.violations") == []
            context.close()
        self._server.stop()
        hint = "willReadFrequently"  # the tests read back, the viewer does not
        assert [c for c in self.complaints if "ERR_" not in c and hint not in c and "404" not in c] == []


@pytest.fixture
def room(ward: Ward, stock: Films, study: None, browser: Browser) -> Iterator[Room]:
    made = Room(ward, stock, browser, research=False)
    yield made
    made.close()


def settled(page: Page) -> None:
    """The whole film is here, and drawn as finely as it will be."""
    page.wait_for_selector("canvas[data-drawn=whole]")
    page.evaluate("() => new Promise((done) => setTimeout(done, 300))")


def colours(page: Page) -> NDArray[np.uint8]:
    """What the canvas shows, uint8 (device rows, device columns, 3)."""
    width, height, data = page.evaluate(
        """() => {
            const canvas = document.querySelector("canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let text = "";
            for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
            return [canvas.width, canvas.height, btoa(text)];
        }"""
    )
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def pixels(page: Page) -> NDArray[np.uint8]:
    """What of it is red: of greys all."""
    return colours(page)[..., 0]


def bare(page: Page) -> NDArray[np.uint8]:
    """Without the edge that has the scale, which is no part of the film."""
    return pixels(page)[:, :-100]


def center(page: Page) -> tuple[float, float]:
    box = page.locator("canvas").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Page, x: float, y: float, button: Any = "left") -> None:
    middle = center(page)
    page.mouse.move(*middle)
    page.mouse.down(button=button)
    page.mouse.move(middle[0] + x, middle[1] + y, steps=4)
    page.mouse.up(button=button)
    settled(page)


def words(page: Page) -> str:
    return page.locator(".film-window").inner_text()


def number(page: Page, name: str) -> float:
    return float(words(page).split(f"{name} ")[1].split()[0])


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_selector("canvas[data-drawn=whole]")
    settled(page)


def test_every_grey_is_the_one_that_the_models_saw(room: Room, drawn: list[Path]) -> None:
    """The whole way: file, decoder, packing, HTTP, unpacking, window, canvas; each film at one pixel for one."""
    page = room.open()
    for key, film in (("1", 0), ("2", 1), ("3", 2)):
        press(page, key, "z")
        shown = pixels(page)
        whole = look(read_original(drawn[film]))
        rows, columns = (min(a, b) for a, b in zip(shown.shape, whole.shape, strict=True))
        middle = [
            slice(n // 2 - m // 2 + 1, n // 2 + m // 2 - 1) for n, m in zip(shown.shape, (rows, columns), strict=True)
        ]
        wanted = [
            slice(n // 2 - m // 2 + 1, n // 2 + m // 2 - 1) for n, m in zip(whole.shape, (rows, columns), strict=True)
        ]
        found, right = shown[*middle].astype(int), whole[*wanted].astype(int)
        # The canvas may be an odd number of pixels wide: then the film lies half a pixel off, between two of its own.
        assert np.abs(found - right).mean() < 2.5, key
        assert np.corrcoef(found.ravel(), right.ravel())[0, 1] > 0.99, key


def test_the_film_that_raised_the_study_is_opened_whole(room: Room, stock: Films, drawn: list[Path]) -> None:
    page = room.open()
    expect(page.locator("[data-film][aria-pressed=true]")).to_have_text("1")
    expect(page.locator(".film-name")).to_have_text("film 1 of 3, PA")
    expect(page.get_by_role("img", name="film 1 of 3, PA, 2500 by 3000 pixels")).to_be_visible()
    assert stock.looked == ["2.25.1.1.1"]
    assert number(page, "window") == 4096
    shown = pixels(page)
    film = read_film(drawn[0], GateRules()).pixels
    height = shown.shape[0]
    width = round(height * 2500 / 3000)
    left = (shown.shape[1] - width) // 2
    small = np.asarray(Image.fromarray(film).resize((width, height), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - shown[:, left : left + width]).mean() < 2
    assert shown[:, : left - 2].max() == 0


def test_dragging_changes_window_and_level_and_pixels(room: Room) -> None:
    page = room.open()
    before = pixels(page)
    drag(page, -150, 0)
    assert number(page, "window") == pytest.approx(4096 * (1 - 150 / 500), abs=2)
    narrow = pixels(page)
    assert narrow.astype(float).std() > before.astype(float).std()  # more contrast
    drag(page, 0, -100)
    assert number(page, "level") < 2048
    assert pixels(page).mean() > narrow.mean()  # up is brighter
    page.get_by_role("button", name="Reset").click()
    settled(page)
    assert np.array_equal(pixels(page), before)


def test_up_is_brighter_whatever_the_polarity(room: Room) -> None:
    page = room.open()
    press(page, "3")
    before = pixels(page).mean()
    press(page, "ArrowUp", "ArrowUp")
    assert pixels(page).mean() > before
    press(page, "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown")
    assert pixels(page).mean() < before


def test_every_key(room: Room) -> None:
    page = room.open()
    expect(page.locator("canvas")).to_be_focused()  # without a mouse
    first = bare(page)
    for narrower, wider in (("ArrowLeft", "ArrowRight"), ("w", "W")):
        press(page, narrower)
        assert number(page, "window") == pytest.approx(4096 * 0.975, abs=1)
        press(page, wider)
        assert number(page, "window") == 4096
    for darker, brighter in (("ArrowDown", "ArrowUp"), ("l", "L")):
        press(page, darker)
        assert number(page, "level") == pytest.approx(2048 + 4096 * 0.025, abs=1)
        press(page, brighter)
        assert number(page, "level") == 2048
    press(page, "i")
    film = first > 0
    assert np.abs(bare(page)[film].astype(int) + first[film] - 255).max() <= 2
    assert "inverted" in words(page)
    expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")
    press(page, "w", "L", "x")
    assert np.array_equal(bare(page), first)
    press(page, "+", "+")
    assert number(page, "zoom") == pytest.approx(1.25**2 * 100 * first.shape[0] / 3000, abs=1)
    zoomed = bare(page)
    press(page, "Shift+ArrowRight")
    assert np.abs(bare(page)[:, :-40].astype(int) - zoomed[:, 40:]).mean() < 3  # moved, not changed
    assert not np.array_equal(bare(page), zoomed)
    press(page, "-", "0")
    assert np.array_equal(bare(page), first)
    press(page, "z")
    assert number(page, "zoom") == 100
    press(page, "?")
    expect(page.locator("#film-keys")).to_be_visible()
    press(page, "?")
    expect(page.locator("#film-keys")).to_be_hidden()
    press(page, "0", "p", "+", "ArrowRight")  # with the other tool arrows move
    assert number(page, "window") == 4096
    expect(page.get_by_role("button", name="Pan")).to_have_attribute("aria-pressed", "true")
    press(page, "2")
    expect(page.locator(".film-name")).to_have_text("film 2 of 3, LL")
    press(page, "1")
    assert number(page, "zoom") > 100 * first.shape[0] / 3000  # each film keeps its view


def test_the_whole_screen_for_the_film(room: Room) -> None:
    page = room.open()
    before = page.locator("canvas").bounding_box()
    press(page, "f")
    page.wait_for_function("document.fullscreenElement?.id === 'film'")
    settled(page)
    after = page.locator("canvas").bounding_box()
    assert before is not None
    assert after is not None
    assert after["height"] > before["height"]
    assert number(page, "zoom") > 100 * before["height"] / 3000  # it fits again
    assert pixels(page).shape == (round(after["height"]), round(after["width"]))
    press(page, "f")
    page.wait_for_function("document.fullscreenElement === null")


def test_escape_leaves_the_film_and_then_the_page(room: Room) -> None:
    page = room.open()
    page.keyboard.press("Escape")
    page.wait_for_url(f"{room.url}/")


def test_keys_of_the_page_reach_the_page(room: Room) -> None:
    """What is no key of the film's is the page's: c claims, although the film has the focus."""
    page = room.open()
    heard = "window.heard = []; document.addEventListener('keydown', (e) => window.heard.push(e.key))"
    page.evaluate(f"() => {{ {heard} }}")
    press(page, "i", "w", "j", "?")
    assert page.evaluate("window.heard") == ["j"]


def test_wheel_zooms_at_the_pointer_and_double_click_fits(room: Room) -> None:
    page = room.open()
    first = pixels(page)
    x, y = center(page)
    spot = (x + 120, y - 90)
    page.mouse.move(*spot)
    value = page.locator(".film-value").inner_text()
    page.mouse.wheel(0, -240)
    settled(page)
    assert number(page, "zoom") > 1.3 * 100 * first.shape[0] / 3000
    page.mouse.move(spot[0] + 1, spot[1])
    page.mouse.move(*spot)
    place, now = (
        [int(n) for n in words.split(" at ")[1].split(", ")]
        for words in (value, page.locator(".film-value").inner_text())
    )
    assert np.abs(np.subtract(place, now)).max() <= 4
    page.mouse.dblclick(x, y)
    settled(page)
    assert np.array_equal(pixels(page), first)


@pytest.mark.parametrize("hand", ["right", "middle", "space"])
def test_dragging_otherwise_moves_the_film(room: Room, hand: str) -> None:
    page = room.open()
    press(page, "z")
    before = bare(page)
    if hand == "space":
        page.keyboard.down(" ")
        drag(page, 60, 40)
        page.keyboard.up(" ")
    else:
        drag(page, 60, 40, hand)
    assert np.array_equal(bare(page)[40:, 60:], before[:-40, :-60])
    assert number(page, "window") == 4096


def test_the_value_under_the_pointer(room: Room, drawn: list[Path]) -> None:
    page = room.open()
    page.mouse.move(*center(page))
    value, place = page.locator(".film-value").inner_text().split(" at ")
    column, row = (int(n) for n in place.split(", "))
    assert int(value) == read_original(drawn[0]).values[row, column]


def test_fingers_drag_and_pinch(room: Room) -> None:
    page = room.open(**PHONE)
    first = pixels(page)
    fit = number(page, "zoom")
    x, y = center(page)
    touch = page.context.new_cdp_session(page)

    def touches(kind: str, *points: tuple[float, float]) -> None:
        found = [{"x": px, "y": py, "id": n} for n, (px, py) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})

    touches("touchStart", (x, y))
    touches("touchMove", (x - 40, y))
    touches("touchMove", (x - 80, y))
    touches("touchEnd")
    settled(page)
    assert number(page, "window") == pytest.approx(4096 * (1 - 80 / 500), abs=30)
    assert page.evaluate("scrollY") == 0
    touches("touchStart", (x - 30, y), (x + 30, y))
    for apart in (40, 50, 60):
        touches("touchMove", (x - apart, y), (x + apart, y))
    touches("touchEnd")
    settled(page)
    assert number(page, "zoom") == pytest.approx(2 * fit, rel=0.1)
    window = number(page, "window")
    assert not np.array_equal(pixels(page), first)
    assert number(page, "window") == window
    wide = page.evaluate("document.querySelector('#film').scrollWidth <= document.querySelector('#film').clientWidth")
    assert wide


def test_the_viewer_outlives_the_pages_own_changes(room: Room, ward: Ward, stock: Films, drawn: list[Path]) -> None:
    """The live part is swapped when the record changes: window, zoom, focus and pixels stay, a new film is offered."""
    page = room.open()
    press(page, "w", "+", "i")
    before, said = pixels(page), words(page)
    sop = ward.receive(1).sop_uid
    ward.conclude(read())
    stock.kept[sop] = partial(read_original, drawn[1])
    expect(page.locator("[data-film]")).to_have_count(4)
    settled(page)
    assert words(page) == said
    assert np.array_equal(pixels(page), before)
    expect(page.locator("canvas")).to_be_focused()
    expect(page.locator("[data-film][aria-pressed=true]")).to_have_text("1")
    assert stock.looked == ["2.25.1.1.1"]  # nothing was fetched again
    press(page, "4")
    expect(page.locator(".film-name")).to_have_text("film 4 of 4, LL")


def test_what_cannot_be_shown_says_why(room: Room, stock: Films) -> None:
    def refuse() -> Original:
        raise NotAnalysable(NotAnalysed.COLOUR)

    stock.kept["2.25.1.1.2"] = refuse
    del stock.kept["2.25.1.1.3"]
    page = room.open()
    page.keyboard.press("2")
    expect(page.locator(".film-message")).to_have_text("this film cannot be shown: colour image")
    expect(page.locator(".film-spoken")).to_have_text("this film cannot be shown: colour image")
    page.keyboard.press("i")  # nothing to invert, nothing breaks
    page.keyboard.press("3")
    expect(page.locator(".film-message")).to_contain_text("its bytes were let go")
    press(page, "1")
    expect(page.locator(".film-message")).to_have_text("")
    room.complaints[:] = [c for c in room.complaints if "422" not in c]


def test_a_screen_reader_hears_the_end_of_a_change_once(room: Room) -> None:
    page = room.open()
    page.evaluate(
        """() => {
            window.spoken = [];
            const status = document.querySelector(".film-spoken");
            new MutationObserver(() => window.spoken.push(status.textContent)).observe(status, { childList: true });
        }"""
    )
    for _ in range(12):
        page.keyboard.press("w")
    expect(page.locator(".film-spoken")).to_contain_text(f"window {round(4096 * (1 - 12 * 0.025))}")
    page.wait_for_timeout(900)
    assert len(page.evaluate("window.spoken")) == 1


def test_triage_mode_shows_no_map(room: Room, stock: Films) -> None:
    page = room.open()
    expect(page.locator("[data-map], [data-opacity], [data-activation]")).to_have_count(0)
    assert stock.maps == []


def test_research_mode_lays_a_map_over_the_film(ward: Ward, stock: Films, study: None, browser: Browser) -> None:
    room = Room(ward, stock, browser, research=True)
    page = room.open()
    before = colours(page)[:, :-100]
    assert np.array_equal(before[..., 0], before[..., 2])  # grey
    chosen = page.get_by_role("combobox", name="Map")
    chosen.select_option("Pneumothorax")
    expect(page.locator(".film-map-said")).to_have_text("7 × 7 cells, strongest 4")
    settled(page)
    after = colours(page)[:, :-100].astype(int)
    warm = np.argwhere(after[..., 0] - after[..., 2] > 25)
    rows, columns = before.shape[:2]
    middle = warm.mean(0) / (rows, columns)
    assert 2 / 7 < middle[0] < 3 / 7  # where the two cells are
    assert middle[1] < 0.5
    page.get_by_role("slider", name="opacity").focus()
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    settled(page)
    assert np.array_equal(colours(page)[:, :-100], before)
    chosen.select_option("Edema")
    expect(page.locator(".film-map-said")).to_have_text("7 × 7 cells, nothing speaks for it")
    assert stock.maps == ["Pneumothorax", "Edema"]
    room.close()


def test_the_browsers_greys_are_ours(room: Room) -> None:
    """All that the page does with a value, for every value, window and kind, against `worker.decode.display`."""
    page = room.open()
    bent = tuple(round((n / 255) ** 1.7, 4) for n in range(256))
    for function, dtype in product(("LINEAR", "LINEAR_EXACT", "SIGMOID", "curve"), (np.uint8, np.uint16, np.int16)):
        limits = np.iinfo(dtype)
        window = FirstWindow(center=limits.max / 8, width=limits.max / 4, function="LINEAR_EXACT")
        if function == "curve":
            window = replace(window, curve=bent)
        else:
            window = replace(window, function=cast("Function", function))
        film = Original(
            values=np.arange(limits.min, limits.max + 1).astype(dtype).reshape(-1, 256),
            slope=0.5,
            intercept=-7.25,
            window=window,
            inverse=dtype is np.uint16,
            padding=(3, 9),
            spacing=None,
            spacing_at_detector=False,
            aspect=1.0,
            view="",
        )
        greys = page.evaluate(
            """async ([described, shift, count]) => {
                const { greys } = await import("/static/film-pixels.js");
                const film = { ...JSON.parse(described), shift };
                return Array.from(greys(film, film).subarray(0, count), (pixel) => pixel & 255);
            }""",
            [description(film), -limits.min, film.values.size],
        )
        off = np.abs(np.array(greys) - look(film).ravel().astype(int))
        assert off.max() <= 1, (function, dtype)


def test_a_frame_takes_no_longer_than_the_eye_allows(room: Room) -> None:
    """3000 x 2500 at the screen's size, a new window each time; the best of many, for others use the machine too."""
    page = room.open()
    took = page.evaluate(
        """async () => {
            const { viewers: [viewer] } = await import("/static/film.js");
            return Array.from({ length: 20 }, () => {
                viewer.shown.view.center += 3;
                const began = performance.now();
                viewer.draw();
                viewer.context.getImageData(0, 0, 1, 1); // until all of it is drawn
                return performance.now() - began;
            });
        }"""
    )
    assert min(took) < 30


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_everybody_can_use_it_and_it_looks_so(
    ward: Ward, stock: Films, study: None, browser: Browser, tmp_path: Path, scheme: Any
) -> None:
    """WCAG 2.2 AA as far as axe-core and contrast tell, on a desktop and a phone; the pictures are kept."""
    room = Room(ward, stock, browser, research=True)
    for name, options in (("desktop", {}), ("phone", PHONE)):
        page = room.open(color_scheme=scheme, bypass_csp=True, **options)  # axe-core is a script of its own
        page.screenshot(path=tmp_path / f"film-{name}-{scheme}.png")
        press(page, "?")  # its keys, over the film
        page.screenshot(path=tmp_path / f"film-{name}-{scheme}-keys.png")
        found = Axe().run(page, "#film", {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
        assert found.violations_count == 0, found.generate_report()
        if name == "desktop":
            assert page.evaluate(CONTRAST) == []
    room.close()
