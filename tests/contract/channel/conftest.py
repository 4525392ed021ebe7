"""Every test of this folder runs on each channel, against a receiver that speaks its dialect.

A module `receiver_<kind>.py` with a function `make(folder) -> Receiver` joins its channel to the contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.contract.channel.receiver import Receiver

KINDS = sorted(path.stem.removeprefix("receiver_") for path in Path(__file__).parent.glob("receiver_*.py"))


@pytest.fixture(params=KINDS)
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Receiver]:
    module = import_module(f"tests.contract.channel.receiver_{request.param}")
    made: Receiver = module.make(tmp_path)
    made.start()
    yield made
    made.heal()
    made.stop()
