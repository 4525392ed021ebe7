"""Of the two models' maps the one that was asked for, in the orientation of the film."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.errors import ModelError
from schemas.findings import LABELS, Label
from tests.unit.infer.bundles import FakeRuntime, card, film
from worker.infer.activation import MAPPED, activation
from worker.infer.engine import Engine
from worker.ports import Logits


class Mapping(FakeRuntime):
    """Says of every cell which output and which place it is of."""

    def __init__(self, *, maps: bool = True, finite: bool = True) -> None:
        super().__init__()
        self._maps, self._finite = maps, finite

    def run(self, batch: NDArray[np.uint8], *, maps: bool = False) -> Logits:
        assert maps
        logits = super().run(batch)
        if not self._maps:
            return logits
        place = np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)
        findings = place + 100 * np.arange(len(LABELS), dtype=np.float32)
        return Logits(logits.binary, logits.findings, place - (1 if self._finite else np.inf), findings)


def engine(runtime: FakeRuntime) -> Engine:
    return Engine(runtime, card())


@pytest.mark.parametrize("label", [Label.ATELECTASIS, Label.PNEUMOTHORAX, Label.NO_FINDING])
def test_the_map_of_a_finding(label: Label) -> None:
    running = engine(Mapping())
    found = activation(running, film(60), label)
    assert found.values.dtype == np.float32
    assert found.values.tolist() == (np.arange(6).reshape(2, 3) + 100 * LABELS.index(label)).tolist()
    assert (found.finding, found.model_id) == (label, running.model_id)
    running.close()


def test_the_map_of_any_finding() -> None:
    running = engine(Mapping())
    assert activation(running, film(60), "binary").values.tolist() == [[-1, 0, 1], [2, 3, 4]]
    assert len(MAPPED) == 16
    running.close()


def test_what_has_no_map() -> None:
    running = engine(Mapping())
    with pytest.raises(KeyError):
        activation(running, film(60), "Luck")
    running.close()
    for runtime in (Mapping(maps=False), Mapping(finite=False)):
        running = engine(runtime)
        with pytest.raises(ModelError):
            activation(running, film(60), "binary")
        running.close()
