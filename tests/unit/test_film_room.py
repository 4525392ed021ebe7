"""From a film's UIDs to what a person sees of it: the file that is kept, and the model that reads now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import NotAnalysable, SpoolError
from schemas.gate import GateRules
from schemas.outcome import ModelRef
from tests.unit.infer.bundles import FakeRuntime, card
from worker.corridor.live import Live, Reader
from worker.film_room import FilmRoom
from worker.infer.engine import Engine
from worker.ports import Logits
from worker.simulate import phantom

STUDY = "2.25.1"


class Mapping(FakeRuntime):
    """Maps that tell the film: the grey of its two rows of two cells."""

    def run(self, batch: np.ndarray, *, maps: bool = False) -> Logits:  # type: ignore[type-arg]
        said = super().run(batch)
        grey = batch[:, ::2, ::2, :1].astype(np.float32)
        return Logits(said.binary, said.findings, grey, np.repeat(grey, 15, axis=3)) if maps else said


class Kept:
    """A record and a spool of three films: a frontal one, a lateral one, and one whose bytes are gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for sop, view in (("1", "PA"), ("2", "LL")):
            ds = phantom.dataset(4, rows=300, columns=260, view=view)  # type: ignore[arg-type]
            ds.save_as(folder / sop, enforce_file_format=True)

    def path_of(self, study_uid: str, sop_uid: str) -> str | None:
        return sop_uid if study_uid == STUDY and sop_uid in {"1", "2", "3", "4"} else None


class Spool:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path_of(self, file: str) -> Path:
        if file == "3":
            raise SpoolError("3: missing from the spool")
        return self._folder / file  # of "4" there is nothing, once it is opened


@pytest.fixture
def live() -> Iterator[Live]:
    made = Live(Reader(engine=Engine(Mapping(), card()), model=ModelRef(id="m", name="fake", version="1"), card=card()))
    yield made
    made.close()


def room(folder: Path, live: Live | None) -> FilmRoom:
    return FilmRoom(Kept(folder), Spool(folder), GateRules(), lambda: live)  # type: ignore[arg-type]


def test_the_original_is_what_was_kept(tmp_path: Path) -> None:
    films = room(tmp_path, None)
    for sop, view in (("1", "PA"), ("2", "LL")):
        found = films.original(STUDY, sop)
        assert found is not None
        assert (found.values.shape, found.view) == ((300, 260), view)
    assert [films.original(*uids) for uids in ((STUDY, "3"), (STUDY, "4"), (STUDY, "9"), ("2.25.2", "1"))] == [None] * 4


def test_what_cannot_be_shown_is_told_apart_from_what_is_gone(tmp_path: Path) -> None:
    films = room(tmp_path, None)
    (tmp_path / "1").write_bytes(b"no DICOM at all")
    with pytest.raises(NotAnalysable):
        films.original(STUDY, "1")


def test_the_map_is_of_the_film_and_of_the_model_that_reads_now(tmp_path: Path, live: Live) -> None:
    films = room(tmp_path, live)
    found = films.activation(STUDY, "1", "Pneumothorax")
    assert found is not None
    assert found.values.shape == (2, 2)
    assert found.values.max() > found.values.min() > 0
    other = Live(
        Reader(
            engine=Engine(Mapping(), card(files={"a": "b"})), model=ModelRef(id="n", name="x", version="2"), card=card()
        )
    )
    later = room(tmp_path, other).activation(STUDY, "1", "Pneumothorax")
    other.close()
    assert later is not None
    assert later.model_id != found.model_id


def test_where_there_is_no_map(tmp_path: Path, live: Live) -> None:
    films = room(tmp_path, live)
    assert films.activation(STUDY, "2", "Pneumothorax") is None  # not analysed, so nothing to explain
    assert films.activation(STUDY, "3", "Pneumothorax") is None
    assert films.activation(STUDY, "1", "Luck") is None
    assert room(tmp_path, None).activation(STUDY, "1", "Pneumothorax") is None  # this process does not read
