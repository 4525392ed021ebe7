from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from worker.infer import choose


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in names else None)


@pytest.mark.parametrize(
    ("have", "gpu", "chosen"),
    [
        (("openvino", "tensorflow"), False, "openvino"),
        (("openvino", "tensorflow"), True, "tensorflow"),
        (("openvino",), True, "openvino"),
        (("tensorflow",), False, "tensorflow"),
    ],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, have: tuple[str, ...], gpu: bool, chosen: str) -> None:
    installed(monkeypatch, *have)
    assert choose.choose_runtime("auto", gpu=tmp_path if gpu else tmp_path / "none") == chosen


@pytest.mark.parametrize("setting", ["auto", "openvino", "tensorflow"])
def test_nothing_installed_names_the_mend(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    installed(monkeypatch)
    with pytest.raises(ConfigurationError, match=rf"model\.runtime: '{setting}'.*pip install"):
        choose.choose_runtime(setting)


def test_what_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, "openvino", "tensorflow")
    assert choose.choose_runtime("openvino", gpu=tmp_path) == "openvino"


@pytest.mark.parametrize(("quota", "most"), [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", 10**6)])
def test_cores_heed_the_containers_quota(tmp_path: Path, quota: str, most: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert 1 <= choose.cores(file) <= most
    assert choose.cores(tmp_path / "none") >= choose.cores(file)


def test_choosing_imports_neither_runtime() -> None:
    """A CPU worker never pays for TensorFlow, and `hilum worklist` for neither."""
    code = (
        "import sys; from worker.infer import bundle, choose, engine; choose.choose_runtime('auto');"
        "print(sorted({'tensorflow', 'keras', 'openvino'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
