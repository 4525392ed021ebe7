"""What a runtime gathers from the two graphs, part by part, and how it becomes `Logits`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.ports import Logits

OUTPUTS: Final = ("logits", "maps")  # of each graph, see `schemas.card`


def joined(answers: Mapping[tuple[str, str], Sequence[NDArray[np.float32]]]) -> Logits:
    """(model, output) -> parts of a batch in its order, float32 (n, …); maps may be missing."""
    whole = {key: np.concatenate(parts) for key, parts in answers.items()}
    return Logits(
        whole["binary", "logits"][:, 0],
        whole["multilabel", "logits"],
        whole.get(("binary", "maps")),
        whole.get(("multilabel", "maps")),
    )
