"""One image, decoded: its statistics, its perceptual hash, its thumbnail.

Runs in a worker process (images/worker.py): a hostile file may end that process and nothing else.
"""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from imagebatch_header import ImageError, View
from imagebatch_picture import PLAIN, Picture, eighths_for, read, upright
from PIL import Image

# Shorter side that statistics are made at: sharpness is comparable between sizes only at one scale.
SIDE = 256
LAYOUT = 8
DIRECTIONS = 8
_HASH = 16
# Decoding more than this for a picture of 112 pixels is not worth it.
MOST_PIXELS = 100_000_000
THUMBNAIL = 112
PREVIEW = 1024  # what people judge a picture by
# A picture of 16 bits hardly leaves the upper three quarters of its range empty by chance; a camera's of
# fewer bits always does.
_MOST_USED_BITS = 14

Grey = npt.NDArray[np.float32]


def measure(data: bytes, view: View = PLAIN) -> dict[str, Any]:
    """Return the statistics of one image file, of the pixels that the model sees.

    Args:
        data: The whole file.
        view: How the model sees files that can be seen in more than one way.

    Returns:
        `mode` (Pillow's), `brightness` and `contrast` (mean and standard deviation of grey, 0 to 1),
        `sharpness` (log10 of the variance of the Laplacian, at 256 pixels), `saturation` (0 to 1), `layout`
        (72 floats: where light and dark lie, and the directions of edges), `hash` (64 hex digits: difference
        hash), `decode_ms`, `low_depth` (what is wrong with the range of its values, or None), `reduced`
        (whether it says that it is a reduced copy); or `problem`.
    """
    begun = time.perf_counter()
    try:
        picture = read(data, view=view, max_pixels=MOST_PIXELS)
    except (ImageError, MemoryError) as error:
        return {"problem": str(error)[:150] or "more memory than a decoder may take"}
    colour = _small(picture, SIDE)
    decode_ms = (time.perf_counter() - begun) * 1000
    shades = colour.convert("L")
    grey = np.asarray(shades, np.float32)
    return {
        "mode": picture.mode,
        "brightness": float(grey.mean() / 255),
        "contrast": float(grey.std() / 255),
        "sharpness": _sharpness(grey),
        "saturation": _saturation(colour),
        "layout": [round(float(value), 4) for value in (*_layout(shades), *_directions(grey))],
        "hash": _difference_hash(shades),
        "decode_ms": round(decode_ms, 2),
        "low_depth": _low_depth(picture, view),
        "reduced": picture.header.reduced,
    }


def thumbnail(data: bytes, view: View = PLAIN) -> bytes:
    """Return a JPEG of at most 112 x 112 pixels of what the model sees, without metadata.

    Raises:
        ImageError: The file cannot be decoded.
    """
    picture = read(
        data,
        view=view,
        max_pixels=MOST_PIXELS,
        # Statistics are compared with those of earlier runs, and stay of the whole; this is only looked at.
        eighths=lambda height, width: eighths_for(min(height, width), THUMBNAIL * 2),
    )
    small = _small(picture, THUMBNAIL * 2)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=62, optimize=True)
    return stream.getvalue()


def preview(data: bytes, view: View = PLAIN) -> bytes:
    """Return a JPEG of at most 1,024 x 1,024 pixels of what the model sees, without metadata.

    Raises:
        ImageError: The file cannot be decoded.
    """
    shown = _small(read(data, view=view, max_pixels=MOST_PIXELS), PREVIEW)
    shown.thumbnail((PREVIEW, PREVIEW))
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _small(picture: Picture, side: int) -> Image.Image:
    """Return the picture as RGB, or as L if it is grey, with a shorter side of at most `side`."""
    pixels = upright(picture.pixels, picture.orientation)
    plain = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    factor = side / min(plain.size)
    if factor >= 1:
        return plain
    size = (max(1, round(plain.width * factor)), max(1, round(plain.height * factor)))
    return plain.resize(size, Image.Resampling.BOX)


def _low_depth(picture: Picture, view: View) -> str | None:
    """Say what is wrong with how the values of a deep picture fill their range, if anything is."""
    used, depth = picture.used_bits, picture.header.depth
    if view.bits and used > view.bits:
        return f"its values need {used} bits, {view.value_range} is declared: what is above is white"
    if view.value_range == "full" and depth > _MOST_USED_BITS and 0 < used <= _MOST_USED_BITS:
        declare = f"declare value_range {max(used, 9)}-bit"
        return f"its values use {used} of {depth} bits, so that it looks dark: {declare}"
    return None


def _sharpness(grey: Grey) -> float:
    if min(grey.shape) < 3:  # noqa: PLR2004 (the Laplacian looks at 3 x 3 pixels)
        return 0.0
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(np.log10(laplacian.var() + 1e-2))


def _saturation(colour: Image.Image) -> float:
    if colour.mode == "L":
        return 0.0
    pixels = np.asarray(colour.resize((32, 32), Image.Resampling.BOX), np.float32)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean() / 255)


def _layout(shades: Image.Image) -> npt.NDArray[np.float32]:
    """Return the grey of an 8 x 8 grid, with mean 0 and deviation 1: shape (64,)."""
    cells = np.asarray(shades.resize((LAYOUT, LAYOUT), Image.Resampling.BOX), np.float32).ravel()
    found: Grey = (cells - cells.mean()) / (cells.std() + 1.0)
    return found


def _directions(grey: Grey) -> npt.NDArray[np.float32]:
    """Return the share of the edges' strength in each of 8 directions, times 8: shape (8,)."""
    if min(grey.shape) < 6:  # noqa: PLR2004 (gradients of 3 x 3 pixels, taken at half the size)
        return np.ones(DIRECTIONS, np.float32)
    grey = grey[::2, ::2]
    across = grey[1:-1, 2:] - grey[1:-1, :-2]
    down = grey[2:, 1:-1] - grey[:-2, 1:-1]
    turns = np.arctan2(down, across) * np.float32(DIRECTIONS / np.pi)
    sector = np.rint(turns).astype(np.int8) % DIRECTIONS  # an edge has a direction, and no sense
    strength = np.sqrt(across * across + down * down)
    shares = np.bincount(sector.ravel(), strength.ravel(), DIRECTIONS)
    return (shares / max(float(shares.sum()), 1e-6) * DIRECTIONS).astype(np.float32)


def _difference_hash(shades: Image.Image) -> str:
    """Return 256 bits: whether each of 16 x 16 cells is brighter than its right neighbour."""
    cells = np.asarray(shades.resize((_HASH + 1, _HASH), Image.Resampling.BOX), np.int16)
    return np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes().hex()
