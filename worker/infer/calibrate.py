"""Logits to probabilities, as the card says."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.card import ModelCard
from schemas.errors import BundleInvalid
from schemas.findings import LABELS
from worker.ports import Logits

OUTPUTS: Final = ("binary", *LABELS)  # the columns of everything here, and the keys of a card


class Platt:
    """p = 1 / (1 + exp(-(scale * z + offset))), a scale and an offset for each output.

    Raises `BundleInvalid` when the card lacks one, or one is not a finite number.
    """

    def __init__(self, card: ModelCard) -> None:
        try:
            constants = [card.calibration[name] for name in OUTPUTS]
            table = np.array([(c.scale, c.offset) for c in constants], dtype=np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleInvalid(f"card of {card.name}: no usable calibration ({error!r}); export it again") from error
        if not np.isfinite(table).all():
            raise BundleInvalid(f"card of {card.name}: calibration is not finite; export it again")
        self._scale, self._offset = table.T

    def log_odds(self, logits: Logits) -> NDArray[np.float64]:
        """Calibrated log-odds (N, 16), columns as in `OUTPUTS`; what is not a number stays so."""
        z = np.column_stack((logits.binary, logits.findings)).astype(np.float64)
        odds: NDArray[np.float64] = z * self._scale + self._offset
        return odds

    def probabilities(self, logits: Logits) -> NDArray[np.float64]:
        """Calibrated probabilities (N, 16), columns as in `OUTPUTS`."""
        odds = np.exp(np.clip(self.log_odds(logits), -700.0, 700.0))
        p: NDArray[np.float64] = odds / (1.0 + odds)
        return p
