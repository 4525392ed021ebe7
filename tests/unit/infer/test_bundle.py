from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from schemas.card import Calibration, model_id
from schemas.errors import BundleInvalid, GoldenMismatch, RecipeMismatch
from tests.unit.infer.bundles import OUTPUTS, FakeRuntime, write_bundle
from worker.infer.bundle import Bundle, open_bundle
from worker.ports import Logits


def recipe(size: int) -> str:
    return f"recipe-{size}"


def opened(folder: Path, **fields: object) -> Bundle:
    write_bundle(folder, **fields)
    return open_bundle(str(folder), [], recipe)


class Shifted(FakeRuntime):
    """Every logit off by `shift`; one of them by `one`."""

    def __init__(self, shift: float, one: float = 0.0) -> None:
        super().__init__()
        self.shift, self.one = shift, one

    def run(self, batch: np.ndarray, *, maps: bool = False) -> Logits:
        logits = super().run(batch)
        logits.findings[2, 3] += self.one
        return Logits(logits.binary + np.float32(self.shift), logits.findings + np.float32(self.shift))


def test_a_whole_bundle_opens_and_replays(tmp_path: Path) -> None:
    bundle = opened(tmp_path / "b")
    bundle.replay(FakeRuntime())
    assert bundle.model_id == model_id(bundle.card)
    assert bundle.graph("binary") == "{}"
    assert bundle.weights("multilabel")["w"].dtype == np.float16


def test_a_name_is_looked_up_in_the_stores_in_turn(tmp_path: Path) -> None:
    site, packaged = tmp_path / "site", tmp_path / "packaged"
    write_bundle(packaged / "starter", version="packaged")
    assert open_bundle("starter", [site, packaged], recipe).card.version == "packaged"
    write_bundle(site / "starter", version="site")
    assert open_bundle("starter", [site, packaged], recipe).card.version == "site"


def test_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle(tmp_path / "starter")
    monkeypatch.chdir(tmp_path)
    assert open_bundle("./starter", [], recipe)
    with pytest.raises(BundleInvalid, match="no model bundle named 'starter'"):
        open_bundle("starter", [tmp_path / "store"], recipe)


def test_an_unknown_name_is_answered_with_those_there_are(tmp_path: Path) -> None:
    write_bundle(tmp_path / "one")
    write_bundle(tmp_path / "two")
    with pytest.raises(BundleInvalid, match=r"'three'.*there are: one, two"):
        open_bundle("three", [tmp_path], recipe)
    with pytest.raises(BundleInvalid, match="store is empty"):
        open_bundle("three", [tmp_path / "none"], recipe)


@pytest.mark.parametrize("name", ["..", ".", "", "/nonexistent", "a/../../b"])
def test_hostile_names_open_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleInvalid):
        open_bundle(name, [tmp_path], recipe)


@pytest.mark.parametrize("file", ["binary.json", "binary.npz", "multilabel.json", "multilabel.npz", "golden.npz"])
def test_a_changed_or_missing_file_is_named(tmp_path: Path, file: str) -> None:
    write_bundle(tmp_path / "b")
    path = tmp_path / "b" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleInvalid, match=f"{file}.*SHA-256.*restore"):
        open_bundle(str(tmp_path / "b"), [], recipe)
    path.unlink()
    with pytest.raises(BundleInvalid, match=f"{file}: cannot be read"):
        open_bundle(str(tmp_path / "b"), [], recipe)


def test_a_card_must_list_every_file_and_only_names(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "b")
    card = tmp_path / "b" / "card.json"
    raw = json.loads(written.to_json())
    card.write_text(json.dumps({**raw, "files": {k: v for k, v in raw["files"].items() if k != "binary.npz"}}))
    with pytest.raises(BundleInvalid, match=r"does not list binary\.npz"):
        open_bundle(str(tmp_path / "b"), [], recipe)
    card.write_text(json.dumps({**raw, "files": {**raw["files"], "../secret": "0"}}))
    with pytest.raises(BundleInvalid, match="not a file name"):
        open_bundle(str(tmp_path / "b"), [], recipe)


@pytest.mark.parametrize(
    "damage", [{"files": ["binary.npz"]}, {"files": {"a": 1}}, {"thresholds": 3}, {"metrics": None}]
)
def test_a_card_of_another_shape_is_none(tmp_path: Path, damage: dict[str, object]) -> None:
    raw = json.loads(write_bundle(tmp_path / "b").to_json())
    (tmp_path / "b" / "card.json").write_text(json.dumps(raw | damage))
    with pytest.raises(BundleInvalid, match="not what a card has there"):
        open_bundle(str(tmp_path / "b"), [], recipe)


def test_another_recipe_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    with pytest.raises(RecipeMismatch, match=r"recipe-old.*recipe-4.*install the version"):
        opened(tmp_path / "b", recipe_fingerprint="recipe-old")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "high", None])
def test_a_threshold_is_a_probability(tmp_path: Path, threshold: object) -> None:
    with pytest.raises(BundleInvalid, match="threshold of Mass"):
        opened(tmp_path / "b", thresholds={"Mass": threshold})


@pytest.mark.parametrize("constant", [float("nan"), float("inf"), "steep", None])
def test_calibration_is_finite_numbers(tmp_path: Path, constant: float) -> None:
    calibration = {**dict.fromkeys(OUTPUTS, Calibration()), "Mass": Calibration(scale=constant)}
    with pytest.raises(BundleInvalid, match="calibration"):
        opened(tmp_path / "b", calibration=calibration)


def test_calibration_of_every_output(tmp_path: Path) -> None:
    calibration = {name: Calibration() for name in OUTPUTS if name != "Mass"}
    with pytest.raises(BundleInvalid, match=r"calibration.*Mass"):
        opened(tmp_path / "b", calibration=calibration)


def test_weights_that_hold_python_objects_are_not_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    bundle = opened(folder)
    np.savez(folder / "binary.npz", w=np.array([object()], dtype=object))
    with pytest.raises(BundleInvalid, match="not an archive of arrays"):
        bundle.weights("binary")


def test_replay_allows_what_another_precision_does(tmp_path: Path) -> None:
    opened(tmp_path / "b").replay(Shifted(0.02))


def test_replay_refuses_probabilities_that_are_off(tmp_path: Path) -> None:
    with pytest.raises(GoldenMismatch, match=r"fake 1 on fake \(none\): golden film \d, .* instead of .* try another"):
        opened(tmp_path / "b").replay(Shifted(0.2))
    with pytest.raises(GoldenMismatch, match="golden film 2, Edema"):
        opened(tmp_path / "c").replay(Shifted(0.0, one=1.0))


def test_replay_refuses_what_is_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(GoldenMismatch, match="golden film 2, Edema: nan"):
        opened(tmp_path / "b").replay(Shifted(0.0, one=float("nan")))


def test_replay_refuses_another_flag_although_the_probability_is_near(tmp_path: Path) -> None:
    """Rare findings: 0.002 and 0.004 are near, and on different sides of an operating point at 0.003."""
    bundle = opened(
        tmp_path / "b",
        calibration={**dict.fromkeys(OUTPUTS, Calibration()), "Edema": Calibration(offset=-8.5)},
        thresholds={"Edema": 0.003},
    )
    bundle.replay(FakeRuntime())
    with pytest.raises(GoldenMismatch, match=r"golden film 2, Edema.*different sides of the threshold 0\.0030"):
        bundle.replay(Shifted(0.0, one=1.0))


def test_replay_proves_nothing_with_a_film_on_the_operating_point(tmp_path: Path) -> None:
    edge = 1 / (1 + np.exp(-2.301))  # Edema of the film of grey 200 has logit 2.3
    opened(tmp_path / "b", thresholds={"Edema": edge}).replay(Shifted(0.01))


@pytest.mark.parametrize(
    "golden",
    [
        {"inputs": np.zeros((0, 4, 4, 3), np.uint8), "binary": np.zeros(0), "findings": np.zeros((0, 15))},
        {"inputs": np.zeros((1, 5, 5, 3), np.uint8), "binary": np.zeros(1), "findings": np.zeros((1, 15))},
        {"inputs": np.zeros((1, 4, 4, 3), np.float32), "binary": np.zeros(1), "findings": np.zeros((1, 15))},
        {"inputs": np.zeros((1, 4, 4, 3), np.uint8), "binary": np.zeros(2), "findings": np.zeros((1, 15))},
        {"inputs": np.zeros((1, 4, 4, 3), np.uint8), "binary": np.zeros(1)},
    ],
)
def test_golden_vectors_must_prove_something(tmp_path: Path, golden: dict[str, np.ndarray]) -> None:
    bundle = opened(tmp_path / "b")
    np.savez(tmp_path / "b" / "golden.npz", **golden)  # type: ignore[arg-type]
    with pytest.raises(BundleInvalid, match=r"golden\.npz"):
        bundle.replay(FakeRuntime())
