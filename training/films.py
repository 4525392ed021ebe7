"""The PNG door: an NIH film as the square grey that the recipe makes of it. DICOM never comes in here."""

from __future__ import annotations

from pathlib import Path

from schemas.image import GrayImage
from worker.tensor.image_file import open_image
from worker.tensor.recipe import to_tensor


def square(path: Path, size: int) -> GrayImage:
    """uint8 (size, size): one channel of the recipe's tensor (all three are equal).

    Raises
    ------
    Undecodable
        The file is truncated or no image.
    """
    return to_tensor(open_image(path), size)[:, :, 0]
