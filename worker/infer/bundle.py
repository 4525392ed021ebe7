"""Open a model bundle and prove it: every hash, the tensor recipe, the golden vectors on the runtime that serves."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.card import CARD, GOLDEN, MODELS, ModelCard, model_id, read_card
from schemas.errors import BundleInvalid, GoldenMismatch, RecipeMismatch
from schemas.findings import LABELS
from worker.infer.calibrate import OUTPUTS, Platt
from worker.ports import Logits, Runtime

TOLERANCE: Final = 0.01  # on calibrated probabilities, between training's float32 and whatever the runtime computes in
UNDECIDED: Final = 0.1  # log-odds from an operating point within which a golden film proves nothing about its flag
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
REQUIRED: Final = (*(f"{model}.{kind}" for model in MODELS for kind in ("json", "npz")), GOLDEN)
RESTORE: Final = "restore the bundle from where it came from"

Weights = Mapping[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A bundle whose files are what its card says; `open_bundle` makes it."""

    folder: Path
    card: ModelCard
    model_id: str
    platt: Platt = field(repr=False)

    def graph(self, model: str) -> str:
        """Keras functional config (JSON) of "binary" or "multilabel"."""
        return (self.folder / f"{model}.json").read_text(encoding="utf-8")

    def weights(self, model: str) -> Weights:
        """Keras variable path → array, float16 or float32."""
        return _arrays(self.folder / f"{model}.npz")

    def replay(self, runtime: Runtime) -> None:
        """The golden inputs must give the golden outputs, on this machine and this runtime.

        Raises
        ------
        GoldenMismatch
            A calibrated probability is off by more than 0.01 or is not a number, or a film that is clear of an
            operating point falls on its other side.
        BundleInvalid
            The golden vectors themselves are not usable.
        """
        path = self.folder / GOLDEN
        golden = _arrays(path)
        try:
            inputs = np.asarray(golden["inputs"])
            binary, findings = golden["binary"], golden["findings"]
        except KeyError as error:
            raise BundleInvalid(f"{path}: no array {error}; export the bundle again") from error
        size = self.card.input_size
        count = len(inputs)
        if (
            count == 0
            or inputs.dtype != np.uint8
            or inputs.shape[1:] != (size, size, 3)
            or binary.shape != (count,)
            or findings.shape != (count, len(LABELS))
        ):
            raise BundleInvalid(f"{path}: arrays have the wrong shape or are empty; export the bundle again")
        want, got = Logits(binary, findings), runtime.run(inputs)
        want_p, got_p = self.platt.probabilities(want), self.platt.probabilities(got)
        where = f"bundle {self.card.name} {self.card.version} on {runtime.name} ({runtime.device})"
        off = np.nan_to_num(np.abs(want_p - got_p), nan=np.inf)
        film, column = np.unravel_index(np.argmax(off), off.shape)
        if off[film, column] > TOLERANCE:
            raise GoldenMismatch(
                f"{where}: golden film {film}, {OUTPUTS[column]}: {got_p[film, column]:.4f} instead of "
                f"{want_p[film, column]:.4f}; try another [model] runtime, or export the bundle again"
            )
        limits = np.array([self.card.thresholds.get(name, np.nan) for name in OUTPUTS])
        clear = np.abs(self.platt.log_odds(want) - _log_odds(limits)) > UNDECIDED
        for film, column in np.argwhere(clear & ((want_p >= limits) != (got_p >= limits))):
            raise GoldenMismatch(
                f"{where}: golden film {film}, {OUTPUTS[column]}: {got_p[film, column]:.4f} and "
                f"{want_p[film, column]:.4f} lie on different sides of the threshold {limits[column]:.4f}; "
                "try another [model] runtime, or export the bundle again"
            )


def open_bundle(name: str, stores: Iterable[Path], fingerprint: Callable[[int], str]) -> Bundle:
    """Find a bundle, check every hash and the tensor recipe.

    Parameters
    ----------
    name:
        A name, looked up in each of `stores` in turn, or the path of a folder (anything with a separator in it).
    stores:
        Folders of bundles, the site's own first.
    fingerprint:
        Of the worker's tensor recipe at an input size.

    Raises
    ------
    BundleInvalid
        Not found; a file missing, changed or not listed; a card without calibration or threshold for an output.
    RecipeMismatch
        Trained on tensors that this worker does not make.
    """
    folder = _find(name, list(stores))
    card = read_card(folder)
    missing = sorted(set(REQUIRED) - set(card.files))
    if missing:
        raise BundleInvalid(f"{folder / CARD}: does not list {', '.join(missing)}; export the bundle again")
    for file, digest in card.files.items():
        if not NAME.fullmatch(file):
            raise BundleInvalid(f"{folder / CARD}: {file!r} is not a file name; {RESTORE}")
        if _sha256(folder / file) != digest:
            raise BundleInvalid(f"{folder / file}: is not the file that the card describes (SHA-256); {RESTORE}")
    for output, threshold in card.thresholds.items():
        if not isinstance(threshold, int | float) or not 0.0 <= threshold <= 1.0:
            raise BundleInvalid(f"{folder / CARD}: threshold of {output} is {threshold!r}, not in [0, 1]; {RESTORE}")
    platt = Platt(card)
    mine = fingerprint(card.input_size)
    if card.recipe_fingerprint != mine:
        raise RecipeMismatch(
            f"{folder}: trained on tensor recipe {card.recipe_fingerprint}, this worker makes {mine}; "
            "install the version of hilum (and of Pillow) that trained it, or train the bundle again"
        )
    return Bundle(folder=folder, card=card, model_id=model_id(card), platt=platt)


def _find(name: str, stores: list[Path]) -> Path:
    if not NAME.fullmatch(name):
        return Path(name)
    for store in stores:
        if (store / name).is_dir():
            return store / name
    have = sorted({card.parent.name for store in stores for card in store.glob(f"*/{CARD}")})
    raise BundleInvalid(
        f"no model bundle named {name!r} in {', '.join(map(str, stores))}"
        + (f"; there are: {', '.join(have)}" if have else "; the store is empty: train one, or copy one there")
    )


def _log_odds(p: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):  # 0 and 1 are infinitely far
        return np.log(p) - np.log1p(-p)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleInvalid(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from error


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BundleInvalid(f"{path}: not an archive of arrays ({error}); {RESTORE}") from error
