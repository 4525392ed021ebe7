"""A bundle for other programs: OpenVINO's IR, or Keras' own files. What is written is read back and proven.

TensorFlow is imported here only when Keras files are asked for.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.card import CARD, GOLDEN, MODELS
from schemas.errors import BundleInvalid, ConfigurationError, GoldenMismatch
from schemas.findings import LABELS
from worker.infer.answers import OUTPUTS, joined
from worker.infer.bundle import TOLERANCE, Bundle
from worker.infer.choose import INSTALL, cores, load_runtime
from worker.infer.store import placed
from worker.ports import Logits, Runtime

LABELS_FILE: Final = "labels.txt"  # columns of the multilabel model, one a line
EXACT: Final = 1e-3  # logits; between the mean of a map and its logit, in float32


def export_openvino(bundle: Bundle, target: Path, *, half: bool = False, replace: bool = False) -> float:
    """`binary.xml`, `binary.bin` and the same of the multilabel model, card.json and labels.txt in the folder `target`.

    Each model takes uint8 (N, size, size, 3), any N, and gives "logits" and "maps", float32, channels last.

    Parameters
    ----------
    half:
        Weights in float16: half the size.
    replace:
        Put it in the place of what is there.

    Returns
    -------
        The largest difference from the golden probabilities, of what was read back.

    Raises
    ------
    ModelError
        The bundle cannot be built, or what was written does not give its golden answers; then nothing is left.
    ConfigurationError
        OpenVINO is not installed, `target` is there already, or the disk said no.
    """
    _installed("openvino")
    import openvino as ov

    from worker.infer import keras_graph

    class Exported(_Answers):
        name = "openvino"
        device = f"IR {'f16' if half else 'f32'}"

        def __init__(self, folder: Path) -> None:
            core = ov.Core()
            options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cores()}
            read = {model: core.read_model(folder / f"{model}.xml") for model in MODELS}
            self._models = {model: core.compile_model(graph, "CPU", options) for model, graph in read.items()}

        def answer(self, model: str, film: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            answers = self._models[model]({0: film})
            return {output: answers[output].copy() for output in OUTPUTS}

    with placed(target, replace=replace) as folder:
        for model in MODELS:
            graph = keras_graph.build(bundle.graph(model), bundle.weights(model))
            graph.friendly_name = f"{bundle.card.name}-{model}"
            for key, value in _about(bundle, model).items():
                graph.set_rt_info(value, ["hilum", key])
            ov.save_model(graph, folder / f"{model}.xml", compress_to_fp16=half)
        return _finish(bundle, folder, Exported)


def export_keras(bundle: Bundle, target: Path, *, replace: bool = False) -> float:
    """`binary.keras`, `multilabel.keras`, card.json and labels.txt in the folder `target`.

    Each loads by `keras.models.load_model`, takes uint8 (N, size, size, 3) and gives {"logits", "maps"}.

    Returns and raises as `export_openvino`, of Keras and TensorFlow.
    """
    _installed("tensorflow")
    from worker.infer import tensorflow as served  # first: it quietens TensorFlow before that is imported

    import keras  # isort: skip

    class Exported(_Answers):
        name = "tensorflow"
        device = "keras"

        def __init__(self, folder: Path) -> None:
            self._models = {m: keras.models.load_model(folder / f"{m}.keras", compile=False) for m in MODELS}

        def answer(self, model: str, film: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
            answers = self._models[model](film, training=False)
            return {output: np.asarray(answers[output]) for output in OUTPUTS}

    with placed(target, replace=replace) as folder:
        for model in MODELS:
            served.keras_model(bundle, model).save(folder / f"{model}.keras")
        return _finish(bundle, folder, Exported)


def prove(bundle: Bundle, runtimes: tuple[str, ...], *, threads: int = 0) -> dict[str, float]:
    """Replay the golden vectors on each of the runtimes, and hold them against one another.

    Returns
    -------
        Runtime (and device) → largest difference from the golden probabilities; "parity" → the largest between two.

    Raises
    ------
    ModelError
        A runtime does not give the golden answers, or two of them differ.
    """
    found: dict[str, float] = {}
    answers: dict[str, NDArray[np.float64]] = {}
    for name in runtimes:
        runtime = load_runtime(name, bundle, threads=threads)  # replays them
        try:
            inputs, want = _golden(bundle)
            answers[name] = bundle.platt.probabilities(runtime.run(inputs))
        finally:
            runtime.close()
        found[f"{runtime.name} ({runtime.device})"] = float(np.abs(answers[name] - want).max())
    if len(answers) > 1:
        first, *others = answers.values()
        found["parity"] = max(float(np.abs(other - first).max()) for other in others)
        if not found["parity"] <= TOLERANCE:
            raise GoldenMismatch(
                f"bundle {bundle.card.name} {bundle.card.version}: {' and '.join(answers)} differ by "
                f"{found['parity']:.4f} on the golden films; serve it by the one that trained it ([model] runtime)"
            )
    return found


def installed_runtimes() -> tuple[str, ...]:
    """Those of "openvino" and "tensorflow" that this Python has."""
    return tuple(name for name in ("openvino", "tensorflow") if importlib.util.find_spec(name) is not None)


class _Answers:
    """Enough of `worker.ports.Runtime` to replay golden vectors on, film by film."""

    name = ""
    device = ""
    best_batch = 1

    def answer(self, model: str, film: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """uint8 (1, size, size, 3) -> "logits" (1, K) and "maps" (1, h, w, K)."""
        raise NotImplementedError

    def run(self, batch: NDArray[np.uint8], *, maps: bool = False) -> Logits:
        """As `worker.ports.Runtime.run`."""
        parts: dict[tuple[str, str], list[NDArray[np.float32]]] = defaultdict(list)
        for i in range(len(batch)):
            for model in MODELS:
                answers = self.answer(model, batch[i : i + 1])
                for output in OUTPUTS if maps else OUTPUTS[:1]:
                    parts[model, output].append(answers[output])
        return joined(parts)

    def close(self) -> None:
        """Nothing to release."""


def _finish(bundle: Bundle, folder: Path, read_back: Callable[[Path], Runtime]) -> float:
    """Prove what was written, and put the card and the labels beside it."""
    try:
        exported = read_back(folder)
        bundle.replay(exported)
    except (RuntimeError, ValueError, LookupError, TypeError) as error:  # as OpenVINO and Keras refuse a file
        first = str(error).strip().partition("\n")[0]
        raise BundleInvalid(f"bundle {bundle.card.name}: what was written cannot be read back ({first})") from error
    inputs, want = _golden(bundle)
    logits = exported.run(inputs, maps=True)
    assert logits.binary_maps is not None and logits.finding_maps is not None  # noqa: S101  asked for above
    means = np.column_stack([m.mean(axis=(1, 2)) for m in (logits.binary_maps, logits.finding_maps)])
    off = float(np.abs(means - np.column_stack([logits.binary, logits.findings])).max())
    if not off <= EXACT * max(1.0, float(np.abs(means).max())):
        raise GoldenMismatch(
            f"bundle {bundle.card.name}: the mean of a map is off its logit by {off:.4f}; not exported"
        )
    shutil.copyfile(bundle.folder / CARD, folder / CARD)
    (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
    return float(np.abs(bundle.platt.probabilities(logits) - want).max())


def _golden(bundle: Bundle) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Inputs and calibrated probabilities of a bundle whose golden vectors were replayed, so that they are whole."""
    with np.load(bundle.folder / GOLDEN, allow_pickle=False) as golden:
        return golden["inputs"], bundle.platt.probabilities(Logits(golden["binary"], golden["findings"]))


def _about(bundle: Bundle, model: str) -> dict[str, str]:
    """What an IR says of itself, without its card at hand."""
    card = bundle.card
    return {
        "name": card.name,
        "version": card.version,
        "model_id": bundle.model_id,
        "labels": "any finding" if model == "binary" else ", ".join(LABELS),
        "recipe_fingerprint": card.recipe_fingerprint,
        "intended_use": card.intended_use,
        "licence": card.licence,
    }


def _installed(name: str) -> None:
    if name not in installed_runtimes():
        raise ConfigurationError(f"{name} is not installed here; {INSTALL}")
