"""The whole flow on one screen: index, split, cache, train in stages, calibrate, evaluate, export."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import keras
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from schemas.card import Calibration, ModelCard
from schemas.findings import FINDINGS, LABELS, Label
from training import calibrate, densenet, evaluate
from training.export import rounded, write_bundle
from training.fit import Films, Stage, fit, predict
from training.golden import golden_films
from training.nih_index import NihFilm, read_index, targets
from training.pixel_cache import pixel_cache
from training.split import Split, read_list, split
from worker.tensor.image_file import open_image
from worker.tensor.recipe import SIZE

log = logging.getLogger("hilum.training")

TABLE: Final = "Data_Entry_2017_v2020.csv"
CACHE_SIZE: Final = 128
TEACHER_SHARE: Final = 0.5  # of the target, where a film has soft targets
SENSITIVITY: Final = 0.8  # that the operating points aim at, on validation films

# DenseNet is fully convolutional: most of the schedule runs on small films, the end at the size that is served.
# Minutes are shares of the order's; epochs are only a ceiling.
STAGES: Final = (
    Stage(name="96 px", size=96, epochs=16, minutes=0.30, batch=24, learning_rate=1.5e-3, final=0.4),
    Stage(name="112 px", size=112, epochs=16, minutes=0.33, batch=24, learning_rate=1e-3, final=0.3),
    Stage(name="224 px", size=224, epochs=6, minutes=0.25, batch=16, learning_rate=5e-4),
)
BINARY: Final = Stage(name="binary", size=224, epochs=3, minutes=0.08, batch=16, learning_rate=1e-4)

LIMITS: Final = (
    "Films of one hospital only (NIH Clinical Center, 1992 to 2015), PA and AP, all ages; no lateral views.",
    f"Trained on films reduced to {CACHE_SIZE} px: what is finer than that was never seen.",
    "Labels were mined from reports by software; NIH puts their accuracy above 90 %, not at 100 %.",
    "How often a finding occurs in these films is not how often it occurs elsewhere: probabilities and thresholds must "
    "be set again at the site.",
)
TEACHER_LIMIT: Final = (
    "Some training targets come from a published model whose own training films may include patients of the test "
    "list: the test figures may flatter."
)

Weights: TypeAlias = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What to train on, for how long, and what to call it."""

    nih: Path
    run: Path
    bundle: Path
    minutes: float
    name: str
    version: str
    teacher: Path | None = None
    seed: int = 0


def train(order: Order, progress: Progress) -> ModelCard:
    """Carry the order out; stages that an interrupted run finished are not trained again."""
    index = read_index(order.nih / TABLE, [order.nih])
    films = index.films
    lacking = (index.without_film, index.without_row)
    log.info("index films=%d without_film=%d without_row=%d", len(films), *map(len, lacking))
    sides = split(
        films,
        train_list=read_list(order.nih / "train_val_list.txt"),
        test_list=read_list(order.nih / "test_list.txt"),
        seed=order.seed,
    )
    log.info("split train=%d validation=%d test=%d", *map(len, (sides.train, sides.validation, sides.test)))
    cache = pixel_cache(films, order.run / "cache", CACHE_SIZE, progress)
    readable = frozenset(np.flatnonzero(cache.readable).tolist())
    log.info("cache readable=%d unreadable=%d", len(readable), len(films) - len(readable))
    hard = targets(films)
    soft = soften(hard, films, order.teacher) if order.teacher else hard

    def side(members: Sequence[int], wanted: NDArray[np.float32]) -> Films:
        kept = [i for i in members if i in readable]
        return Films(pixels=cache.pixels[kept], targets=wanted[kept])

    def run(stage: Stage, wanted: NDArray[np.float32], truth: NDArray[np.float32], start: Weights | None) -> Weights:
        stage = replace(stage, minutes=stage.minutes * order.minutes, seed=order.seed)
        films_of = (side(sides.train, wanted), side(sides.validation, truth))
        return fit(stage, *films_of, order.run / stage.name, progress, start=start)

    multilabel: Weights | None = None
    for stage in STAGES:
        multilabel = run(stage, soft, hard, multilabel)
    assert multilabel is not None  # noqa: S101 - STAGES is not empty
    binary = run(BINARY, any_finding(hard), any_finding(hard), binary_head(multilabel))

    # From here on what is served: the films through the whole recipe, the weights as they are exported.
    served = {"multilabel": rounded(multilabel), "binary": rounded(binary)}
    truth = np.concatenate([any_finding(hard), hard], axis=1)  # columns: binary, then `LABELS`

    def logits(members: Sequence[int]) -> NDArray[np.float32]:
        pixels = [open_image(films[i].path) for i in members]
        return np.concatenate([predict(served[name], pixels, SIZE) for name in ("binary", "multilabel")], axis=1)

    validation = [i for i in sides.validation if i in readable]
    calibration, thresholds = points(logits(validation), truth[validation])
    test = [i for i in sides.test if i in readable]
    metrics = {"test": measure(logits(test), truth[test], [films[i].patient for i in test], calibration, thresholds)}
    card = write_bundle(
        order.bundle,
        binary=_model(binary),
        multilabel=_model(multilabel),
        golden=golden_films(SIZE),
        card={
            "name": order.name,
            "version": order.version,
            "calibration": calibration,
            "thresholds": thresholds,
            "split_hash": sides.digest,
            "metrics": metrics,
            "training": _provenance(order, sides),
            "limits": (*LIMITS, TEACHER_LIMIT) if order.teacher else LIMITS,
            "provenance": "NIH ChestX-ray14, NIH Clinical Center (Wang et al., CVPR 2017); official training list",
        },
    )
    log.info("bundle macro=%s binary=%s", metrics["test"]["macro_auroc"], metrics["test"]["binary"]["auroc"])
    return card


def soften(hard: NDArray[np.float32], films: Sequence[NihFilm], teacher: Path) -> NDArray[np.float32]:
    """Mix a published model's probabilities into the targets of the films that it has read."""
    row_of = {film.name: i for i, film in enumerate(films)}
    mixed = hard.copy()
    with teacher.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            i = row_of.get(row["Image Index"])
            if i is not None:
                for label in FINDINGS:
                    k = LABELS.index(label)
                    mixed[i, k] += TEACHER_SHARE * (float(row[f"prob_{label}"]) - mixed[i, k])
    return mixed


def any_finding(wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (N, 15) -> (N, 1): 1 minus "No Finding"."""
    k = LABELS.index(Label.NO_FINDING)
    return 1.0 - wanted[:, k : k + 1]


def binary_head(weights: Weights) -> Weights:
    """The binary model to begin with: the multilabel backbone and its "No Finding" turned round."""
    k = LABELS.index(Label.NO_FINDING)
    kernel, bias = weights["maps/kernel"], weights["maps/bias"]
    return weights | {"maps/kernel": -kernel[..., k : k + 1], "maps/bias": -bias[k : k + 1]}


def points(logits: NDArray[np.float32], truth: NDArray[np.float32]) -> tuple[dict[str, Calibration], dict[str, float]]:
    """Calibration and operating point of "binary" and each label; columns (N, 16) in that order."""
    calibration, thresholds = {}, {}
    for k, name in enumerate(_COLUMNS):
        calibration[name] = calibrate.platt(logits[:, k], truth[:, k])
        probabilities = calibrate.probability(logits[:, k], calibration[name])
        thresholds[name] = calibrate.operating_point(probabilities, truth[:, k], sensitivity=SENSITIVITY)
    return calibration, thresholds


def measure(
    logits: NDArray[np.float32],
    truth: NDArray[np.float32],
    patients: Sequence[int],
    calibration: dict[str, Calibration],
    thresholds: dict[str, float],
) -> dict[str, Any]:
    """Every figure of one side of the split, for the card."""
    each = {
        name: evaluate.figures(
            truth[:, k], calibrate.probability(logits[:, k], calibration[name]), thresholds[name], patients
        )
        for k, name in enumerate(_COLUMNS)
    }
    findings = slice(1, 1 + len(FINDINGS))
    macro = evaluate.interval(lambda w: evaluate.macro_auroc(truth[:, findings], logits[:, findings], w), patients)
    return {
        "films": len(truth),
        "patients": len(set(patients)),
        "macro_auroc": macro,
        "binary": each.pop("binary"),
        "findings": each,
    }


_COLUMNS: Final = ("binary", *LABELS)


def _model(weights: Weights) -> keras.Model:
    model = densenet.build(weights["maps/bias"].shape[0], SIZE)
    densenet.load_weights(model, weights)
    return model


def _provenance(order: Order, sides: Split) -> dict[str, Any]:
    return {
        "films": {"train": len(sides.train), "validation": len(sides.validation), "test": len(sides.test)},
        "seed": order.seed,
        "stages": [
            {
                "name": stage.name,
                "size": stage.size,
                "batch": stage.batch,
                "learning_rate": stage.learning_rate,
                "augmentation": asdict(stage.augmentation),
                "history": json.loads((order.run / stage.name / "history.json").read_text(encoding="utf-8")),
            }
            for stage in (*STAGES, BINARY)
        ],
        "soft_targets": order.teacher.name if order.teacher else None,
    }
