"""The PNG door: an NIH film as the square grey that the recipe makes of it. DICOM never comes in here."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from schemas.image import GrayImage
from worker.tensor.image_file import open_image
from worker.tensor.recipe import to_tensor


def square(path: Path, size: int) -> GrayImage:
    """uint8 (size, size): one channel of the recipe's tensor (all three are equal).

    Raises
    ------
    Undecodable
        The file is truncated or no image.
    OSError
        The file cannot be opened.
    """
    return to_tensor(open_image(path), size)[:, :, 0]


def area(path: Path) -> int:
    """Rows x columns, from the header alone; 0 where there is no header that can be read."""
    try:
        with Image.open(path, formats=("PNG", "WEBP", "JPEG")) as image:
            return image.width * image.height
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return 0
