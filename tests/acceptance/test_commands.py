"""The commands as scripts rely on them: shapes of what they print, and exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from schemas.findings import LABELS
from tests.acceptance.harness import HILUM, free_port, until
from tests.acceptance.hospital import Hospital, phantom_films

# DICOM against PNG of one film: the DICOM went through JPEG, so probabilities differ a little.
BOUND = 0.03


def hilum(*args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HILUM, *map(str, args)], capture_output=True, text=True, check=check, timeout=120)


def predict(*paths: Path) -> dict[str, dict[str, Any]]:
    lines = hilum("predict", "--json", *paths).stdout.splitlines()
    return {row["file"]: row for row in map(json.loads, lines)}


def test_a_film_by_its_two_doors(films: Path) -> None:
    pairs = sorted((films / "png_dicom_pairs").glob("*.png"))
    assert len(pairs) == 5
    with_dicom = [p for p in pairs if p.with_suffix(".dcm").exists()]
    assert len(with_dicom) == 4
    scored = predict(*pairs, *(p.with_suffix(".dcm") for p in with_dicom))
    assert len(scored) == 9
    for png in with_dicom:
        a, b = scored[str(png)], scored[str(png.with_suffix(".dcm"))]
        assert a["not_analysed"] is b["not_analysed"] is None
        assert abs(a["binary"] - b["binary"]) <= BOUND
        assert set(a["findings"]) == set(LABELS)
        assert max(abs(a["findings"][label] - b["findings"][label]) for label in LABELS) <= BOUND


def test_predict_answers_every_file(films: Path, tmp_path: Path) -> None:
    small = next((films / "nih" / "128px").glob("*.webp"))
    hip = films / "dicom" / "not_chest" / "dicom-test-files__RG2_J2KI.dcm"
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    scored = predict(small, hip, broken, tmp_path / "missing.dcm")
    assert scored[str(small)]["not_analysed"] is None
    assert 0.0 <= scored[str(small)]["binary"] <= 1.0
    assert scored[str(hip)] == {"file": str(hip), "binary": None, "findings": {}, "not_analysed": "not-chest"}
    assert scored[str(broken)]["not_analysed"] == "unreadable"
    assert scored[str(tmp_path / "missing.dcm")]["not_analysed"] == "unreadable"


def test_worklist_results_and_check(hospital: Hospital, tmp_path: Path) -> None:
    worker = hospital.hilum()
    worker.start()
    (film,) = phantom_films(tmp_path / "films", 1)
    sent = worker.run("send", str(film))
    assert "1 of 1 file(s) taken" in sent.stdout
    until("the flag", lambda: hospital.reports() and worker.undelivered() == 0)

    (line,) = worker.run("worklist", "--json").stdout.splitlines()
    row = json.loads(line)
    assert row.keys() >= {"study_uid", "urgency", "reasons", "state", "not_analysed", "received_at"}
    story = json.loads(worker.run("results", row["study_uid"], "--json").stdout)
    assert story["deliveries"][0]["state"] == "sent"
    (prediction,) = story["films"][0]["predictions"]
    assert prediction.keys() >= {"model_id", "binary", "findings", "thresholds", "timings_ms"}

    good = worker.run("check")
    assert "destination pacs" in good.stdout
    hospital.pacs.stop()
    bad = worker.run("check", check=False)
    assert bad.returncode == 1
    assert "FAIL" in bad.stdout
    assert worker.run("results", "1.2.3", check=False).returncode == 1
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('[dicom]\nae_title = ""\nprot = 1\n', ("dicom.ae_title", "dicom.prot")),
        ('[model]\nbundle = "nowhere"\n', ("nowhere",)),
        ('[database]\nurl = "sqlite:///{folder}/empty.db"\n', ("hilum migrate",)),
    ],
)
def test_a_fault_is_one_clear_message(tmp_path: Path, config: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "hilum.toml"
    url = "" if "[database]" in config else f'[database]\nurl = "sqlite:///{tmp_path}/hilum.db"\n'
    path.write_text(config.format(folder=tmp_path) + url)
    if url and "prot" not in config:
        hilum("migrate", "--config", path)
    served = hilum("serve", "--config", path, check=False)
    assert served.returncode in (1, 2)
    assert "Traceback" not in served.stderr
    for word in words:
        assert word in served.stderr


def test_a_port_in_use_is_named(hospital: Hospital) -> None:
    first = hospital.hilum()
    first.start()
    text = first.config.read_text().replace(f"port = {first.web_port}", f"port = {free_port()}")
    first.config.write_text(text)
    second = first.run("serve", check=False)
    assert second.returncode != 0
    assert str(first.dicom_port) in second.stderr
    assert "Traceback" not in second.stderr
