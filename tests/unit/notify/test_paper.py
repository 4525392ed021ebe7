from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import TransientFailure
from tests.unit.notify.flags import VALID, film, flag
from worker.notify.paper import FILE, Paper
from worker.notify.wording import sentences


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]


def test_a_flag_is_a_line_without_the_patient(tmp_path: Path) -> None:
    paper = Paper(name="shadow", folder=tmp_path / "new" / "folder")
    receipt = paper.send(VALID["one read, two not"])
    (line,) = lines(tmp_path / "new" / "folder")
    assert line["object_id"] == receipt.object_id
    assert (line["urgency"], line["revision"]) == ("STAT", 1)
    assert line["reasons"] == ["pneumothorax 0.91, threshold 0.62"]
    assert sorted(line["not_analysed"].values()) == ["lateral", "unreadable"]
    assert line["decided_at"] == "2025-01-02T10:16:00.250000+00:00"
    assert line["words"] == list(sentences(VALID["one read, two not"]))
    assert "Doe" not in json.dumps(line)
    assert "4711" not in json.dumps(line)
    assert paper.name == "shadow"


def test_patients_are_named_when_asked(tmp_path: Path) -> None:
    Paper(name="shadow", folder=tmp_path, identify=True).send(VALID["Japanese"])
    (line,) = lines(tmp_path)
    assert line["patient_name"].startswith("Yamada^Tarou=山田")


def test_the_same_flag_is_written_once_also_by_the_next_process(tmp_path: Path) -> None:
    paper = Paper(name="shadow", folder=tmp_path)
    first = paper.send(flag())
    assert paper.send(flag()) == first
    again = Paper(name="shadow", folder=tmp_path)
    assert again.send(flag()) == first
    again.send(flag(revision=2))
    assert [line["revision"] for line in lines(tmp_path)] == [1, 2]
    assert len({line["object_id"] for line in lines(tmp_path)}) == 2


@pytest.mark.parametrize("torn", [b'{"object_id": "2.25', b'"text"', b"[]", b"\xff\xfe", b"null"])
def test_a_line_that_a_crash_cut_short_spoils_nothing(tmp_path: Path, torn: bytes) -> None:
    Paper(name="shadow", folder=tmp_path).send(flag())
    with (tmp_path / FILE).open("ab") as file:
        file.write(torn)
    Paper(name="shadow", folder=tmp_path).send(flag(revision=2))
    first, between, second = (tmp_path / FILE).read_bytes().splitlines()
    assert (json.loads(first)["revision"], between, json.loads(second)["revision"]) == (1, torn, 2)


@pytest.mark.parametrize("example", VALID.values(), ids=VALID.keys())
def test_every_flag_can_be_written(tmp_path: Path, example: Any) -> None:
    Paper(name="shadow", folder=tmp_path, identify=True).send(example)
    assert len(lines(tmp_path)) == 1


def test_a_disk_that_refuses_is_a_passing_fault(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    paper = Paper(name="shadow", folder=tmp_path / "taken")
    with pytest.raises(TransientFailure, match="cannot be written"):
        paper.check()
    with pytest.raises(TransientFailure, match="cannot be written"):
        paper.send(flag())
    (tmp_path / "taken").unlink()
    assert paper.send(flag(film())).proof
    assert str(tmp_path) in paper.check()
    paper.close()
