"""Where on a film the evidence for a finding lies: research mode alone shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    """The class activation map of one finding on one film, at the grid of the model.

    `values` float32 (h, w) cover the whole film, whatever its shape; their mean and the model's bias are the logit
    before calibration (Zhou et al., CVPR 2016).
    """

    finding: str  # a label, or "binary" for any finding
    model_id: str
    values: NDArray[np.float32]
