"""The training loop: one stage is one network at one size, from some weights to better ones.

NumPy batches from the pixel cache and `train_on_batch`: nothing here knows the Keras backend. The order of the films
and every change made to them depend on the seed, the epoch and the batch alone, and a checkpoint holds all that an
epoch ends with: a run that was killed goes on to the same curve.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from schemas.errors import HilumError
from training import network, speed
from training.augment import AUGMENTATIONS, augmented, plain
from training.description import Loss, Stage
from training.evaluate import macro_auroc, number
from training.losses import loss_of
from training.network import Weights
from training.watch import Watch
from training.whole_file import replacing, write_whole

_EMA_EVERY: Final = 4  # steps; averaging seven million weights is not free
_AHEAD: Final = 2  # batches that are being made while one is trained on
CHECKPOINT: Final = "checkpoint.npz"
HISTORY: Final = "history.json"
BEST: Final = "weights.npz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Films:
    """One side of the split."""

    pixels: NDArray[np.uint8]  # (all films, s, s), the map of the pixel cache
    members: NDArray[np.intp]  # (N,): whose they are
    targets: NDArray[np.float32]  # (N, K), in [0, 1]

    def __len__(self) -> int:
        return len(self.members)


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """What is trained."""

    backbone: str
    scaling: str  # a name of `network.SCALINGS`; empty: the backbone's own
    main: int  # the first so many outputs are the bundle's; the rest are auxiliary
    judged: tuple[int, ...]  # outputs whose mean AUROC on validation films is watched
    loss: Loss
    seed: int
    mixed_precision: bool


@dataclass(kw_only=True, slots=True)
class _State:
    """Where a stage stands; saved after every epoch."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0  # validation AUROC
    best_epoch: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)


def fit(
    stage: Stage, net: Network, train: Films, validation: Films, folder: Path, watch: Watch, *, start: Weights | None
) -> dict[str, NDArray[np.float32]]:
    """Run the stage, or what an earlier run left of it; a finished one is only read.

    Parameters
    ----------
    folder:
        Holds `checkpoint.npz` and `history.json` (rewritten after every epoch) and `weights.npz` (of the epoch with the
        best validation AUROC so far).
    start:
        Every weight of the network by its path. None: random ones.

    Returns
    -------
        The averaged (EMA) weights by Keras path, of the best epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with speed.reduced_precision(wanted=net.mixed_precision):
        model, optimizer = compiled(stage, net, train.targets, start=start)
        state, average = _State(), network.weights_of(model)
        checkpoint = folder / CHECKPOINT
        if checkpoint.exists():
            state, average = _restore(checkpoint, model, optimizer)
        batch = _batch(stage, len(train))
        batches = _epoch_size(stage, len(train)) // batch
        watch.stage(stage.name, epochs=stage.epochs, steps=batches, batch=batch, done=state.step, history=state.history)

        while state.epoch < stage.epochs and not _out_of_patience(stage, state):
            losses = _epoch(stage, net, model, optimizer, train, state, average, batches, watch)
            state.epoch += 1
            rate = batches * batch / max(watch.epoch_seconds(), 1e-9)
            current = network.weights_of(model)
            network.load_weights(model, average)
            logits = _logits(model, validation.pixels, validation.members, stage.size, batch)
            network.load_weights(model, current)
            judged = list(net.judged)
            auroc = number(float(macro_auroc(validation.targets[:, judged], logits[:, judged])[0]))
            state.seconds += watch.epoch_seconds()
            state.history.append(
                {
                    "epoch": state.epoch,
                    "minutes": round(state.seconds / 60.0, 2),
                    "loss": round(float(np.mean(losses)), 5),
                    "auroc": auroc,
                    "learning_rate": round(float(keras.ops.convert_to_numpy(optimizer.learning_rate)), 8),
                    "films_per_second": round(rate, 1),
                }
            )
            if auroc is None or auroc > state.best:  # where it cannot be told, the last epoch is as good as any
                state.best, state.best_epoch = auroc or 0.0, state.epoch
                save_weights(folder / BEST, average)
            _save(checkpoint, model, optimizer, state, average)
            write_whole(folder / HISTORY, json.dumps(state.history, indent=1))
            watch.epoch(state.history)
    return read_weights(folder / BEST)


def compiled(
    stage: Stage, net: Network, targets: NDArray[np.float32], *, start: Weights | None
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """The network as it is trained: uint8 (N, size, size, 3) -> logits float32 (N, K), ready for `train_on_batch`."""
    outputs = targets.shape[1]
    keras.utils.set_random_seed(net.seed)
    whole = network.build(outputs, stage.size, net.backbone, scaling=net.scaling)
    model = speed.fused(keras.Model(whole.input, whole.output["logits"]))
    if start is not None:
        network.load_weights(model, start)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = stage.momentum  # Keras' 0.99 lags behind the weights in stages of some hundred steps
        if stage.train == "head" and layer.name != "maps":
            layer.trainable = False
    optimizer = keras.optimizers.AdamW(stage.learning_rate, weight_decay=stage.weight_decay, global_clipnorm=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.compile(optimizer, loss_of(net.loss, targets, net.main), jit_compile=speed.jit())
    optimizer.build(model.trainable_variables)
    return model, optimizer


def predict(
    model: keras.Model, pixels: Sequence[NDArray[np.uint8]], size: int, *, batch: int = 16
) -> NDArray[np.float32]:
    """Logits (N, K) of a network of `network.build`; films of any shapes, each through the recipe."""
    return _logits(keras.Model(model.input, model.output["logits"]), pixels, range(len(pixels)), size, batch)


def save_weights(path: Path, weights: Weights) -> None:
    """All of it or nothing, on the disk. Raises `Unwritten`."""
    with replacing(path) as file:
        np.savez(file, **weights)  # type: ignore[arg-type]


def read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """What `save_weights` wrote.

    Raises
    ------
    Damaged
        It is something else by now.
    """
    with _readable(path), np.load(path, allow_pickle=False) as saved:
        return dict(saved)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, TypeError, struct.error, zlib.error) as error:
        raise Damaged(
            f"{path}: damaged, or of another network ({type(error).__name__}); remove {path.parent} to train that part "
            "again, or name another folder (--run-folder)"
        ) from error


class Damaged(HilumError):
    """A checkpoint or weights that cannot be read."""


def _epoch(
    stage: Stage,
    net: Network,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    train: Films,
    state: _State,
    average: dict[str, NDArray[np.float32]],
    batches: int,
    watch: Watch,
) -> list[float]:
    """One time through the films; `state.step` and `average` move on."""
    losses = []
    for films, wanted in batches_of(stage, train, net.seed, state.epoch):
        optimizer.learning_rate = stage.learning_rate * pace(state.step / (stage.epochs * batches), stage)
        model.reset_metrics()  # else the answer is a running mean, which bf16 cannot carry over an epoch
        losses.append(float(model.train_on_batch(films, wanted)))
        if not np.isfinite(losses[-1]):
            raise Diverged(
                f"stage {stage.name}, epoch {state.epoch + 1}: the loss is {losses[-1]}; "
                "a lower learning_rate or a longer warm_up is the usual mend"
            )
        state.step += 1
        if state.step % _EMA_EVERY == 0 or state.step % batches == 0:
            _average(average, model, stage.ema, state.step)
        watch.step(state.step, len(films), losses[-1])
    return losses


class Diverged(HilumError):
    """The loss is no number any more."""


def _out_of_patience(stage: Stage, state: _State) -> bool:
    return stage.patience > 0 and state.epoch - state.best_epoch >= stage.patience


def _batch(stage: Stage, films: int) -> int:
    """As asked for, where there are so many films; the same number for each device."""
    devices = speed.devices()
    return max(devices, min(stage.batch, films) // devices * devices)


def _epoch_size(stage: Stage, films: int) -> int:
    return min(stage.films or films, films)


def _logits(
    model: keras.Model, pixels: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], members: Any, size: int, batch: int
) -> NDArray[np.float32]:
    chunks = []
    for first in range(0, len(members), batch):
        films = plain([pixels[int(i)] for i in members[first : first + batch]], size)
        # Every chunk of one shape: devices share it evenly, and nothing is compiled twice.
        padded = np.concatenate([films, np.repeat(films[-1:], batch - len(films), axis=0)])
        chunks.append(keras.ops.convert_to_numpy(model.predict_on_batch(padded))[: len(films)])
    return np.concatenate(chunks).astype(np.float32)


def _average(average: dict[str, NDArray[np.float32]], model: keras.Model, ema: float, step: int) -> None:
    """Weights and batch-norm statistics alike, so that they fit each other. Early on it forgets faster."""
    keep = min(ema, (1.0 + step) / (10.0 + step)) ** _EMA_EVERY
    for path, value in network.weights_of(model).items():
        average[path] += (1.0 - keep) * (value - average[path])


def pace(done: float, stage: Stage) -> float:
    """Share of the peak learning rate when this share of the stage is done: linear warm-up, then half a cosine."""
    if done < stage.warm_up:
        return max(done / stage.warm_up, 0.01)
    rest = min(1.0, (done - stage.warm_up) / max(1.0 - stage.warm_up, 1e-9))
    return stage.final + (1.0 - stage.final) * 0.5 * (1.0 + float(np.cos(np.pi * rest)))


def batches_of(
    stage: Stage, films: Films, seed: int, epoch: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """One epoch: uint8 (B, size, size, 3) and float32 (B, K). The next ones are made while one is trained on."""
    order = np.random.default_rng([seed, epoch]).permutation(len(films))[: _epoch_size(stage, len(films))]
    size = _batch(stage, len(films))
    how = AUGMENTATIONS[stage.augmentation]

    def make(start: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        members = np.sort(order[start : start + size])  # in the order of the map on disk
        own = np.random.default_rng([seed, epoch, start])
        return augmented(films.pixels[films.members[members]], stage.size, own, how), films.targets[members]

    workers = max(1, (os.cpu_count() or 2) - 1)
    with ThreadPoolExecutor(workers) as makers:
        coming: list[Future[tuple[NDArray[np.uint8], NDArray[np.float32]]]] = []
        for start in range(0, len(order) - size + 1, size):
            coming.append(makers.submit(make, start))
            if len(coming) > _AHEAD * workers:
                yield coming.pop(0).result()
        for ready in coming:
            yield ready.result()


def _save(
    path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer, state: _State, average: Weights
) -> None:
    arrays: dict[str, Any] = {f"weight/{k}": v for k, v in network.weights_of(model).items()}
    arrays |= {f"average/{k}": v for k, v in average.items()}
    arrays |= {f"optimizer/{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(optimizer.variables)}
    save_weights(path, {"state": np.array(json.dumps(asdict(state))), **arrays})


def _restore(
    path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> tuple[_State, dict[str, NDArray[np.float32]]]:
    with _readable(path), np.load(path, allow_pickle=False) as saved:
        for i, variable in enumerate(optimizer.variables):
            variable.assign(saved[f"optimizer/{i}"])
        network.load_weights(model, {k[7:]: saved[k] for k in saved.files if k.startswith("weight/")})
        average = {k[8:]: saved[k] for k in saved.files if k.startswith("average/")}
        return _State(**json.loads(str(saved["state"]))), average
