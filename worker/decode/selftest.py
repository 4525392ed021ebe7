"""Which transfer syntaxes really decode on this machine, proved at start.

A decoder may be installed and yet be missing its library, refuse a bit depth, or decode to zeros. Each syntax
decodes a tiny gradient, whose pixels are known; what fails is not offered to senders, and the log names the mend.
"""

from __future__ import annotations

import base64
import io
import logging
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from schemas.errors import NotAnalysable
from worker.decode.cell import CODECS
from worker.decode.header import open_source
from worker.decode.pixels import PixelFormat, StoredPixels, decode, stored_pixels

log = logging.getLogger("hilum.decode")

_SIDE: Final = 16
_NATIVE: Final = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_MEND: Final = {"gdcm": "python-gdcm", "jpegls": "pyjpegls", "openjpeg": "pylibjpeg-openjpeg"}  # else pillow


@cache
def usable_transfer_syntaxes() -> tuple[str, ...]:
    """UIDs that decode to the right pixels here: what a C-STORE SCP may accept; the uncompressed ones first."""
    usable: list[str] = []
    for syntax in (*_NATIVE, *_FIXTURES):
        try:
            cells = _native(syntax) if syntax in _NATIVE else _decoded(syntax)
        except NotAnalysable as error:
            fault = error.detail
        else:
            tolerance = 0 if syntax in _NATIVE else _FIXTURES[syntax][0]
            if int(np.abs(cells.astype(np.int64) - _expected(syntax)).max()) <= tolerance:
                usable.append(str(syntax))
                continue
            fault = "wrong pixels"
        package = "pydicom" if syntax in _NATIVE else _MEND.get(getattr(CODECS.get(syntax), "__name__", ""), "pillow")
        log.warning("decoder-unusable syntax=%s fault=%s mend=reinstall %s", syntax, fault, package)
    return tuple(usable)


def _expected(syntax: str) -> NDArray[np.int64]:
    y, x = np.mgrid[:_SIDE, :_SIDE]
    cells: NDArray[np.int64] = x * 15 + y if syntax == JPEGBaseline8Bit else x * 240 + y * 15 + x * y % 7
    return cells


def _decoded(syntax: str) -> StoredPixels:
    deep = syntax != JPEGBaseline8Bit
    form = PixelFormat(
        rows=_SIDE,
        columns=_SIDE,
        samples=1,
        photometric="MONOCHROME2",
        bits_allocated=16 if deep else 8,
        bits_stored=12 if deep else 8,
        high_bit=11 if deep else 7,
        signed=False,
        by_plane=False,
    )
    return decode(base64.b64decode(_FIXTURES[syntax][1]), syntax, form)[0]


def _native(syntax: str) -> StoredPixels:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    ds.Rows = ds.Columns = _SIDE
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelData = _expected(syntax).astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
    ds["PixelData"].VR = "OW"
    file = io.BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    return stored_pixels(open_source(file))[0]


# Largest error that a lossy syntax may show, and the code stream. Encoded by dcmtk, OpenJPEG and OpenJPH.
_FIXTURES: Final[dict[str, tuple[int, str]]] = {
    JPEGBaseline8Bit: (
        2,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8X"
        "GBYUGBIUFRT/wAALCAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAACQj/xAAZEAABBQAAAAAAAAAAAAAAAAAABAghNFH/2gAIAQEAAD8A"
        "j9uyarGCgN2TVYwNRuyarGCgN2TVYw///9k=",
    ),
    JPEGExtended12Bit: (
        8,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8X"
        "GBYUGBIUFRT/wQALDAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAADQz/xAAmEAABAQYEBwAAAAAAAAAAAAABCAACBQwREgQhMXIUIiMk"
        "MkJS/9oACAEBAAA/AI/uXdE7OhxM/aitId61+GUAZd2Ts4AmYcM7rDR47GNP5d0Tx00z0wpOUO0d2MoAy7sngWpmAwptrDc7Mqcjf//Z",
    ),
    JPEGLossless: (
        0,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALEAAQABABAREA/8QAGAABAQEBAQAAAAAAAAAAAAAABAMCCBD/2gAIAQEABgAA93h3h3h3h3h3h3h3"
        "h3h3h3h3h3h3h3g9KVKWuqUqUtdUvSlW7oQlKt3QhL0p26iEJTt1EIS9Om7dRCdN26iEvSnbqIQlO3UQhL0pVu6EJSrd0IS/VrXuhGrWvdCN"
        "PSlSlrqlKlLXVL0pVu6EJSrd0IS9KduohCU7dRCEvTpu3UQnTduohL0p26iEJTt1EIS9KVbuhCUq3dCEv1a17oRq1r3QjT0pUpa6pSpS11T/"
        "AP/Z",
    ),
    JPEGLosslessSV1: (
        0,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALEAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAAAAAACAQQ/9oACAEBAAEAAM8Hg8Hg8Hg8Hg8Hg8Hg"
        "8Hg8L3i8Xi8Xi8XU8Xi8Xi8Xi6nje8nk8nW8nk63k8nk63k8nW8r3m83Y83Y83Y83m7Hm7Hm7Hne9Ha9Ha9Ha7Xo7Xo7Xo7Xa9L3q7nc9Xc7"
        "nc9Xc7nq7nc7nre9ne73e73e73s73e73e73e9r3g8Hg8Hg8Hg8Hg8Hg8Hg8Hhe8Xi8Xi8Xi6ni8Xi8Xi8XU8b3k8nk63k8nW8nk8nW8nk63l"
        "e83m7Hm7Hm7Hm83Y83Y83Y873o7Xo7Xo7Xa9Ha9Ha9Ha7Xpe9Xc7nq7nc7nq7nc9Xc7nc9b3s73e73e73e9ne73e73e73te8Hg8Hg8Hg8Hg8"
        "Hg8Hg8Hg8L3i8Xi8Xi8XU8Xi8Xi8Xi6nj///2Q==",
    ),
    JPEGLSLossless: (
        0,
        "/9j/9wALEAAQABABAREA//gADQH//wASAEMBFABA/9oACAEBAAAAAK7937v3d9v2fX9X0/R8/xvl+T48HoQQgiCE0JomhiGo1Go9Ho9EIQQe"
        "ikUlIiIiIqKjI6GgoSGg9ByRIhzIiFEjSIcyIgQochqJHkQkyIhRI8iEsiIoahiSaWqEgiiknohIYIxFopJoUcMEUk0KOGCLRSumeWGCKmeW"
        "cYSg0SpbFClSjUtidOoRIlEJUtBnGEqWgzjCQjpUviBGEqXxAjCOjJZtB1ChSegqhRHRVZ6IExWeiBMRkVWdDsxWZDtzFRDU/tzC0/tzEHEV"
        "nWXXRVnVWXRRQP//2Q==",
    ),
    JPEGLSNearLossless: (
        2,
        "/9j/9wALDAAQABABAREA/9oACAEBAAIAAIHwfB8/XV9dXV1bXVtbW1m1u7kYzMRESYttpJNtaVulLlUqsxdlaulXdWupa7mSWzLfYrcV+EyS"
        "ZmQ8m7s6qJLfbpiJl0z7S/u9vX77C3rfMck5knj/2Q==",
    ),
    JPEG2000Lossless: (
        0,
        "/0//UQApAAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABCwEB/1IADAAAAAEAAQQEAAH/XAAHQGBoaHD/ZAAlAAFDcmVhdGVk"
        "IGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAADTAAH/k9/hZBIrZrfdP96n5lq5KHKZiG+dsbRvpJuDKrYpuNjdc7YHtpj2/kbi"
        "OLl5rA9KUsqTsjni/zlFYx+TGAdiN1OZ1YvHOQ3ShIlUz63Pu5nG7WwA+MVsuaFPO3DHwPwJIA+dBAA+FoA2oYVFFWAKSDDLPNE5EDUiovVZ"
        "KlyPoV0W4bTRwdNgchXU5j9CwUOkzfk1tabn8myAkNmR4tiK0purBlg9ShBBfgS5txW0rCBMYrcgUIo6ciTGu77Yu66ESt18RNYP/9k=",
    ),
    JPEG2000: (
        8,
        "/0//UQApAAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABCwEB/1IADgECAAEAAQQEAACIiP9cAAtCaCR303fTd2L/ZAAlAAFD"
        "cmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAACOAAH/k8/VOBFP9d+DXgbceHAv2dUD4gAgn4wMfn1hguc1dUZUGj3j"
        "z254AfEfQIglzGicgfFdT863TUMxxgnrANRz9n8S0dt3uKfhw8zd1WT3unj0CcB9YxAD4iA2oYBAXzb8cRC5wclPKIpPUs31PAPd4x1H2sxE"
        "/SIDFRm35HLFBCrr/9k=",
    ),
    HTJ2KLossless: (
        0,
        "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAIEBEAB/1wACiCIkJCQiIiI"
        "/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAOcAAf+TwAAunP3/QP958Pvv+/A/+Bo6/tzw/3N/eN9vX4D/Peed480A9ZdCADG4"
        "AMAAFowAAV0AAFYASADIIIOYADDQ8EMSiUU2lwDCgAQA4IX3UEAsNJWXACAKkiBJ/kAGs+m2AMAALqIAAXTQAAt81QRA8BYnYRsAzNHDJwQE"
        "3uRA4AkA9eBfrMJpzqaFfJVxNcYrPX3hAREjCFA2LgsWJgk4AoCYhhuBgGAADXIAABUQ8WW6FlQq9PKbj1QBm+aoSOQopaIsWtKltY057/Lt"
        "/TqG26p+rvIf+6RRAf/Z",
    ),
    HTJ2KLosslessRPCL: (
        0,
        "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAIEBEAB/1wACiCIkJCQiIiI"
        "/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv9VAAoAYAAAAAAA5/+QAAoAAAAAAOcAAf+TwAAunP3/QP958Pvv+/A/+Bo6/tzw/3N/eN9vX4D/"
        "Peed480A9ZdCADG4AMAAFowAAV0AAFYASADIIIOYADDQ8EMSiUU2lwDCgAQA4IX3UEAsNJWXACAKkiBJ/kAGs+m2AMAALqIAAXTQAAt81QRA"
        "8BYnYRsAzNHDJwQE3uRA4AkA9eBfrMJpzqaFfJVxNcYrPX3hAREjCFA2LgsWJgk4AoCYhhuBgGAADXIAABUQ8WW6FlQq9PKbj1QBm+aoSOQo"
        "paIsWtKltY057/Lt/TqG26p+rvIf+6RRAf/Z",
    ),
    HTJ2K: (
        8,
        "/0//UQApQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAABDwEB/1AACAACAAAAKf9SAAwAAgABAAIEBEAA/1wAESKSLZKBkoGS"
        "14peil6KFP9kABcAAU9wZW5KUEggVmVyIDAuMjYuMy7/kAAKAAAAAADsAAH/k8AAF1ZXHzM8/mE4YeGEvW16Nd0CuP1yXNl4NeENhH3z1uOF"
        "aovI9gD1l1KAMbgAwAAW3AABaUAAFQAWMSQQ6rkHKaUwLBwQ6slHKaX+AGcHGEBZmABCEgIyi9IwC9MwABAADHrQuABCqgBB7seVAMAALsIA"
        "AXRQAAtIWi35s+MD5PUGeEFDREZaDvBA0NPjIwTWBqhDP0hAUnOh+853ZvzteKsYRshiW3IBCERQmPhTJIYAGjgqdjjobkpy8gIvN3U1Zpzc"
        "tKUOkrFzARUpbA1F6WQt72Oa/1jgrm/eAP/Z",
    ),
    RLELossless: (
        0,
        "AgAAAEAAAABQAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAP8ADQECAwQFBgcICQoLDA0O"
        "DwABAQIDBAUGBwgJCgsMDQ4PAAECAgMEBQYHCAkKCwwNDg8AAQICAwQFBgcICQoLDA0ODwABAgMDBAUGBwgJCgsMDQ4PAAECAwQEBQYHCAkK"
        "CwwNDg8AAQIDBAUFBgcICQoLDA0ODwABAgMEBQYGBwgJCgsMDQ4PAAECAwQFBgcHCAkKCwwNDg8AAQIDBAUGBwgICQoLDA0ODwABAgMEBQYH"
        "CAkJCgsMDQ4PAAECAwQFBgcICQoKCwwNDg8AAQIDBAUGBwgJCgsLDA0ODwABAgMEBQYHCAkKCwwMDQ4PAAECAwQFBgcICQoLDA0NDg0AAQID"
        "BAUGBwgJCgsMDf8ODwDw4NDAsKCQgHBgUEAwIBAPDwDx4tPEtZ+QgXJjVEUvIA8eEAL039HDrqCShG9hUz4wDy0gE//y3tG9sKOPgm5hTUAP"
        "PDAdEf7y38zAraGOgm9cUA9LQC4cEf/t29C+rKGPfWtgD1pQPy4dDPvq4M++rZyLenAPaVlJOSkZCfnp2cm5qZmJeQ94aVpLPC0eCPnq28y9"
        "rpiJD4d5a11IOiwXCfvt2Mq8p5kPlol8aFtHOiYZDPjr18q2qQ+lmYZ6Z1tINSkWCvfr2MW5D7Spl4V6aFZEOScVCvjm1MkPw7mol4Z1ZFNJ"
        "OCcWBfTj2Q/SwrKikoJyYlJCMiISAvLiD+HSw7SllodxYlNENSYXAfI=",
    ),
}
