"""What the header says: the gate's `FilmHeader` and the `StudyContext` that a result object needs.

Files come from anywhere. No element is trusted: one that cannot be read counts as absent.
"""

from __future__ import annotations

import io
import math
import mmap
import re
import zlib
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, BinaryIO, Final, cast

import pydicom.config
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from schemas.errors import Undecodable
from schemas.identity import StudyContext
from schemas.image import FilmHeader

# Foreign values are read as they are; pydicom's warnings would put them, patient data included, into the log.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

MAX_INFLATED: Final = 256 << 20  # bytes; no film is larger, but a deflate bomb is
MAX_VALUE: Final = 256 << 10  # bytes of one element; the longest that is looked at, a LUT of 16 bits, has 128 KiB
MAX_SEQUENCE: Final = 4 << 20  # bytes; a dozen of such LUTs. pydicom makes objects of a hundred times the size
MAX_TEXT: Final = 1024  # characters; LO has 64, LT 10,240 (PS3.5 6.2)

_CONTEXT: Final = {
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_id": "StudyID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "study_description": "StudyDescription",
    "referring_physician_name": "ReferringPhysicianName",
    "modality": "Modality",
    "institution_name": "InstitutionName",
}
_TEXTS: Final = {
    "sop_class": "SOPClassUID",
    "modality": "Modality",
    "body_part_examined": "BodyPartExamined",
    "study_description": "StudyDescription",
    "series_description": "SeriesDescription",
    "protocol_name": "ProtocolName",
    "photometric_interpretation": "PhotometricInterpretation",
    "manufacturer": "Manufacturer",
    "model_name": "ManufacturerModelName",
    "burned_in_annotation": "BurnedInAnnotation",
    "presentation_intent": "PresentationIntentType",
}
_OTHERS: Final = (
    *("SpecificCharacterSet", "ImageType", "PatientOrientation", "ViewPosition", "ViewCodeSequence"),
    *("AnatomicRegionSequence", "PatientAge", "PatientSpeciesDescription", "PatientSpeciesCodeSequence"),
    *("AcquisitionDeviceProcessingDescription", "PerformedProtocolCodeSequence", "AcquisitionDate", "SeriesDate"),
    *("ContentDate", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PresentationLUTShape", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"),
)
_WANTED: Final = [tag_for_keyword(k) or 0 for k in (*_CONTEXT.values(), *_TEXTS.values(), *_OTHERS)]
_PIXEL_DATA: Final = 0x7FE00010
_PIXELS: Final = {0x7FE00008, 0x7FE00009, _PIXEL_DATA}  # Float, Double Float
_AGE: Final = re.compile(r"(\d{1,3})([DWMY]?)")
_YEARS: Final = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An open file, read up to its pixels.

    `stream` is the file in memory, or the inflated data set; Pixel Data's value starts at `offset` and has `length`
    bytes (0xFFFFFFFF: encapsulated). `transfer_syntax` is empty when the file has no File Meta Information.
    """

    dataset: Dataset
    transfer_syntax: str
    little_endian: bool
    stream: mmap.mmap | io.BytesIO
    offset: int = 0
    length: int = 0
    has_pixels: bool = False


def open_source(file: BinaryIO | io.BytesIO) -> Source:
    """Parse `file` (PS3.10, or a bare data set) up to Pixel Data; no pixel is read.

    Raises
    ------
    Undecodable
        Not DICOM, or broken before the pixels. The disk's own faults stay `OSError`.
    """
    try:
        # Mapped, because a read from it never allocates more than the file holds, whatever a length field says.
        if isinstance(file, io.BytesIO):
            return _parse(file)
        return _parse(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (Undecodable, OSError):  # the disk's faults are not the film's
        raise
    except Exception as error:  # pydicom raises whatever the broken bytes cause, RecursionError too
        raise Undecodable(f"header cannot be parsed ({type(error).__name__})") from error


def _parse(stream: mmap.mmap | io.BytesIO) -> Source:
    stream.seek(0)
    stream.seek(132 if stream.read(132)[128:] == b"DICM" else 0)  # PS3.10 7.1
    meta = read_dataset(cast("BinaryIO", stream), False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 0x0002)
    syntax = text(meta, "TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = _inflate(stream.read())
    little = syntax != ExplicitVRBigEndian
    implicit = syntax in ("", ImplicitVRLittleEndian)
    found: list[tuple[int, str | None, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in _PIXELS:
            found.append((tag, vr, length))
        return tag in _PIXELS

    dataset = read_dataset(cast("BinaryIO", stream), implicit, little, stop_when=at_pixels, specific_tags=list(_WANTED))
    if not found:
        return Source(dataset=dataset, transfer_syntax=syntax, little_endian=little, stream=stream)
    tag, vr, length = found[0]
    return Source(
        dataset=dataset,
        transfer_syntax=syntax,
        little_endian=little,
        stream=stream,
        offset=stream.tell() + (12 if vr in EXPLICIT_VR_LENGTH_32 else 8),  # PS3.5 7.1.2: tag, VR, length
        length=length,
        has_pixels=tag == _PIXEL_DATA and length != 0,
    )


def _inflate(deflated: bytes) -> io.BytesIO:
    """PS3.5 A.5: the data set as one raw deflate stream."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(deflated, MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise Undecodable(f"deflated data set is larger than {MAX_INFLATED >> 20} MiB")
    return io.BytesIO(data)


def text(dataset: Dataset, keyword: str) -> str:
    """First value as printable text without surrounding blanks; "" when absent or unreadable."""
    return next(iter(texts(dataset, keyword)), "")


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Every value as text, see `text`."""
    return tuple(_printable(str(v)) for v in _values(dataset, keyword))


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Every finite number of a multi-valued element, up to the first that is none."""
    found: list[float] = []
    for value in _values(dataset, keyword):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            break
        if not math.isfinite(number):
            break
        found.append(number)
    return tuple(found)


def integer(dataset: Dataset, keyword: str) -> int | None:
    """First value as an integer; None when absent or unreadable."""
    found = numbers(dataset, keyword)
    return int(found[0]) if found else None


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Items of a sequence; none when absent or not a sequence."""
    return tuple(v for v in _values(dataset, keyword) if isinstance(v, Dataset))


def raw(dataset: Dataset, keyword: str) -> Any:
    """The element's value as pydicom gives it; None when absent, unreadable or longer than anything of its kind."""
    try:
        element = dataset.get_item(keyword)
        longest = MAX_SEQUENCE if keyword.endswith("Sequence") else MAX_VALUE
        if isinstance(element, RawDataElement) and element.length > longest:
            return None
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001  pydicom converts on access and raises whatever a malformed value causes
        return None


def _values(dataset: Dataset, keyword: str) -> list[Any]:
    value = raw(dataset, keyword)
    if value is None:
        return []
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__") or hasattr(value, "family_name"):
        return [value]  # a PersonName iterates over its characters
    return list(value)


def _printable(value: str) -> str:
    # Control characters, NUL and lone surrogates break databases and terminals.
    return "".join(c if c.isprintable() else " " for c in value[:MAX_TEXT]).strip()


def describe(source: Source) -> tuple[FilmHeader, StudyContext]:
    """The two records that the corridor carries on."""
    ds = source.dataset
    header = FilmHeader(
        anatomic_region=_meanings(ds, "AnatomicRegionSequence"),
        view_position=text(ds, "ViewPosition") or _meanings(ds, "ViewCodeSequence"),
        patient_orientation=texts(ds, "PatientOrientation"),
        acquisition_description=" ".join(
            filter(
                None,
                (text(ds, "AcquisitionDeviceProcessingDescription"), _meanings(ds, "PerformedProtocolCodeSequence")),
            )
        ),
        patient_age_years=_age(ds),
        patient_species=text(ds, "PatientSpeciesDescription") or _meanings(ds, "PatientSpeciesCodeSequence"),
        rows=integer(ds, "Rows"),
        columns=integer(ds, "Columns"),
        number_of_frames=integer(ds, "NumberOfFrames") or 1,
        samples_per_pixel=integer(ds, "SamplesPerPixel") or 1,
        bits_stored=integer(ds, "BitsStored"),
        has_pixels=source.has_pixels,
        image_type=texts(ds, "ImageType"),
        **{field: text(ds, keyword) for field, keyword in _TEXTS.items()},
    )
    return header, StudyContext(**{field: text(ds, keyword) for field, keyword in _CONTEXT.items()})


def _meanings(dataset: Dataset, keyword: str) -> str:
    """Code Meanings of a code sequence (PS3.3 8.8), joined."""
    return " ".join(text(item, "CodeMeaning") for item in items(dataset, keyword))[:MAX_TEXT].strip()


def _age(dataset: Dataset) -> float | None:
    """Years at the time of the study (PS3.5 6.2, VR AS; senders leave the unit away).

    Zero is what many consoles send for "not known": the birth date then decides, if there is one.
    """
    match = _AGE.fullmatch(text(dataset, "PatientAge").upper())
    stated = int(match[1]) * _YEARS[match[2]] if match else None
    return stated or _age_by_dates(dataset) or stated


def _age_by_dates(dataset: Dataset) -> float | None:
    birth = _date(dataset, "PatientBirthDate")
    days = (
        (day - birth).days
        for keyword in ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate")
        if birth and (day := _date(dataset, keyword))
    )
    return next((d / 365.25 for d in days if 0 <= d < 130 * 366), None)  # beyond: a date that de-identification made


def _date(dataset: Dataset, keyword: str) -> date | None:
    try:
        return datetime.strptime(text(dataset, keyword)[:8], "%Y%m%d").date()  # noqa: DTZ007  VR DA has no zone
    except ValueError:
        return None
