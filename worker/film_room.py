"""Where a person looks at films: their pixels and, in research mode, the maps of the live model. Part of the roof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.activation import Activation
from schemas.errors import NotAnalysable, SpoolError
from schemas.gate import GateRules
from schemas.original import Original
from worker.ports import Spool
from worker.record.instances import Instances

if TYPE_CHECKING:
    from worker.corridor.live import Live


class FilmRoom:
    """Films by their Study and SOP Instance UIDs, latest version; None where there is nothing to show.

    Parameters
    ----------
    gate:
        Only what is read has a map.
    live:
        The model that reads in this process; None in a process that reads nothing.
    """

    def __init__(self, instances: Instances, spool: Spool, gate: GateRules, live: Callable[[], Live | None]) -> None:
        self._instances, self._spool, self._gate, self._live = instances, spool, gate, live

    def original(self, study_uid: str, sop_uid: str) -> Original | None:
        """The film as it was stored. Raises `NotAnalysable` for what no film viewer shows."""
        from worker.decode.original import read_original

        path = self._path(study_uid, sop_uid)
        try:
            return None if path is None else read_original(path)
        except OSError:  # let go in this moment
            return None

    def activation(self, study_uid: str, sop_uid: str, finding: str) -> Activation | None:
        """The map of a finding, by the model that reads now. Raises `ModelError`."""
        from worker.decode.film import read_film
        from worker.infer.activation import MAPPED, activation
        from worker.tensor.recipe import to_tensor

        live, path = self._live(), self._path(study_uid, sop_uid)
        if live is None or path is None or finding not in MAPPED:
            return None
        try:
            pixels = read_film(path, self._gate).pixels
        except (NotAnalysable, OSError):
            return None
        with live.take() as reader:
            return activation(reader.engine, to_tensor(pixels, reader.card.input_size), finding)

    def _path(self, study_uid: str, sop_uid: str) -> Path | None:
        kept = self._instances.path_of(study_uid, sop_uid)
        try:
            return None if kept is None else self._spool.path_of(kept)
        except SpoolError:
            return None
