"""`hilum pause` and `hilum resume`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.lifecycle import OutboxState
from tests.unit.cli.commands import call, configured
from tests.unit.worklist.ward import PNEUMOTHORAX, Ward, read
from worker.record.audit import Audit
from worker.record.pauses import Pauses


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    with configured(tmp_path) as made:
        yield made


def test_flags_are_held_back_until_resumed(ward: Ward) -> None:
    assert "flags are not paused" in call(ward, "resume", code=1)
    assert "say why" in call(ward, "pause", "--because", " ", code=2)
    assert "flags are paused" in call(ward, "pause", "--because", "a new detector")
    assert "paused already" in call(ward, "pause", "--because", "again", code=1)
    pause = Pauses(ward.database).current()
    assert pause is not None
    assert pause.why == "a new detector"
    assert pause.who.endswith(", command line")
    ward.study(1, read(PNEUMOTHORAX))
    ward.deliver()
    assert ward.outbox.counts()["pacs"][OutboxState.PENDING] == 1
    assert "flags go out again" in call(ward, "resume")
    ward.deliver()
    assert ward.outbox.counts() == {}
    assert [deed.action for _, deed in Audit(ward.database).deeds(9)] == ["resumed flags", "paused flags"]
