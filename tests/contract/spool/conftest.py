"""Every test of this folder runs on each implementation of `worker.ports.Spool`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import pytest

from schemas.identity import InstanceRef
from worker.ports import Spool
from worker.spool.local import LocalSpool

# Opens the same storage again and again, as a process does that starts anew; without grace for `sweep`.
Open: TypeAlias = Callable[[], Spool]
IMPLEMENTATIONS = {
    "local": lambda folder: LocalSpool(folder / "spool", grace=timedelta(0)),
}


@pytest.fixture(params=IMPLEMENTATIONS)
def open_spool(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return lambda: IMPLEMENTATIONS[request.param](tmp_path)


@pytest.fixture
def spool(open_spool: Open) -> Spool:
    return open_spool()


def instance(sop_uid: str = "1.2.3") -> InstanceRef:
    return InstanceRef(
        study_uid="1.1", series_uid="1.2", sop_uid=sop_uid, sop_class="1.4", transfer_syntax="1.2.840.10008.1.2.1"
    )
