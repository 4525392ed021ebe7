"""The training loop: one stage is one model at one size, from some weights to better ones.

NumPy batches from the pixel cache and `train_on_batch`: nothing here knows the Keras backend. A stage ends after its
epochs or its minutes, whichever comes first, and its learning rate follows whichever is further, so that a stage on a
slow or shared machine still comes to rest.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from training import densenet, speed
from training.augment import Augmentation, augmented, plain
from training.evaluate import macro_auroc, number
from training.losses import positive_weights, weighted_bce

_EMA_EVERY: Final = 4  # steps; averaging seven million weights is not free

log = logging.getLogger("hilum.training")

FilmStack: TypeAlias = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
Weights: TypeAlias = Mapping[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """How long, how large, how fast."""

    name: str
    size: int  # pixels, square
    epochs: int
    minutes: float = float("inf")
    batch: int = 32
    learning_rate: float = 1e-3  # peak, of AdamW
    warm_up: float = 0.05  # share of the stage
    final: float = 0.01  # share of the peak at the end; higher where another stage follows
    weight_decay: float = 1e-2
    ema: float = 0.998  # per step
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, kw_only=True, slots=True)
class Films:
    """One side of the split."""

    pixels: NDArray[np.uint8]  # (N, s, s)
    targets: NDArray[np.float32]  # (N, K), in [0, 1]

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(kw_only=True, slots=True)
class _State:
    """Where a stage stands; saved after every epoch."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float | None]] = field(default_factory=list)


@speed.reduced_precision()
def fit(
    stage: Stage,
    train: Films,
    validation: Films,
    folder: Path,
    progress: Progress,
    *,
    start: Weights | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, NDArray[np.float32]]:
    """Run the stage, or what an earlier run left of it.

    Parameters
    ----------
    folder:
        Holds `checkpoint.npz` (rewritten after every epoch) and `history.json`.
    start:
        Weights by path; a head of another shape must not be among them. None: random.

    Returns
    -------
        The averaged (EMA) weights by Keras path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(stage.seed)
    outputs = train.targets.shape[1]
    whole = densenet.build(outputs, stage.size)
    model = speed.fused(keras.Model(whole.input, whole.output["logits"]))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # Keras' 0.99 lags behind the weights in stages of a few hundred steps
    if start is not None:
        densenet.load_weights(model, start)
    optimizer = keras.optimizers.AdamW(stage.learning_rate, weight_decay=stage.weight_decay, global_clipnorm=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    on_gpu = bool(keras.distribution.list_devices("gpu"))
    model.compile(
        optimizer, weighted_bce(positive_weights(np.round(train.targets))), jit_compile="auto" if on_gpu else False
    )
    optimizer.build(model.trainable_variables)
    state, average = _State(), densenet.weights_of(model)
    checkpoint = folder / "checkpoint.npz"
    if checkpoint.exists():
        state, average = _restore(checkpoint, model, optimizer)
    steps = max(1, len(train) // stage.batch)
    task = progress.add_task(stage.name, total=stage.epochs * steps, completed=state.step)
    began = clock() - state.seconds

    def done() -> float:
        return max(state.step / (stage.epochs * steps), (clock() - began) / (60.0 * stage.minutes))

    while done() < 1.0:
        losses = []
        for films, wanted in _batches(stage, train, state.epoch):
            optimizer.learning_rate = stage.learning_rate * _pace(done(), stage)
            model.reset_metrics()  # else the answer is a running mean, which bf16 cannot carry over an epoch
            losses.append(float(model.train_on_batch(films, wanted)))
            state.step += 1
            if state.step % _EMA_EVERY == 0:
                _average(average, model, stage.ema, state.step)
            progress.update(task, completed=state.step, description=f"{stage.name} loss {losses[-1]:.3f}")
            if done() >= 1.0:
                break
        state.epoch += 1
        state.seconds = clock() - began
        figures: dict[str, float | None] = {
            "epoch": state.epoch,
            "minutes": round(state.seconds / 60.0, 2),
            "loss": round(float(np.mean(losses)), 4),
        }
        current = densenet.weights_of(model)
        densenet.load_weights(model, average)
        figures["auroc"] = _auroc(model, validation, stage)
        densenet.load_weights(model, current)
        state.history.append(figures)
        log.info("epoch stage=%s %s", stage.name, " ".join(f"{k}={v}" for k, v in figures.items()))
        _save(checkpoint, model, optimizer, state, average)
        (folder / "history.json").write_text(json.dumps(state.history, indent=1), encoding="utf-8")
    progress.update(task, completed=stage.epochs * steps)
    return average


def predict(weights: Weights, films: FilmStack, size: int, *, batch: int = 16) -> NDArray[np.float32]:
    """Logits (N, K) of DenseNet121 with these weights; films of any shapes, each through the recipe."""
    model = densenet.build(weights["maps/bias"].shape[0], size)
    densenet.load_weights(model, weights)
    return _logits(keras.Model(model.input, model.output["logits"]), films, size, batch)


def _logits(model: keras.Model, films: FilmStack, size: int, batch: int) -> NDArray[np.float32]:
    chunks = [
        keras.ops.convert_to_numpy(model.predict_on_batch(plain(films[i : i + batch], size)))
        for i in range(0, len(films), batch)
    ]
    return np.concatenate(chunks).astype(np.float32)


def _auroc(model: keras.Model, validation: Films, stage: Stage) -> float | None:
    logits = _logits(model, validation.pixels, stage.size, 2 * stage.batch)
    return number(float(macro_auroc(validation.targets, logits)[0]))


def _average(average: dict[str, NDArray[np.float32]], model: keras.Model, ema: float, step: int) -> None:
    """Weights and batch-norm statistics alike, so that they fit each other. Early on it forgets faster."""
    keep = min(ema, (1.0 + step) / (10.0 + step)) ** _EMA_EVERY
    for path, value in densenet.weights_of(model).items():
        average[path] += (1.0 - keep) * (value - average[path])


def _pace(done: float, stage: Stage) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine."""
    if done < stage.warm_up:
        return max(done / stage.warm_up, 0.01)
    rest = min(1.0, (done - stage.warm_up) / (1.0 - stage.warm_up))
    return stage.final + (1.0 - stage.final) * 0.5 * (1.0 + float(np.cos(np.pi * rest)))


def _batches(stage: Stage, films: Films, epoch: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """One epoch in an order that depends on seed and epoch alone; the next batch is made while one is trained on."""
    rng = np.random.default_rng([stage.seed, epoch])
    order = rng.permutation(len(films))
    size = min(stage.batch, len(films))

    def make(start: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        members = np.sort(order[start : start + size])
        own = np.random.default_rng([stage.seed, epoch, start])
        return augmented(films.pixels[members], stage.size, own, stage.augmentation), films.targets[members]

    with ThreadPoolExecutor(1) as maker:
        starts = range(0, len(films) - size + 1, size)
        coming = maker.submit(make, starts[0])
        for start in starts[1:]:
            ready, coming = coming.result(), maker.submit(make, start)
            yield ready
        yield coming.result()


def _save(
    path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer, state: _State, average: Weights
) -> None:
    arrays: dict[str, Any] = {f"weight/{k}": v for k, v in densenet.weights_of(model).items()}
    arrays |= {f"average/{k}": v for k, v in average.items()}
    arrays |= {f"optimizer/{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(optimizer.variables)}
    fresh = path.with_suffix(".new.npz")
    np.savez(fresh, state=np.array(json.dumps(asdict(state))), **arrays)
    fresh.replace(path)


def _restore(
    path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> tuple[_State, dict[str, NDArray[np.float32]]]:
    with np.load(path) as saved:
        for i, variable in enumerate(optimizer.variables):
            variable.assign(saved[f"optimizer/{i}"])
        densenet.load_weights(model, {k[7:]: saved[k] for k in saved.files if k.startswith("weight/")})
        average = {k[8:]: saved[k] for k in saved.files if k.startswith("average/")}
        return _State(**json.loads(str(saved["state"]))), average
