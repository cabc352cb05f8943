"""One image, decoded: its statistics, its perceptual hash, its thumbnail.

Runs in a worker process (images/worker.py): a hostile file may end that process and nothing else.
"""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from imagebatch.inputs.formats import FORMATS

# Shorter side that statistics are made at: sharpness is comparable between sizes only at one scale.
SIDE = 256
LAYOUT = 8
DIRECTIONS = 8
_HASH = 16
# Decoding more than this for a picture of 112 pixels is not worth it.
MOST_PIXELS = 60_000_000
THUMBNAIL = 112

Grey = npt.NDArray[np.float32]


def measure(data: bytes) -> dict[str, Any]:
    """Return the statistics of one image file.

    Args:
        data: The whole file; of a known format, and of a bounded number of pixels.

    Returns:
        `mode` (Pillow's), `brightness` and `contrast` (mean and standard deviation of grey, 0 to 1),
        `sharpness` (log10 of the variance of the Laplacian, at 256 pixels), `saturation` (0 to 1), `layout`
        (72 floats: where light and dark lie, and the directions of edges), `hash` (64 hex digits: difference
        hash), `decode_ms`; or `problem`.
    """
    begun = time.perf_counter()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            mode = image.mode
            colour = _small(image, SIDE)
    except Exception as error:  # noqa: BLE001 (decoders raise what they like: each costs one row)
        return {"problem": _problem(error)}
    decode_ms = (time.perf_counter() - begun) * 1000
    shades = colour.convert("L")
    grey = np.asarray(shades, np.float32)
    return {
        "mode": mode,
        "brightness": float(grey.mean() / 255),
        "contrast": float(grey.std() / 255),
        "sharpness": _sharpness(grey),
        "saturation": _saturation(colour),
        "layout": [round(float(value), 4) for value in (*_layout(shades), *_directions(grey))],
        "hash": _difference_hash(shades),
        "decode_ms": round(decode_ms, 2),
    }


def thumbnail(data: bytes) -> bytes:
    """Return a JPEG of at most 112 x 112 pixels, without metadata.

    Raises:
        Exception: Whatever the decoder raises.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        small = ImageOps.exif_transpose(_small(image, THUMBNAIL * 2))
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=62, optimize=True)
    return stream.getvalue()


def _small(image: Image.Image, side: int) -> Image.Image:
    """Return the image as RGB, or as L if it is grey, with a shorter side of at most `side`."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width}x{image.height} is too large to look at")
    image.draft("RGB", (side, side))  # JPEG: decodes at a fraction of the size
    if image.mode.startswith(("I", "F")):
        # 16 bits: scaled, where convert() would cut everything above 255 off.
        deep = np.asarray(image, np.float64)
        scale = 255 / max(float(deep.max()), 255.0)
        image = Image.fromarray((deep * scale).clip(0, 255).astype(np.uint8))
    factor = side / min(image.size)
    plain = image.convert("L" if image.mode == "L" else "RGB")
    if factor >= 1:
        return plain
    size = (max(1, round(plain.width * factor)), max(1, round(plain.height * factor)))
    return plain.resize(size, Image.Resampling.BOX)


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


def _problem(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no header of a known image format"
    text = " ".join(str(error).split())[:150]
    return "truncated" if "truncated" in text.lower() else f"{type(error).__name__}: {text}"
