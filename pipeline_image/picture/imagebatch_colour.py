"""A loaded picture of up to 8 bits per sample as pixels: grey or RGB, transparency laid on the background."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from imagebatch_header import View
from PIL import Image

Array = npt.NDArray[np.uint8]
PLAIN: Final = View()
# Pixels that are converted at once: what lies between the decoder's picture and ours stays this small.
_BAND: Final = 1 << 22


def channels(image: Image.Image, view: View) -> Array:
    """Convert a loaded image of up to 8 bits per sample to uint8 (height, width, 1 or 3)."""
    width, height = image.size
    image = image.convert("LA") if image.mode == "La" else image
    grey = image.mode in ("1", "L") and not image.has_transparency_data
    pixels = np.empty((height, width, 1 if grey else 3), np.uint8)
    for rows in bands(width, height):
        band = image if height == rows.stop - rows.start else image.crop((0, rows.start, width, rows.stop))
        if image.has_transparency_data:
            rgba = band.convert("RGBA")
            below = Image.new("RGBA", rgba.size, (*view.rgb, 255))
            pixels[rows] = np.asarray(Image.alpha_composite(below, rgba).convert("RGB"))
        elif grey:
            pixels[rows, :, 0] = np.asarray(band.convert("L"))
        else:
            pixels[rows] = np.asarray(band.convert("RGB"))
    return pixels


def bands(width: int, height: int) -> Iterator[slice]:
    """Cut the rows of an image into pieces of a bounded number of pixels."""
    rows = max(1, _BAND // max(1, width))
    return (slice(top, min(height, top + rows)) for top in range(0, height, rows))
