from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigurationError, GoldenMismatch
from tests.unit.infer.bundles import FakeRuntime, write_bundle
from worker.infer import choose
from worker.infer.bundle import Bundle, open_bundle
from worker.ports import Logits, Runtime


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


class Fake(FakeRuntime):
    """In place of `OpenVino`: off by `error[precision]`."""

    error: dict[str, float]
    made: list[Fake]

    def __init__(self, bundle: Bundle, *, threads: int, precision: str = "bf16") -> None:
        super().__init__()
        self.device = precision
        self.made.append(self)

    def run(self, batch: np.ndarray, *, maps: bool = False) -> Logits:
        logits = super().run(batch)
        return Logits(logits.binary + np.float32(self.error[self.device]), logits.findings)


def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bf16: float, f32: float) -> Runtime:
    monkeypatch.setattr(Fake, "error", {"bf16": bf16, "f32": f32}, raising=False)
    monkeypatch.setattr(Fake, "made", [], raising=False)
    module = types.ModuleType("worker.infer.openvino")
    module.OpenVino = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "worker.infer.openvino", module)
    write_bundle(tmp_path / "b")
    return choose.load_runtime("openvino", open_bundle(str(tmp_path / "b"), [], lambda size: f"recipe-{size}"))


def test_loading_proves_the_golden_vectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load(monkeypatch, tmp_path, bf16=0.01, f32=0.0).device == "bf16"
    assert len(Fake.made) == 1


def test_a_bundle_that_bfloat16_does_not_do_justice_to_is_served_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load(monkeypatch, tmp_path, bf16=0.5, f32=0.0).device == "f32"
    assert [(runtime.device, runtime.closed) for runtime in Fake.made] == [("bf16", True), ("f32", False)]


def test_a_bundle_that_fails_in_float32_too_is_not_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(GoldenMismatch):
        load(monkeypatch, tmp_path, bf16=0.5, f32=0.5)
    assert all(runtime.closed for runtime in Fake.made)
