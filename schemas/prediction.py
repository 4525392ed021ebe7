"""What the two models said of one film."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.findings import Label


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Calibrated probabilities in [0, 1].

    `binary` is the probability of any finding (1 minus "No Finding") from the binary model;
    `findings` holds all 15 labels of the multilabel model in `LABELS` order.
    """

    model_id: str
    binary: float
    findings: Mapping[Label, float]
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, p in (("binary", self.binary), *self.findings.items()):
            if not 0.0 <= p <= 1.0:
                raise ValueError(f"{name}: probability {p!r} is not in [0, 1]")
