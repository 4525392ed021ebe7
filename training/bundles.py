"""Bundles as training sees them: weights to start from, a model to keep, a rival to be measured against."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from schemas.card import ModelCard, read_card
from schemas.errors import BundleInvalid
from training.description import PACKAGED, Task
from training.network import Weights, load_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A folder whose files are what its card says."""

    folder: Path
    card: ModelCard

    def weights(self, task: Task) -> Weights:
        """By Keras variable path."""
        with np.load(self.folder / f"{task}.npz", allow_pickle=False) as file:
            return dict(file)

    def model(self, task: Task) -> keras.Model:
        """uint8 (N, size, size, 3) -> {"logits", "maps"}, in float32."""
        model = keras.models.model_from_json((self.folder / f"{task}.json").read_text(encoding="utf-8"))
        load_weights(model, self.weights(task))
        return model


def find(name: str, stores: Sequence[Path] = ()) -> Bundle:
    """A bundle by its folder (anything with a separator in it), or by its name in one of the stores or in hilum's own.

    Raises
    ------
    BundleInvalid
        There is none, or a file is not the one that its card describes.
    """
    folders = [Path(name)] if "/" in name else [store / name for store in (*stores, PACKAGED)]
    folder = next((f for f in folders if (f / "card.json").is_file()), None)
    if folder is None:
        raise BundleInvalid(f"no model bundle {name!r}: looked for {', '.join(str(f) for f in folders)}")
    card = read_card(folder)
    for file, digest in card.files.items():
        path = folder / Path(file).name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise BundleInvalid(f"{path}: missing, or not the file that the card describes; copy the bundle again")
    return Bundle(folder=folder, card=card)
