"""Chest films drawn by code, and valid DICOM objects around them: nobody's patient data.

The drawing is a sum of thicknesses in a frontal chest (body, lungs, heart, ribs, …), good enough for the eye, the
gate and the benchmarks; what a model makes of it says nothing about the model.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    generate_uid,
)

from schemas.image import GrayImage

Finding = Literal["none", "pneumothorax", "effusion", "nodule", "consolidation", "cardiomegaly"]
View = Literal["PA", "AP", "LL", "RL"]
Plane: TypeAlias = NDArray[np.floating[Any]]

FINDINGS: Final[tuple[Finding, ...]] = (
    *("none", "pneumothorax", "effusion", "nodule", "consolidation", "cardiomegaly"),
)
_GRID: Final = 512  # rows of the drawing; larger films are enlarged from it and get their own noise
_EPOCH: Final = datetime(2024, 1, 1, 8, 0, tzinfo=UTC)
_DIGITS: Final = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
_VIEW_CODES: Final[dict[View, tuple[str, str]]] = {  # CID 4010
    "PA": ("272479007", "postero-anterior"),
    "AP": ("399348003", "antero-posterior"),
    "LL": ("399173006", "left lateral"),
    "RL": ("399198007", "right lateral"),
}
_LOSSY: Final[dict[str, dict[str, Any]]] = {JPEG2000: {"j2k_psnr": [70]}, JPEGLSNearLossless: {"jls_error": 2}}
_LETTERS: Final = {  # the side marker, 5 x 7
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
}


def draw(
    seed: int, *, finding: Finding = "none", rows: int = 2500, columns: int = 2048, view: View = "PA"
) -> GrayImage:
    """A chest film as it is displayed: uint8 (rows, columns), 0 = black. The same arguments draw the same film."""
    return _quantise(seed, finding, (rows, columns), view, bits=8).astype(np.uint8)


def dataset(
    seed: int,
    *,
    finding: Finding = "none",
    rows: int = 2500,
    columns: int = 2048,
    bits_stored: int = 12,
    signed: bool = False,
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2",
    lying: bool = False,
    window: bool = True,
    transfer_syntax: str = ExplicitVRLittleEndian,
    modality: Literal["DX", "CR"] = "DX",
    view: View = "PA",
    age_years: int = 54,
    character_set: str = "ISO_IR 192",
    patient_name: str | None = None,
    when: datetime = _EPOCH,
    study_uid: str | None = None,
    series_uid: str | None = None,
    sop_uid: str | None = None,
) -> Dataset:
    """A film of patient PHANTOM-0001 and so on (by `seed`), ready for `save_as(path, enforce_file_format=True)`.

    Parameters
    ----------
    lying:
        The pixels have the other polarity than Photometric Interpretation says.
    window:
        With Window Center and Width; without, a viewer must find the range itself.
    transfer_syntax:
        Any uncompressed one, RLE, JPEG baseline (8 bits), JPEG-LS, JPEG 2000.
    study_uid, series_uid, sop_uid:
        Made up where not given; fresh each time.
    """
    stored = _quantise(seed, finding, (rows, columns), view, bits=bits_stored)
    if (photometric == "MONOCHROME1") != lying:
        stored = (1 << bits_stored) - 1 - stored
    ds = _patient_and_study(seed, age_years, character_set, patient_name, when)
    ds.StudyInstanceUID = study_uid or generate_uid()
    ds.SeriesInstanceUID = series_uid or generate_uid()
    ds.SOPInstanceUID = sop_uid or generate_uid()
    _equipment_and_exposure(ds, modality, view)
    _image(ds, photometric, bits_stored, signed, window)
    _pixels(ds, stored, bits_stored, signed, UID(transfer_syntax))
    return ds


def blank(seed: int, *, rows: int = 2500, columns: int = 2048) -> Dataset:
    """An exposure of nothing: detector noise around one value."""
    ds = dataset(seed, rows=rows, columns=columns)
    noise = np.random.default_rng(seed).normal(1000, 3, (rows, columns))
    ds.PixelData = noise.astype("<u2").tobytes()
    return ds


def write_demo_films(folder: Path, when: datetime | None = None) -> list[Path]:
    """A morning's work for `make run`: frontal films of several makes and findings, a lateral, a child.

    Studies a few minutes apart, the last at `when` (default: now). Returns the files in order of time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = when or datetime.now().astimezone()  # local time is what a modality writes
    paths = []
    for number, film in enumerate(_MORNING, start=1):
        ds = dataset(
            number,
            finding=film.finding,
            rows=film.rows,
            columns=film.columns,
            photometric=film.photometric,
            modality=film.modality,
            view=film.view,
            age_years=film.age_years,
            transfer_syntax=film.transfer_syntax,
            when=last - timedelta(minutes=7 * (len(_MORNING) - number)),
        )
        paths.append(folder / f"phantom-{number:02}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


@dataclass(frozen=True, kw_only=True, slots=True)
class _DemoFilm:
    finding: Finding = "none"
    rows: int = 2500
    columns: int = 2048
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2"
    modality: Literal["DX", "CR"] = "DX"
    view: View = "PA"
    age_years: int = 54
    transfer_syntax: str = ExplicitVRLittleEndian


_MORNING: Final = (
    _DemoFilm(),
    _DemoFilm(finding="pneumothorax", age_years=27),
    _DemoFilm(finding="effusion", age_years=71, view="AP", transfer_syntax=JPEGLSLossless),
    _DemoFilm(rows=2140, columns=1760, modality="CR", photometric="MONOCHROME1", age_years=63),
    _DemoFilm(finding="consolidation", age_years=45, transfer_syntax=JPEG2000Lossless),
    _DemoFilm(view="LL"),
    _DemoFilm(finding="nodule", rows=2140, columns=1760, modality="CR", age_years=66),
    _DemoFilm(age_years=9),
    _DemoFilm(finding="cardiomegaly", age_years=80, view="AP"),
    _DemoFilm(finding="pneumothorax", age_years=34, photometric="MONOCHROME1"),
)


# --- the DICOM object -------------------------------------------------------------------------------------------


def _patient_and_study(seed: int, age: int, character_set: str, name: str | None, when: datetime) -> Dataset:
    """Patient, General Study, Patient Study (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2)."""
    ds = Dataset()
    ds.SpecificCharacterSet = character_set
    ds.PatientName = name or f"PHANTOM^{' '.join(_DIGITS[int(d)] for d in str(seed))}"
    ds.PatientID = f"PHANTOM-{seed:04}"
    ds.PatientBirthDate = f"{when.year - age:04}0101"
    ds.PatientSex = "OFM"[seed % 3]
    ds.PatientAge = f"{age:03}Y"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = when.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = when.strftime("%H%M%S")
    ds.AccessionNumber = f"A{seed:06}"
    ds.StudyID = str(seed)
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "XR CHEST"
    return ds


def _equipment_and_exposure(ds: Dataset, modality: str, view: View) -> None:
    """Series, Equipment, and the DX or CR modules (PS3.3 C.8.11.1 to C.8.11.5, C.8.1.1)."""
    frontal = view in ("PA", "AP")
    ds.Modality = modality
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.SeriesDescription = f"CHEST {view if frontal else 'LATERAL'}"
    ds.Manufacturer, ds.ManufacturerModelName = "hilum", "phantom"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", "1"
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = view
    ds.PatientOrientation = ["L" if view == "PA" else "R", "F"] if frontal else ["A", "F"]
    ds.ImagerPixelSpacing = [0.168, 0.168]
    ds.KVP = 125
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    if modality == "CR":
        return
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.ImageLaterality = "U"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.AnatomicRegionSequence = [_code("816094009", "Chest")]
    ds.ViewCodeSequence = [_code(*_VIEW_CODES[view])]
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    ds.AcquisitionContextSequence = []
    ds.DetectorType = "SCINTILLATOR"
    ds.PositionerType = ""


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _image(ds: Dataset, photometric: str, bits: int, signed: bool, window: bool) -> None:
    """DX Image, VOI LUT, Image Pixel without its pixels (PS3.3 C.8.11.3, C.11.2, C.7.6.3)."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
    if ds.Modality == "DX":
        ds.PixelIntensityRelationship = "LOG"
        ds.PixelIntensityRelationshipSign = -1 if photometric == "MONOCHROME1" else 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = (1 << (bits - 1)) * signed, 1, "US"
    ds.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "YES"  # the side marker
    if window:
        ds.WindowCenter, ds.WindowWidth = 1 << (bits - 1), 1 << bits


def _pixels(ds: Dataset, stored: NDArray[np.uint16], bits: int, signed: bool, syntax: UID) -> None:
    ds.Rows, ds.Columns = stored.shape
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax if not syntax.is_encapsulated else ExplicitVRLittleEndian
    if signed:  # two's complement in the stored bits; Rescale Intercept brings it back
        stored = stored ^ np.uint16(1 << (bits - 1))
    if ds.BitsAllocated == 8:
        cells = stored.astype(np.uint8).tobytes()
    else:
        cells = stored.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
    ds.PixelData = cells + b"\0" * (len(cells) % 2)
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    if syntax == JPEGBaseline8Bit:
        file = io.BytesIO()
        Image.fromarray(stored.astype(np.uint8)).save(file, "JPEG", quality=95)
        ds.PixelData = encapsulate([file.getvalue()])
        ds.file_meta.TransferSyntaxUID = syntax
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = round(len(cells) / len(file.getvalue()), 2)
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    elif syntax.is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False, **_LOSSY.get(syntax, {}))
        ds.LossyImageCompression = "01" if syntax in _LOSSY else "00"


# --- the drawing ------------------------------------------------------------------------------------------------


def _quantise(seed: int, finding: Finding, shape: tuple[int, int], view: View, bits: int) -> NDArray[np.uint16]:
    """The drawing with quantum noise in 0 … 2**bits - 1, uint16 (rows, columns)."""
    rows, columns = shape
    height = min(rows, _GRID)
    coarse = _paint(seed, finding, (height, max(2, round(height * columns / rows))), view)
    fine = _enlarge(coarse, rows, columns)
    rng = np.random.default_rng(seed)
    tile = rng.normal(0, 0.012, (256, 256)).astype(np.float32)
    fine += np.tile(tile, (-(-rows // 256), -(-columns // 256)))[:rows, :columns]
    top = (1 << bits) - 1
    np.clip(fine, 0, 1, out=fine)
    fine *= top
    return fine.astype(np.uint16)


def _enlarge(image: Plane, rows: int, columns: int) -> Plane:
    """Bilinear, from (h, w) to (rows, columns)."""
    for axis, size in ((1, columns), (0, rows)):
        n = image.shape[axis]
        if n == size:
            continue
        at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        low = np.minimum(at.astype(np.intp), n - 2)
        part = (at - low).astype(np.float32)
        part = part if axis == 1 else part[:, np.newaxis]
        near = np.take(image, low, axis=axis)
        image = near + (np.take(image, low + 1, axis=axis) - near) * part
    return image


def _paint(seed: int, finding: Finding, shape: tuple[int, int], view: View) -> Plane:
    """Brightness in about [0, 1] at coordinates from -1 (left, top) to 1, float32 (rows, columns)."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    rng = np.random.default_rng(seed + 1)
    wider, right, longer, lower = (float(v) for v in rng.uniform(-1, 1, 4) * (0.06, 0.04, 0.05, 0.04))
    x, y = x * (1 + wider) + right, y * (1 + longer) + lower
    light = _frontal(x, y, finding, rng) if view in ("PA", "AP") else _lateral(x, y)
    return _with_marker(light, "L" if view in ("PA", "AP", "LL") else "R")


def _soft(inside: Plane, edge: float) -> Plane:
    """0 outside, 1 inside, with a smooth edge of that width."""
    step: Plane = 1 / (1 + np.exp(np.clip(-inside / edge, -30, 30)))
    return step


def _bell(distance: Plane, width: float) -> Plane:
    bell: Plane = np.exp(-((distance / width) ** 2))
    return bell


def _frontal(x: Plane, y: Plane, finding: Finding, rng: np.random.Generator) -> Plane:
    side = np.abs(x)
    left = x > 0  # of the image; the patient's left
    # Body: neck, shoulders, trunk
    half_width = 0.28 + 0.62 * _soft(y + 0.86, 0.05) - 0.06 * _soft(y + 0.1, 0.3)
    body = _soft(half_width - side, 0.02) * np.sqrt(np.clip(1.05 - (side / (half_width + 0.05)) ** 2, 0.05, None))
    # Lungs: over the domes of the diaphragm, beside the mediastinum
    dome = 0.5 + 0.05 * left - 0.16 * _bell(side - 0.42, 0.26) + 0.16 * _soft(side - 0.66, 0.04)
    lung = (_soft(1 - ((side - 0.42) / 0.31) ** 2 - ((y + 0.12) / 0.68) ** 2, 0.06) * _soft(dome - y, 0.012)) * _soft(
        side - 0.13, 0.015
    )
    # Vessels fan out of the hila
    angle, reach = np.arctan2(y + 0.05, side - 0.14), np.hypot(side - 0.14, y + 0.05)
    phase = rng.uniform(0, 6.28, 3)
    strands = np.zeros_like(x)
    for branches, p in zip((7, 11, 17), phase, strict=True):
        strands += np.cos(angle * branches + float(p) + 4 * reach) ** 6
    vessels = lung * strands * np.exp(-reach / 0.28) * 0.07
    # Heart, vessels and spine
    large = 1.45 if finding == "cardiomegaly" else 1.0
    heart = _soft(1 - ((x - 0.1) / (0.24 * large)) ** 2 - ((y - 0.27) / 0.3) ** 2, 0.08)
    arch = _bell(np.hypot(x - 0.1, y + 0.28), 0.09) * 0.5
    spine = _bell(x, 0.11) * (0.75 + 0.1 * np.cos(y * 34))
    trachea = _bell(x, 0.035) * _soft(-0.25 - y, 0.05)
    abdomen = _soft(y - dome, 0.012) * body
    # Ribs from behind slope down and out, those in front up; clavicles cross the apices
    ribs = np.zeros_like(x)
    cage = _soft(1 - (side / 0.8) ** 2 - ((y + 0.05) / 0.95) ** 2, 0.05)
    for n in range(9):
        ribs += _bell(y - (-0.78 + 0.15 * n + 0.5 * (side - 0.12) ** 2 + 0.12 * (side - 0.1)), 0.02)
        ribs += 0.6 * _bell(y - (-0.55 + 0.16 * n - 0.35 * (side - 0.1)), 0.022) * _soft(side - 0.3, 0.08)
    clavicles = _bell(y - (-0.66 - 0.14 * (side - 0.1)), 0.025) * _soft(side - 0.1, 0.03) * _soft(0.75 - side, 0.03)

    lung_air, extra = 0.42 * lung, vessels
    if finding == "pneumothorax":
        which = left if rng.integers(2) else ~left
        rim = 1 - ((side - 0.36) / 0.24) ** 2 - ((y + 0.02) / 0.55) ** 2  # the collapsed lung's edge
        outside = lung * which * _soft(-rim, 0.02)
        extra = extra * (1 - outside) + lung * which * _bell(rim, 0.03) * 0.08
        lung_air = lung_air + 0.1 * outside - 0.06 * lung * which * (1 - _soft(-rim, 0.02))
    elif finding == "effusion":
        which = left if rng.integers(2) else ~left
        level = 0.22 - 0.5 * np.clip(side - 0.4, 0, None)  # the meniscus climbs at the chest wall
        extra = extra + 0.42 * lung * which * _soft(y - level, 0.03)
    elif finding == "nodule":
        extra = extra + 0.2 * _bell(np.hypot(x - 0.45, y + 0.15), 0.06)
    elif finding == "consolidation":
        cloud = _bell(np.hypot((x + 0.42) / 1.2, y - 0.1), 0.2)
        extra = extra + 0.3 * lung * cloud * (0.8 + 0.2 * np.cos(x * 60) * np.cos(y * 55))

    tissue = 0.5 * body + 0.16 * abdomen + 0.16 * spine * body + (0.2 * heart + 0.12 * arch) * body
    bone = (0.07 * ribs * cage + 0.1 * clavicles) * body
    light: Plane = 0.03 + tissue + bone + extra - lung_air * body - 0.12 * trachea
    return light


def _lateral(x: Plane, y: Plane) -> Plane:
    body = _soft(1 - (x / 0.72) ** 4 - ((y - 0.1) / 1.2) ** 4, 0.05)
    dome = 0.45 + 0.25 * (x - 0.2) ** 2
    lung = _soft(1 - ((x - 0.02) / 0.5) ** 2 - ((y + 0.1) / 0.75) ** 2, 0.06) * _soft(dome - y, 0.015)
    spine = _bell(x - 0.48 - 0.1 * y, 0.09) * (0.75 + 0.15 * np.cos(y * 34))
    heart = _soft(1 - ((x + 0.2) / 0.25) ** 2 - ((y - 0.2) / 0.3) ** 2, 0.08)
    light: Plane = 0.03 + (0.55 + 0.15 * _soft(y - dome, 0.02)) * body - 0.36 * lung + 0.2 * spine * body + 0.22 * heart
    return light


def _with_marker(light: Plane, letter: str) -> Plane:
    """A lead letter in the upper corner of the patient's left (or right) side."""
    rows, columns = light.shape
    unit = max(1, rows // 120)
    bitmap = np.kron(np.array([[int(c) for c in row] for row in _LETTERS[letter]]), np.ones((unit, unit)))
    top = rows // 25
    start = columns - columns // 25 - bitmap.shape[1] if letter == "L" else columns // 25
    corner = light[top : top + bitmap.shape[0], start : start + bitmap.shape[1]]
    corner[bitmap[: corner.shape[0], : corner.shape[1]] > 0] = 0.97
    return light
