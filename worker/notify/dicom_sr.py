"""The channel that sends a flag to a PACS as a structured report, in the same study.

What makes the reports (`worker.notify.sr`, and with it highdicom) takes more than a second to import, and is imported
by the first flag, unless somebody has done so before: a channel can be made, and a port opened, without it.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from pydicom.uid import BasicTextSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from schemas.flag import Flag, Receipt
from worker.notify.association import Peer
from worker.notify.commitment import Reports
from worker.notify.dicom_store import DicomStore
from worker.notify.idle import IDLE_SECONDS

FORMS: Final = (ComprehensiveSRStorage, EnhancedSRStorage, BasicTextSRStorage)  # `worker.notify.sr.LADDER`


class DicomSr:
    """Kind `dicom-sr`: the richest report that the PACS accepts, by C-STORE.

    The same flag twice is the same SOP instance at the PACS, as long as that accepts the same. One that has learnt a
    richer form gets that, an object of its own in the same series. For `reports` see `DicomStore`.
    """

    def __init__(
        self,
        *,
        name: str,
        peer: Peer,
        timeout: float = 10.0,
        idle: float = IDLE_SECONDS,
        reports: Reports | None = None,
    ) -> None:
        self.name = name
        self._store = DicomStore(peer, FORMS, timeout=timeout, idle=idle, reports=reports)

    def send(self, flag: Flag) -> Receipt:
        """Deliver. Raises `TransientFailure` or `PermanentFailure`."""
        from worker.notify.sr import build_sr  # before the PACS is called, which should not have to wait for it

        return self._store.store(partial(build_sr, flag))

    def check(self) -> str:
        """C-ECHO, and which form of report the PACS takes. Raises `DeliveryError`."""
        return self._store.check()

    def close(self) -> None:
        """Release the association."""
        self._store.close()
