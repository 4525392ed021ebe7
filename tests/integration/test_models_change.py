"""The live model is changed while films keep coming by C-STORE: promoted, rolled back, refused. None is lost.

The starter bundle reads; a copy of it with another content address is the candidate.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from schemas.card import read_card
from schemas.registry import Check, ModelAction, ModelState, RegisteredModel
from schemas.tables import Job, PredictionRow, Revision
from tests.waiting import eventually
from worker.corridor.bell import Bell
from worker.corridor.intake import Intake
from worker.corridor.shadow import Shadow
from worker.decide.routing import recipients
from worker.decode.selftest import usable_transfer_syntaxes
from worker.infer import exports
from worker.reading_room import PACKAGED, Means, ReadingRoom, enter, open_live, open_registered
from worker.receive.access import LocalAE
from worker.receive.listener import Listener, ListenerConfig
from worker.record.database import Database
from worker.record.instances import Instances
from worker.record.registry import Registry
from worker.record.shadow import Shadows
from worker.record.side_by_side import compare
from worker.settings import Database as DatabaseSettings
from worker.settings import Model, Settings, SpoolSettings
from worker.simulate import modality, phantom
from worker.spool.local import LocalSpool


def now() -> datetime:
    return datetime.now(UTC)


def copy_of_starter(folder: Path, version: str) -> Path:
    """The same model with another content address, its operating points moved by a hair."""
    shutil.copytree(PACKAGED / "starter", folder)
    (folder / "notes.txt").write_text(version)
    card = json.loads((folder / "card.json").read_text())
    card["version"] = version
    card["files"]["notes.txt"] = hashlib.sha256(version.encode()).hexdigest()
    card["thresholds"] = {name: point + 1e-6 for name, point in card["thresholds"].items()}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@dataclass
class Ward:
    """A worker that receives and reads, and a modality that sends."""

    folder: Path
    settings: Settings
    database: Database
    room: ReadingRoom
    listener: Listener
    sent: int = 0

    @property
    def registry(self) -> Registry:
        return Registry(self.database)

    def candidate(self, version: str = "0.2.1") -> RegisteredModel:
        """In the registry, and in the shadow."""
        card = read_card(copy_of_starter(self.folder / "models" / version, version))
        proof = Check(name="openvino (CPU)", passed=True, words="by the copied model")
        made = self.registry.add(version, card, who="anna", why="better", now=now(), proofs=[proof])
        self.registry.move(made.model_id, ModelState.SHADOW, who="anna", why="to be seen", now=now())
        return made

    def send(self, count: int) -> None:
        """Studies of one film each."""
        paths = []
        for number in range(self.sent, self.sent + count):
            path = self.folder / f"{number}.dcm"
            phantom.dataset(number, rows=400, columns=400).save_as(path, enforce_file_format=True)
            paths.append(path)
        self.sent += count
        results = modality.send(paths, "HILUM", "127.0.0.1", self.listener.port, "ROOM1")
        assert [r for r in results if r.error or r.status] == []

    def read(self) -> int:
        """Films that were read."""
        return sum(self.by_model().values())

    def by_model(self) -> dict[str, int]:
        statement = sa.select(PredictionRow.model_id, sa.func.count().label("n")).group_by(PredictionRow.model_id)
        return {row.model_id: row.n for row in self.database.read(lambda c: c.execute(statement).all())}

    def reads_with(self, model: str, seconds: float = 30) -> float:
        """Wait until it does; how long it took."""
        began = time.monotonic()
        eventually(lambda: self.room.live.reader.model.id == model, seconds, f"{model} does not read")
        return time.monotonic() - began

    def reads_along(self, model: str) -> None:
        """Wait until it does."""

        def loaded() -> bool:
            shadow = self.room.live.shadow
            return isinstance(shadow, Shadow) and shadow.model_id == model and shadow.reader is not None

        eventually(loaded, 60, f"{model} does not read along")

    def promote(self, model: str, instead_of: str) -> None:
        self.registry.promote(model, instead_of=instead_of, who="anna", why="better", now=now())


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    settings = Settings(
        database=DatabaseSettings(url=f"sqlite:///{tmp_path}/hilum.db"),
        spool=SpoolSettings(path=tmp_path / "spool"),
        model=Model(store=tmp_path / "models"),
    )
    database = Database(settings.database.url)
    database.migrate()
    spool, work = LocalSpool(settings.spool.path, watermark_bytes=1 << 20), Bell()
    means = Means(spool=spool, work=work, news=Bell(), owner="host/1", route=partial(recipients, []), clock=now)
    room = ReadingRoom(settings, database, means)
    room.load()
    room.start()
    listener = Listener(
        ListenerConfig(host="127.0.0.1", port=0, local_aes=(LocalAE(ae_title="HILUM"),)),
        usable_transfer_syntaxes(),
        spool,
        Intake(Instances(database), work, now),
        lambda rejection: None,
    )
    listener.start()
    yield Ward(tmp_path, settings, database, room, listener)
    listener.stop()
    room.stop()
    database.close()


def test_promoted_and_rolled_back_while_films_keep_coming(ward: Ward) -> None:
    first = ward.room.live.reader.model.id
    assert ward.registry.wanted() == (first, None)
    candidate = ward.candidate()
    ward.reads_along(candidate.model_id)

    enough = threading.Event()

    def keep_sending() -> None:
        while not enough.is_set():
            ward.send(2)

    sending = threading.Thread(target=keep_sending)
    sending.start()
    try:
        eventually(lambda: ward.read() >= 6, 60)
        ward.promote(candidate.model_id, first)
        promoted = ward.reads_with(candidate.model_id)
        eventually(lambda: ward.by_model().get(candidate.model_id, 0) >= 6, 60)
        ward.registry.roll_back(instead_of=candidate.model_id, who="bert", why="too many flags", now=now())
        rolled_back = ward.reads_with(first)
        before = ward.by_model()[first]
        eventually(lambda: ward.by_model()[first] >= before + 6, 60)
    finally:
        enough.set()
        sending.join(60)
    eventually(lambda: ward.read() == ward.sent, 60, "a film was lost")
    jobs = ward.database.read(lambda c: c.execute(sa.select(Job.state, Job.attempts, Job.reading)).all())
    assert set(jobs) == {("read", 1, 1)}  # none twice, none a second time
    by_film = ward.database.read(
        lambda c: c.execute(
            sa.select(PredictionRow.model_id, Revision.model_id)
            .join(Job, Job.id == PredictionRow.job_id)
            .join(Revision, Revision.study_id == Job.study_id)
        ).all()
    )
    assert len(by_film) == ward.sent
    assert all(read == told for read, told in by_film)  # what is told names the model that read
    assert rolled_back < 5  # the model before is loaded still
    assert promoted < 60

    def told() -> list[tuple[str, str]]:
        return [(e.model_id, e.action) for e in reversed(ward.registry.history()) if e.who == "host/1"]

    taken_up = ModelAction.TAKEN_UP
    eventually(lambda: told() == [(candidate.model_id, taken_up), (first, taken_up)], 10)


def test_the_shadow_reads_along_and_is_compared(ward: Ward) -> None:
    candidate = ward.candidate()
    ward.reads_along(candidate.model_id)
    ward.send(4)
    shadows = Shadows(ward.database)
    eventually(lambda: shadows.spell(candidate.model_id).films == 4, 60)
    found = compare(shadows.films(candidate.model_id, now() - timedelta(hours=1), now()))
    assert (found.films, found.studies, found.gained_count, found.lost_count) == (4, 4, 0, 0)
    assert candidate.model_id not in ward.by_model()
    assert ward.room.status()["shadow"] == candidate.model_id


def test_a_model_that_is_gone_from_the_store_is_refused_and_the_old_one_reads_on(ward: Ward) -> None:
    first = ward.room.live.reader.model.id
    candidate = ward.candidate()
    shutil.rmtree(ward.folder / "models" / candidate.bundle)
    ward.promote(candidate.model_id, first)
    eventually(lambda: "is not in" in ward.room.status()["model_fault"], 30)
    ward.send(2)
    eventually(lambda: ward.by_model() == {first: 2}, 60)
    refused = eventually(lambda: [e for e in ward.registry.history() if e.action is ModelAction.REFUSED], 10)
    assert (refused[0].who, refused[0].model_id) == ("host/1", candidate.model_id)
    ward.registry.roll_back(instead_of=candidate.model_id, who="anna", why="", now=now())
    eventually(lambda: ward.room.status()["model_fault"] == "", 30)


def test_what_was_promoted_reads_after_a_restart_too(ward: Ward) -> None:
    first = ward.room.live.reader.model.id
    candidate = ward.candidate()
    ward.promote(candidate.model_id, first)
    means = Means(
        spool=LocalSpool(ward.settings.spool.path, watermark_bytes=1 << 20),
        work=Bell(),
        news=Bell(),
        owner="host/2",
        route=partial(recipients, []),
        clock=now,
    )
    room = ReadingRoom(ward.settings, ward.database, means)
    room.load()
    try:
        assert room.live.reader.model.id == candidate.model_id
        assert room.live.reader.card == candidate.card
        assert open_live(ward.settings).model_id == candidate.model_id  # commands beside it too
    finally:
        room.stop()


def test_a_bundle_from_elsewhere_is_proven_and_taken_into_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "installed_runtimes", lambda: ("openvino",))  # TensorFlow takes a minute
    settings = Settings(
        database=DatabaseSettings(url=f"sqlite:///{tmp_path}/hilum.db"), model=Model(store=tmp_path / "models")
    )
    database = Database(settings.database.url)
    database.migrate()
    registry, source = Registry(database), copy_of_starter(tmp_path / "run" / "bundle", "0.2.1")
    entered = enter(settings, registry, str(source), who="anna", why="retrained", now=now())
    assert (entered.state, entered.version, entered.name) == (ModelState.CANDIDATE, "0.2.1", "starter")
    assert open_registered(settings, entered).folder == tmp_path / "models" / entered.bundle
    (event,) = registry.history()
    assert event.checks and all(check.passed for check in event.checks)
    assert [check.name.partition(" ")[0] for check in event.checks] == ["openvino"]
    card = json.loads((source / "card.json").read_text())  # calibrated anew: the same model with another card
    points = {name: point - 2e-6 for name, point in card["thresholds"].items()}
    (source / "card.json").write_text(json.dumps({**card, "thresholds": points}))
    again = enter(settings, registry, str(source), who="anna", why="calibrated", now=now())
    assert (again.model_id, again.card.thresholds) == (entered.model_id, points)
    assert [m.model_id for m in registry.models()] == [entered.model_id]
    database.close()
