"""The film's way to the browser: every bit arrives, for whoever is signed in; maps in research mode alone."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray

from schemas.activation import Activation
from schemas.errors import ModelError, NotAnalysable
from schemas.findings import LABELS
from schemas.not_analysed import NotAnalysed
from schemas.original import FirstWindow, Original
from schemas.person import Role
from tests.unit.worklist.ward import PNEUMOTHORAX, Ward, not_read, read
from worker.record.audit import Audit
from worker.worklist.web.desk import Rules
from worker.worklist.web.film_stream import BAND, body, description, gzipped

PIXELS = "/api/v1/studies/2.25.1/films/2.25.1.1.1/pixels"
MAP = "/api/v1/studies/2.25.1/films/2.25.1.1.1/activation?finding=Pneumothorax"
WINDOW = FirstWindow(center=2048, width=4096)


def original(values: NDArray[Any]) -> Original:
    return Original(
        values=values,
        slope=2.0,
        intercept=-3.0,
        window=WINDOW,
        inverse=True,
        padding=(0, 3),
        spacing=(0.2, 0.2),
        spacing_at_detector=True,
        aspect=1.0,
        view="PA",
    )


def noise(rows: int, columns: int, dtype: type = np.uint16) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    return np.random.default_rng(1).integers(limits.min, limits.max, (rows, columns), dtype, endpoint=True)


def unpacked(packed: bytes, rows: int, columns: int, dtype: Any) -> tuple[NDArray[Any], bytes]:
    """As `Grid.unpack` of static/film-pixels.js; and what is left."""
    size = np.dtype(dtype).itemsize
    grid = np.empty((rows, columns), f"u{size}")
    for top in range(0, rows, BAND):
        height = min(BAND, rows - top)
        band = np.frombuffer(packed[: height * columns * size], np.uint8).astype(f"u{size}")
        planes = band.reshape(size, height, columns)
        steps = planes[0] + (planes[1] << 8 if size == 2 else 0)
        grid[top : top + height] = np.cumsum(steps, axis=1, dtype=f"u{size}")
        packed = packed[height * columns * size :]
    return grid.view(dtype), packed


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 640), (129, 77), (700, 1301)])
def test_every_bit_arrives(dtype: type, shape: tuple[int, int]) -> None:
    film = original(noise(*shape, dtype))
    said = json.loads(description(film))
    packed = gzip.decompress(gzipped(body(film)))
    rows, columns = said["preview"]
    preview, packed = unpacked(packed, rows, columns, dtype)
    values, left = unpacked(packed, *shape, dtype)
    assert np.array_equal(values, film.values)
    assert left == b""
    assert (said["rows"], said["columns"], said["kind"]) == (*shape, np.dtype(dtype).name)
    if rows:
        assert max(rows, columns) <= 640
        every = shape[1] // columns
        assert preview[0, 0] == film.values[:every, :every].sum(dtype=np.int64) // every**2


def test_a_film_of_the_largest_detector_is_small_and_quick_on_its_way() -> None:
    smooth = np.cumsum(np.random.default_rng(2).integers(-20, 21, (5000, 5000)), axis=1).astype(np.int16)
    packed = gzipped(body(original(smooth)))
    assert len(packed) < 0.6 * smooth.nbytes


@pytest.fixture
def client(ward: Ward) -> TestClient:
    ward.study(1, read(PNEUMOTHORAX))
    kept = original(noise(50, 40))
    return ward.client(original=lambda study, sop: kept if sop == "2.25.1.1.1" else None)


@pytest.mark.parametrize("path", [PIXELS, PIXELS.removeprefix("/api/v1")])
def test_a_film_comes_with_what_is_to_be_known_of_it(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert (answer.headers["content-encoding"], answer.headers["cache-control"]) == ("gzip", "no-store")
    said = json.loads(answer.headers["x-film"])
    assert said == {
        "rows": 50,
        "columns": 40,
        "kind": "uint16",
        "band": BAND,
        "preview": [0, 0],
        "slope": 2.0,
        "intercept": -3.0,
        "center": 2048,
        "width": 4096,
        "function": "LINEAR",
        "curve": [],
        "inverse": True,
        "padding": [0, 3],
        "spacing": [0.2, 0.2],
        "spacing_at_detector": True,
        "aspect": 1.0,
        "view": "PA",
    }
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert np.array_equal(unpacked(plain.content, 50, 40, np.uint16)[0], noise(50, 40))
    assert plain.content == answer.content  # unpacked by the client


def test_a_description_fits_a_header_whatever_the_film_says(ward: Ward) -> None:
    window = replace(WINDOW, curve=tuple(round(n / 255, 4) for n in range(256)))
    film = replace(original(noise(9, 9)), window=window, view="ü" * 1000)
    answer = ward.client(original=lambda *_: film).get(PIXELS)
    assert answer.status_code == 200
    assert len(answer.headers["x-film"]) < 4096
    assert answer.headers["x-film"].isascii()


def test_a_look_at_a_film_is_in_the_audit_trail(client: TestClient, ward: Ward) -> None:
    client.get(PIXELS)
    ((_, deed),) = Audit(ward.database).deeds(10)
    assert (deed.who, deed.action, deed.study_uid) == ("dr administrator", "looked at a film", "2.25.1")
    assert deed.detail == {"film": "2.25.1.1.1"}


@pytest.mark.parametrize("role", list(Role))
def test_every_role_may_look(ward: Ward, role: Role) -> None:
    assert ward.client(role, original=lambda *_: original(noise(5, 5))).get(PIXELS).status_code == 200


def test_a_stranger_may_not(ward: Ward, client: TestClient) -> None:
    client.cookies.clear()
    del client.headers["X-CSRF"]
    assert client.get(PIXELS).status_code == 401
    assert client.get(PIXELS.removeprefix("/api/v1")).status_code == 303
    assert Audit(ward.database).deeds(10) == []


@pytest.mark.parametrize("path", [PIXELS.replace("1.1.1", "1.1.9"), PIXELS.replace("2.25.1.1.1", "..%2f..%2fetc")])
def test_a_film_that_is_not_here(ward: Ward, client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "x-film" not in answer.headers
    assert Audit(ward.database).deeds(10) == []


def test_a_film_that_cannot_be_shown_says_why(ward: Ward) -> None:
    def refuse(study: str, sop: str) -> Original:
        raise NotAnalysable(NotAnalysed.COLOUR, "three samples of 16 bits")

    answer = ward.client(original=refuse).get(PIXELS)
    assert (answer.status_code, answer.json()) == (422, {"error": "this film cannot be shown: colour image"})


def activation(study: str, sop: str, finding: str) -> Activation | None:
    if finding != "Pneumothorax":
        return None
    return Activation(finding=finding, model_id="0123456789abcdef", values=np.eye(7, dtype=np.float32))


def test_maps_are_for_research_mode(ward: Ward) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    client = ward.client(activation=activation, rules=Rules(research=True))
    answer = client.get(MAP)
    assert answer.status_code == 200
    assert answer.json() == {"finding": "Pneumothorax", "model_id": "0123456789abcdef", "values": np.eye(7).tolist()}
    assert client.get(MAP.replace("Pneumothorax", "Luck")).status_code == 404
    assert "data-map" in client.get("/studies/2.25.1").text
    deeds = [deed.action for _, deed in Audit(ward.database).deeds(10)]
    assert deeds == ["looked", "looked at an activation map"]


@pytest.mark.parametrize("path", [MAP, MAP.removeprefix("/api/v1")])
def test_triage_mode_knows_no_map(ward: Ward, path: str) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    client = ward.client(activation=activation)
    assert client.get(path).status_code == 404
    page = client.get("/studies/2.25.1").text
    assert "data-film" in page
    for word in ("activation", "data-map", "opacity", "Edema", "edema"):
        assert word not in page
    assert "activation" not in client.get("/api/openapi.json").text


def test_research_mode_has_every_probability_and_triage_mode_none(ward: Ward) -> None:
    ward.study(1, read(PNEUMOTHORAX))
    page = ward.client(rules=Rules(research=True)).get("/studies/2.25.1").text
    assert page.count("0.333") == len(LABELS)
    assert "0.778" in page
    assert "pleural thickening" in page
    films = ward.client(rules=Rules(research=True)).get("/api/v1/studies/2.25.1").json()["films"]
    assert films[0]["predictions"][0]["binary"] == 0.7777
    triage = ward.client()
    for path in ("/studies/2.25.1", "/api/v1/studies/2.25.1"):
        shown = triage.get(path).text
        assert [word for word in ("0.333", "0.777", "0.778", "All probabilities") if word in shown] == []


def test_a_model_that_gives_no_map_says_so(ward: Ward) -> None:
    def fail(*_: str) -> Activation:
        raise ModelError("the engine is closed")

    answer = ward.client(activation=fail, rules=Rules(research=True)).get(MAP)
    assert (answer.status_code, answer.json()) == (503, {"error": "the model gives no map at this moment"})


def test_the_page_opens_the_film_that_raised_the_study(ward: Ward) -> None:
    ward.study(1, read())
    ward.study(1, not_read(NotAnalysed.LATERAL))
    ward.study(1, read(PNEUMOTHORAX))
    page = ward.client().get("/studies/2.25.1").text
    buttons = [part.split(">")[0] for part in page.split("<button") if "data-film=" in part.split(">")[0]]
    assert [f'data-film="2.25.1.1.{n}"' in button for n, button in enumerate(buttons, 1)] == [True] * 3
    assert ["data-first" in button for button in buttons] == [False, False, True]
    assert "lateral view" in page
