"""The door for plain image files: PNG, WebP or JPEG to a grey film. DICOM has its own room, `worker.decode`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from schemas.errors import Undecodable
from schemas.image import GrayImage

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def open_image(path: Path) -> GrayImage:
    """The film in an image file, as it is displayed.

    Alpha is ignored (some of NIH's PNGs are RGBA), colour and palettes become luma (ITU-R BT.601), 16-bit grey is
    scaled from its full range.

    Returns
    -------
        uint8 (Rows, Columns); 0 = black, 255 = white.

    Raises
    ------
    Undecodable
        Not one of the three formats, truncated, or corrupt. A missing file or no permission stays an `OSError`.
    """
    with path.open("rb") as file:
        try:
            with Image.open(file, formats=("PNG", "WEBP", "JPEG")) as image:
                image.load()
                if image.mode in _SIXTEEN_BITS:
                    wide = np.asarray(image).astype(np.int64)
                    return (wide.clip(0, 65535) // 257).astype(np.uint8)
                return np.array(image.convert("L"))
        except UnidentifiedImageError as error:
            raise Undecodable("neither PNG, WebP nor JPEG") from error
        except Image.DecompressionBombError as error:
            raise Undecodable("more pixels than any film has") from error
        # Pillow's decoders name corruption by all of these: OSError (truncated), SyntaxError (broken PNG chunk),
        # ValueError and struct-like EOFError (short headers).
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise Undecodable(f"corrupt image file ({error})") from error
