"""The channel that sends a flag to a PACS as a picture: Secondary Capture (PS3.3 A.8.1), in the same study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from schemas.errors import RecordError, TransientFailure
from schemas.flag import Flag, Receipt
from schemas.identity import InstanceRef
from worker import __version__
from worker.notify.association import Peer
from worker.notify.commitment import Reports
from worker.notify.dicom_store import DicomStore
from worker.notify.idle import IDLE_SECONDS
from worker.notify.study_module import patient_and_study
from worker.notify.summary_page import HEIGHT, WIDTH, Shown, draw_page, films_of
from worker.notify.uids import sc_instance_uid, sc_series_uid
from worker.notify.wording import sentences

# Behind the films and the report, so that no viewer that sorts by number opens the study with the page.
SERIES_NUMBER: Final = 9902
SERIES_DESCRIPTION: Final = "hilum triage page, not for diagnosis"

# A film as displayed, uint8 (Rows, Columns); None when its bytes were let go.
FilmOf: TypeAlias = Callable[[InstanceRef], NDArray[np.uint8] | None]


class DicomSc:
    """Kind `dicom-sc`: one page per revision. The same flag twice is the same SOP instance at the PACS.

    That is so also when the film has been let go between the two and the second page has to do without it. For
    `reports` see `DicomStore`.
    """

    def __init__(
        self,
        *,
        name: str,
        peer: Peer,
        film: FilmOf,
        timeout: float = 10.0,
        idle: float = IDLE_SECONDS,
        reports: Reports | None = None,
    ) -> None:
        self.name = name
        self._film = film
        self._store = DicomStore(peer, [SecondaryCaptureImageStorage], timeout=timeout, idle=idle, reports=reports)

    def send(self, flag: Flag) -> Receipt:
        """Deliver. Raises `TransientFailure` or `PermanentFailure`."""
        try:
            shown = [Shown(film, self._film(film.instance)) for film in films_of(flag)]
        except RecordError as error:
            raise TransientFailure(f"{self.name}: the film cannot be looked up: mend the database") from error
        page = build_sc(flag, shown)
        return self._store.store(lambda _: page)

    def check(self) -> str:
        """C-ECHO, and whether the PACS takes Secondary Capture. Raises `DeliveryError`."""
        return self._store.check()

    def close(self) -> None:
        """Release the association."""
        self._store.close()


def build_sc(flag: Flag, shown: Sequence[Shown]) -> Dataset:
    """The page of one revision, in Explicit VR Little Endian with File Meta Information.

    Image Comments say in words what the picture shows. Dates, character set and identifiers as in the report.
    """
    decided = flag.decided_at.astimezone()
    date, time = f"{decided:%Y%m%d}", f"{decided:%H%M%S.%f}"
    page = Dataset()
    elements: dict[str, Any] = {
        **patient_and_study(flag.context),
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": sc_instance_uid(flag.study_uid, flag.model_id, flag.revision),
        "StudyInstanceUID": flag.study_uid,
        "SeriesInstanceUID": sc_series_uid(flag.study_uid, flag.model_id),
        "Modality": "OT",  # as a DX it would be hung beside the films
        "SeriesNumber": str(SERIES_NUMBER),
        "SeriesDescription": SERIES_DESCRIPTION,
        "InstanceNumber": str(flag.revision),
        "Laterality": "",
        "PatientOrientation": "",
        "ImageType": ["DERIVED", "SECONDARY", "HILUM TRIAGE"],
        "ConversionType": "WSD",
        "BurnedInAnnotation": "YES",
        "DerivationDescription": "hilum triage page: the film made smaller, with what was raised in words",
        "ImageComments": " ".join(sentences(flag)),
        "Manufacturer": "hilum",
        "ManufacturerModelName": "hilum",
        "DeviceSerialNumber": flag.model_id,
        "SoftwareVersions": __version__,
        "InstanceCreationDate": date,
        "InstanceCreationTime": time,
        "DateOfSecondaryCapture": date,
        "TimeOfSecondaryCapture": time,
        "ContentDate": date,
        "ContentTime": time,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": HEIGHT,
        "Columns": WIDTH,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "WindowCenter": "128",  # as it is drawn, whatever a viewer makes of the pixels (PS3.3 C.11.2.1.2.1)
        "WindowWidth": "256",
    }
    for keyword, value in elements.items():
        # As sent: pydicom would warn of an odd value, and its warning quotes the patient.
        page.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE))
    sources = [_reference(film.instance) for film, pixels in shown if pixels is not None]
    if sources:
        page.SourceImageSequence = sources
    page.add_new("PixelData", "OB", draw_page(flag, shown).tobytes())
    page.file_meta = FileMetaDataset()
    page.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    page.file_meta.MediaStorageSOPInstanceUID = UID(page.SOPInstanceUID)
    page.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return page


def _reference(instance: InstanceRef) -> Dataset:
    reference = Dataset()
    reference.add(DataElement("ReferencedSOPClassUID", "UI", instance.sop_class, validation_mode=IGNORE))
    reference.add(DataElement("ReferencedSOPInstanceUID", "UI", instance.sop_uid, validation_mode=IGNORE))
    return reference
