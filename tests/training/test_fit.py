"""The loop on a small model: it learns, a step lowers the loss, a killed run goes on to the same curve."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from training import network
from training.description import Loss, Stage
from training.fit import Diverged, Films, Network, fit, pace, predict, read_weights
from training.watch import Watch

pytestmark = pytest.mark.usefixtures("small_model")


def stage(**changes: object) -> Stage:
    plan = {"name": "t", "size": 40, "epochs": 4, "batch": 8, "learning_rate": 0.02, "ema": 0.5, "warm_up": 0.0}
    return Stage(**(plan | changes))  # type: ignore[arg-type]


def net(**changes: object) -> Network:
    plan = {"backbone": "densenet121", "scaling": "", "main": 2, "judged": (0, 1), "loss": Loss(kind="bce"), "seed": 0}
    return Network(**(plan | {"mixed_precision": True} | changes))  # type: ignore[arg-type]


def drawn() -> Films:
    """Label 0: the lower half is bright. Label 1: dark films."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (64, 40, 40), dtype=np.uint8)
    pixels[::2, 20:, :] += 120
    pixels[:16] //= 2
    targets = np.zeros((64, 2), np.float32)
    targets[::2, 0] = 1
    targets[:16, 1] = 1
    return Films(pixels=pixels, members=np.arange(64), targets=targets)


def run(plan: Stage, folder: Path, progress: Progress, **options: object) -> dict[str, np.ndarray]:
    folder.mkdir(exist_ok=True)
    films = options.pop("films", None) or drawn()
    start = options.pop("start", None)
    return fit(plan, net(**options), films, films, folder, Watch(folder, progress), start=start)  # type: ignore[arg-type]


def history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "history.json").read_text())  # type: ignore[no-any-return]


def test_it_learns(tmp_path: Path, progress: Progress) -> None:
    weights = run(stage(epochs=12, augmentation="none"), tmp_path, progress)
    assert history(tmp_path)[-1]["loss"] < 0.8 * history(tmp_path)[0]["loss"]
    assert history(tmp_path)[-1]["auroc"] > 0.95
    model = network.build(2, 40)
    network.load_weights(model, weights)
    logits = predict(model, drawn().pixels, 40)
    assert logits.shape == (64, 2)
    assert logits[::2, 0].min() > logits[1::2, 0].max()


@pytest.mark.parametrize("kind", ["bce", "weighted", "focal", "asymmetric"])
def test_one_step_lowers_the_loss(kind: str, tmp_path: Path, progress: Progress) -> None:
    plan = stage(epochs=2, batch=64, learning_rate=0.01, augmentation="none")
    run(plan, tmp_path, progress, loss=Loss(kind=kind))  # type: ignore[arg-type]
    first, second = (epoch["loss"] for epoch in history(tmp_path))
    assert second < first


def test_one_step_of_the_real_network_lowers_its_loss(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real network again
    films = drawn()
    few = Films(pixels=films.pixels, members=films.members[::4], targets=films.targets[::4])
    run(stage(size=40, epochs=2, batch=16, learning_rate=1e-3, augmentation="none"), tmp_path, progress, films=few)
    first, second = (epoch["loss"] for epoch in history(tmp_path))
    assert second < first
    assert len(read_weights(tmp_path / "weights.npz")) == 606


def test_the_head_alone_is_trained_when_the_base_is_frozen(tmp_path: Path, progress: Progress) -> None:
    start = network.weights_of(network.build(2, 40))
    after = run(stage(train="head", epochs=2), tmp_path, progress, start=start)
    for path, value in start.items():
        changed = bool((after[path] != value).any())
        assert changed == path.startswith("maps/"), path


def test_resumed_equals_uninterrupted(tmp_path: Path, progress: Progress) -> None:
    class Unplugged(Exception):
        pass

    class Cut(Watch):
        def epoch(self, history: object) -> None:
            super().epoch(history)  # type: ignore[arg-type]
            if len(history) == 2:  # type: ignore[arg-type]
                raise Unplugged

    whole = run(stage(), tmp_path / "whole", progress)
    (tmp_path / "cut").mkdir()
    films = drawn()
    with pytest.raises(Unplugged):
        fit(stage(), net(), films, films, tmp_path / "cut", Cut(tmp_path / "cut", progress), start=None)
    resumed = run(stage(), tmp_path / "cut", progress)
    curves = [[(e["epoch"], e["loss"], e["auroc"]) for e in history(tmp_path / name)] for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    assert all((resumed[path] == whole[path]).all() for path in whole)


def test_killed_it_goes_on_to_the_same_curve(tmp_path: Path, progress: Progress) -> None:
    """SIGKILL in the middle of an epoch, in a process of its own."""
    plan = stage(epochs=30)
    whole = run(plan, tmp_path / "whole", progress)
    code = (
        "from pathlib import Path; import sys; from rich.progress import Progress\n"
        "from tests.training import conftest, test_fit; from training import network\n"
        "network.build = conftest.small_build\n"
        "with Progress(disable=True) as bar: test_fit.run(test_fit.stage(epochs=30), Path(sys.argv[1]), bar)\n"
    )
    cut = tmp_path / "cut"
    child = subprocess.Popen([sys.executable, "-c", code, cut], cwd=Path(__file__).resolve().parents[2])
    deadline = time.monotonic() + 120
    while not (cut / "history.json").exists() or len(history(cut)) < 3:
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = len(history(cut))
    assert done < 30
    resumed = run(plan, cut, progress)
    curves = [[(e["epoch"], e["loss"], e["auroc"]) for e in history(tmp_path / name)] for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    assert all((resumed[path] == whole[path]).all() for path in whole)


def test_same_seed_same_weights_and_another_seed_others(tmp_path: Path, progress: Progress) -> None:
    one, two, other = (run(stage(epochs=2), tmp_path / str(i), progress, seed=s) for i, s in enumerate((3, 3, 4)))
    assert all((one[path] == two[path]).all() for path in one)
    assert any((one[path] != other[path]).any() for path in one)


def test_a_finished_stage_is_not_trained_again(tmp_path: Path, progress: Progress) -> None:
    first = run(stage(epochs=1), tmp_path, progress)
    again = run(stage(epochs=1), tmp_path, progress)
    assert len(history(tmp_path)) == 1
    assert all((first[path] == again[path]).all() for path in first)


def test_it_stops_when_validation_grows_no_better_and_keeps_the_best(tmp_path: Path, progress: Progress) -> None:
    run(stage(epochs=40, patience=3, augmentation="none"), tmp_path, progress)
    curve = [epoch["auroc"] for epoch in history(tmp_path)]
    assert len(curve) < 40
    assert int(np.argmax(curve)) == len(curve) - 1 - 3


def test_a_loss_that_is_no_number_ends_the_run_with_the_mend(tmp_path: Path, progress: Progress) -> None:
    start = {path: np.full_like(w, np.nan) for path, w in network.weights_of(network.build(2, 40)).items()}
    with pytest.raises(Diverged, match=r"epoch 1.*learning_rate"):
        run(stage(), tmp_path, progress, start=start)


def test_an_epoch_of_fewer_films_draws_others_each_time(tmp_path: Path, progress: Progress) -> None:
    run(stage(films=16, epochs=3), tmp_path, progress)
    with np.load(tmp_path / "checkpoint.npz") as saved:
        assert json.loads(str(saved["state"]))["step"] == 3 * 2


def test_it_starts_from_given_weights(tmp_path: Path, progress: Progress) -> None:
    weights = run(stage(epochs=8, augmentation="none"), tmp_path / "a", progress)
    run(stage(epochs=1, learning_rate=1e-5, augmentation="none"), tmp_path / "b", progress, start=weights)
    assert history(tmp_path / "b")[0]["loss"] < 0.8 * history(tmp_path / "a")[0]["loss"]


def test_what_comes_after_training_is_in_float32(tmp_path: Path, progress: Progress) -> None:
    weights = run(stage(epochs=1), tmp_path, progress)
    model = network.build(2, 40)
    network.load_weights(model, weights)
    before = predict(model, drawn().pixels, 40)
    rounded_to_bf16 = (before.view(np.uint32) & 0xFFFF == 0).mean()
    assert rounded_to_bf16 < 0.1


def test_the_pace_warms_up_and_comes_to_rest() -> None:
    plan = stage(warm_up=0.1, final=0.2)
    assert pace(0.0, plan) == 0.01
    assert pace(0.05, plan) == pytest.approx(0.5)
    assert pace(0.1, plan) == pytest.approx(1.0)
    assert pace(1.0, plan) == pytest.approx(0.2)


def test_progress_can_be_read_while_it_goes_on(tmp_path: Path, progress: Progress) -> None:
    watch = Watch(tmp_path, progress)
    watch.task("binary")
    films = drawn()
    fit(stage(epochs=2), net(), films, films, tmp_path, watch, start=None)
    told = json.loads((tmp_path / "progress.json").read_text())
    assert (told["task"], told["stage"], told["epoch"], told["epochs"], told["step"]) == ("binary", "t", 2, 2, 16)
    assert [epoch["epoch"] for epoch in told["history"]] == [1, 2]
    assert told["films_per_second"] > 0
    assert list((tmp_path / "tensorboard").rglob("events*"))


def on_jax(folder: Path, code: str, **environment: str) -> list[dict[str, float]]:
    """The same loop in a process of its own, on JAX; its curve."""
    lines = (
        "from pathlib import Path; import sys, keras; from rich.progress import Progress",
        "from tests.training import conftest, test_fit; from training import network, speed",
        "assert keras.backend.backend() == 'jax'",
        "network.build = conftest.small_build",
        code,
        "with Progress(disable=True) as bar: test_fit.run(test_fit.stage(epochs=6), Path(sys.argv[1]), bar)",
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", "\n".join(lines), folder],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"} | environment,
        cwd=root,
        check=True,
        timeout=280,
    )
    return history(folder)


def test_it_learns_on_another_backend_too(tmp_path: Path) -> None:
    """Nothing here knows the Keras backend."""
    curve = on_jax(tmp_path, "")
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_the_way_of_several_gpus(tmp_path: Path) -> None:
    """Two devices that JAX makes of this processor: batches over both, layers in bfloat16, weights in float32."""
    code = (
        "speed.gpus = lambda: 2\n"
        "assert speed.prepare() == '2 GPU, jax'\n"
        "assert len(keras.distribution.distribution().device_mesh.devices.flatten()) == 2"
    )
    code += "\nwhole = test_fit.drawn(); test_fit.drawn = lambda: test_fit.Films("  # a number that two do not divide
    code += "pixels=whole.pixels, members=whole.members[:63], targets=whole.targets[:63])"
    curve = on_jax(tmp_path, code, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert {w.dtype for w in read_weights(tmp_path / "weights.npz").values()} == {np.dtype(np.float32)}
