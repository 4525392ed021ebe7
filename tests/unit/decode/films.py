"""Small data sets in memory, for the tests of `worker.decode`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRBigEndian, ExplicitVRLittleEndian

from schemas.image import GrayImage
from worker.decode.display import rendering, to_display
from worker.decode.header import Source, open_source
from worker.decode.pixels import stored_pixels


def film(cells: NDArray[Any], *, syntax: str = ExplicitVRLittleEndian, **elements: Any) -> Dataset:
    """A DX data set around `cells` (uint8 or uint16, 2-D); `elements` are set last, None removes one."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "DX", "CHEST", "PA"
    ds.Rows, ds.Columns = cells.shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = cells.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    data = cells.astype(">u2" if bits == 16 and syntax == ExplicitVRBigEndian else f"<u{bits // 8}").tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset) -> bytes:
    """The data set as a file (PS3.10)."""
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return file.getvalue()


def source_of(ds: Dataset) -> Source:
    """The data set as read back."""
    return open_source(io.BytesIO(encoded(ds)))


def shown(ds: Dataset) -> GrayImage:
    """The data set as displayed."""
    source = source_of(ds)
    stored, form = stored_pixels(source)
    return to_display(stored, form, rendering(source))


def row(*values: int, dtype: type = np.uint16) -> NDArray[Any]:
    """One row of pixels."""
    return np.array([values], dtype=dtype)


def lut_item(data: list[int] | bytes, *, first: int = 0, bits: int = 16, count: int | None = None) -> Dataset:
    """An item of a Modality or VOI LUT Sequence (PS3.3 C.11.1, C.11.2)."""
    item = Dataset()
    entries = len(data) if count is None else count
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries % 65536, first, bits])
    item.add_new("LUTData", "OW" if isinstance(data, bytes) else "US", data)
    return item
