"""Two trained models to one bundle on disk; `schemas.card` says what a bundle is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from schemas.card import CARD, GOLDEN, MODELS, ModelCard
from schemas.findings import LABELS
from training import network
from training.whole_file import Unwritten
from worker.tensor.recipe import fingerprint


def write_bundle(
    folder: Path,
    *,
    binary: keras.Model,
    multilabel: keras.Model,
    golden: NDArray[np.uint8],
    card: Mapping[str, Any],
) -> ModelCard:
    """Write a bundle; all of it or nothing.

    Parameters
    ----------
    folder:
        Where it will stand; what stood there is replaced.
    binary, multilabel:
        Models of `training.network.build` at the golden inputs' size; their kernels are rounded to float16.
    golden:
        uint8 (N, size, size, 3), N >= 1: inputs whose logits travel with the bundle. Films that may be published
        (drawn ones), for they are stored as they are.
    card:
        The `ModelCard` fields that this function cannot know: name, version, architecture, thresholds, calibration,
        split_hash, ...

    Returns
    -------
        The card as written.
    """
    size = golden.shape[1]
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}-*"):  # of an export that was killed
        shutil.rmtree(left, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        logits = {}
        for name, model in zip(MODELS, (binary, multilabel), strict=True):
            weights = rounded(network.weights_of(model))
            network.load_weights(model, weights)
            (staging / f"{name}.json").write_text(_stable(model.to_json()), encoding="utf-8")
            np.savez(staging / f"{name}.npz", **weights)  # type: ignore[arg-type]
            answers = [keras.ops.convert_to_numpy(model(film[np.newaxis], training=False)["logits"]) for film in golden]
            logits[name] = np.concatenate(answers).astype(np.float32)
        np.savez_compressed(
            staging / GOLDEN, inputs=golden, binary=logits["binary"][:, 0], findings=logits["multilabel"]
        )
        written = ModelCard(
            input_size=size,
            labels=LABELS,
            recipe_fingerprint=fingerprint(size),
            files={path.name: _sha256(path) for path in sorted(staging.iterdir())},
            **card,
        )
        (staging / CARD).write_text(written.to_json(), encoding="utf-8")
        staging.chmod(0o755)
        _swap(staging, folder)
    except OSError as error:
        raise Unwritten(
            f"{folder}: cannot be written ({error.strerror or error}); make room and export again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return written


def rounded(weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.floating]]:
    """Kernels as float16; vectors stay float32, for a small batch-norm variance would lose its digits."""
    return {path: w.astype(np.float16) if w.ndim > 1 else w for path, w in weights.items()}


def _stable(config: str) -> str:
    return json.dumps(json.loads(config), sort_keys=True) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _swap(staging: Path, folder: Path) -> None:
    """Rename into place; a folder cannot be renamed over a full one, so the old one steps aside first."""
    old = folder.with_name(f".{folder.name}-old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    staging.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
