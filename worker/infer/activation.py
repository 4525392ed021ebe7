"""One class activation map out of what the models say of a film; for research mode."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.activation import Activation
from schemas.errors import ModelError
from schemas.findings import LABELS
from schemas.image import Tensor
from worker.infer.engine import Engine

ANY_FINDING: Final = "binary"  # the map of the binary model
MAPPED: Final = (ANY_FINDING, *map(str, LABELS))


def activation(engine: Engine, tensor: Tensor, finding: str) -> Activation:
    """The map of one of `MAPPED` on one film, uint8 (size, size, 3).

    Raises
    ------
    KeyError
        No output of either model goes by that name.
    ModelError
        The runtime gave no maps, or what is not a number.
    """
    if finding not in MAPPED:
        raise KeyError(finding)
    said = engine.explain(tensor)
    maps = said.binary_maps if finding == ANY_FINDING else said.finding_maps
    if maps is None:
        raise ModelError("the runtime gives no activation maps")
    values = maps[0, :, :, 0 if finding == ANY_FINDING else MAPPED.index(finding) - 1].astype(np.float32)
    if not np.isfinite(values).all():
        raise ModelError("the activation map holds what is not a number")
    return Activation(finding=finding, model_id=engine.model_id, values=values)
