"""EXIF's orientation: how a picture lies in its file, and the same the right way up."""

from typing import Final

import numpy as np
from imagebatch_colour import Array
from PIL import Image

_ORIENTATION: Final = 0x0112


def orientation_of(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken metadata raises anything, and says nothing about the pixels
        return 1
    return int(found) if found in (2, 3, 4, 5, 6, 7, 8) else 1


def upright(pixels: Array, orientation: int) -> Array:
    """Undo an EXIF orientation of pixels of shape (height, width, channels)."""
    if orientation == 1:
        return pixels
    # Of those that also swap the sides, what is flipped is the stored picture.
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        flipped = np.empty(pixels.shape, np.uint8)
        for channel in range(pixels.shape[2]):  # three bytes at once are no number: one by one is quicker
            flipped[..., channel] = pixels[:, ::-1, channel]
        pixels = flipped
    pixels = np.ascontiguousarray(pixels)
    return pixels.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else pixels
