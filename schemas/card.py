"""The model bundle: a folder that holds both models and says what they are.

    bundle/
        card.json           this module's `ModelCard`
        binary.json         Keras functional config of the binary model (graph only)
        binary.npz          its weights, keyed by Keras variable path: kernels float16, vectors float32
        multilabel.json     the same of the 15-label model
        multilabel.npz
        golden.npz          "inputs" uint8 (N, size, size, 3); "binary" float32 (N,); "findings" float32 (N, 15):
                            logits before calibration

Each graph takes uint8 (batch, size, size, 3) and gives two outputs: "logits" float32 (batch, K), K = 1 or 15, and
"maps" float32 (batch, h, w, K), the exact class activation maps (global average pooling, then one dense layer:
Zhou et al., CVPR 2016). ImageNet scaling is inside the graph. One set of weights serves both runtimes.
`model_id` is the content address: the first 16 hex digits of SHA-256 over the sorted "name:sha256" lines of `files`
(every file but the card).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.errors import BundleInvalid
from schemas.findings import LABELS, Label

CARD: Final = "card.json"
GOLDEN: Final = "golden.npz"
MODELS: Final = ("binary", "multilabel")
LARGEST_SIDE: Final = 4096  # pixels, of a model's input


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Platt scaling on the logit z: p = 1 / (1 + exp(-(scale * z + offset)))."""

    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What a bundle says of itself. `thresholds` and `calibration` are keyed by NIH label, and "binary"."""

    name: str
    version: str
    architecture: str  # "densenet121"
    input_size: int  # pixels, square
    labels: tuple[Label, ...]
    recipe_fingerprint: str  # of `worker.tensor.recipe`
    files: Mapping[str, str]  # file name -> SHA-256
    thresholds: Mapping[str, float]  # operating points, on calibrated probabilities
    calibration: Mapping[str, Calibration]
    split_hash: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)  # data, preset, epochs, seed, code version
    intended_use: str = "Research and demonstration. Not a medical device; not for clinical use."
    limits: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    provenance: str = ""

    def to_json(self) -> str:
        """Sorted, indented JSON that `read_card` takes back."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"


def model_id(card: ModelCard) -> str:
    """Content address of a bundle, 16 hex digits: the same files are the same model, whatever the card says."""
    lines = "".join(f"{name}:{digest}\n" for name, digest in sorted(card.files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def read_card(folder: Path) -> ModelCard:
    """The card of the bundle in `folder`.

    Raises
    ------
    BundleInvalid
        No card, not JSON, a field missing, unknown or of another kind, or labels in another order than `LABELS`.
    """
    path = folder / CARD
    try:
        card = card_from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BundleInvalid(f"{path}: cannot be read ({error.strerror}); is this a model bundle?") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleInvalid(f"{path}: not a model card ({error})") from error
    if wrong := _wrong(card):
        raise BundleInvalid(f"{path}: {', '.join(wrong)}: not what a card has there; restore the bundle")
    if card.labels != LABELS:
        raise BundleInvalid(f"{path}: labels are not the 15 of NIH in the order of schemas.findings.LABELS")
    return card


def card_from_json(raw: Mapping[str, Any]) -> ModelCard:
    """Back from JSON. Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` for what is no card's."""
    return ModelCard(
        **{
            **raw,
            "labels": tuple(Label(x) for x in raw["labels"]),
            "limits": tuple(raw.get("limits", ())),
            "calibration": {k: Calibration(**v) for k, v in raw["calibration"].items()},
        }
    )


def _wrong(card: ModelCard) -> list[str]:
    """Fields that are of another kind than they should be."""
    tables = {"files": card.files, "thresholds": card.thresholds, "metrics": card.metrics, "training": card.training}
    texts = ("name", "version", "architecture", "recipe_fingerprint", "split_hash", "intended_use", "licence")
    wrong = [name for name, table in tables.items() if not isinstance(table, Mapping)]
    wrong += [name for name in (*texts, "provenance") if not isinstance(getattr(card, name), str)]
    size = card.input_size
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= LARGEST_SIDE:
        wrong.append("input_size")
    if "files" not in wrong and not all(isinstance(digest, str) for digest in card.files.values()):
        wrong.append("files")
    return wrong
