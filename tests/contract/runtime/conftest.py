from __future__ import annotations

import pytest

from tests.contract.runtime.drawn import draw_bundle
from training.network import build
from worker.infer.bundle import Bundle

SIZE = 64


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The architecture that is served, random weights, small films."""
    return draw_bundle(tmp_path_factory.mktemp("bundles") / "drawn", SIZE, lambda outputs: build(outputs, SIZE))
