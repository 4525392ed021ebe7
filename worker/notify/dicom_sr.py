"""The channel that sends a flag to a PACS as a structured report, in the same study."""

from __future__ import annotations

from pydicom.uid import ComprehensiveSRStorage

from schemas.flag import Flag, Receipt
from worker.notify.association import Peer
from worker.notify.dicom_store import IDLE_SECONDS, DicomStore
from worker.notify.sr import build_sr, print_forms


class DicomSr:
    """Kind `dicom-sr`: Comprehensive SR by C-STORE. The same flag twice is the same SOP instance at the PACS."""

    def __init__(
        self,
        *,
        name: str,
        peer: Peer,
        timeout: float = 10.0,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self.name = name
        self._store = DicomStore(peer, ComprehensiveSRStorage, timeout=timeout, idle=idle)
        print_forms()  # now, so that the first flag does not wait for it

    def send(self, flag: Flag) -> Receipt:
        """Deliver. Raises `TransientFailure` or `PermanentFailure`."""
        report = build_sr(flag)
        said = self._store.store(report)
        return Receipt(object_id=str(report.SOPInstanceUID), proof=said)

    def check(self) -> str:
        """C-ECHO, and whether the PACS takes Comprehensive SR. Raises `DeliveryError`."""
        return self._store.check()

    def close(self) -> None:
        """Release the association."""
        self._store.close()
