"""Samples of 9 to 16 bits: read whole where their low bytes count, and scaled by the model's value range."""

import sys
from typing import Final

import numpy as np
import numpy.typing as npt
from imagebatch_colour import Array, bands, channels
from imagebatch_header import Data, Header, View
from imagebatch_open import opened, order_of, seek
from PIL import Image
from PIL.ImageFile import ImageFile, _Tile

Wide = npt.NDArray[np.uint16]
# Of a thousand values that are stretched: so many become black, so many white.
_STRETCHED: Final = 5


def used_bits(largest: int) -> int:
    """Return the bits of a largest value, at least 1."""
    return max(1, largest.bit_length())


def high_bits(image: Image.Image) -> int:
    """Return the bits of the largest 16-bit value of an image of which Pillow has kept the high bytes."""
    extremes = image.getextrema()[: min(3, len(image.getbands()))]
    return used_bits(max(int(high) for _, high in extremes)) + 8  # type: ignore[misc]  # a pair per band: it has several


def deep_grey(values: Wide, image: Image.Image, header: Header, view: View) -> Array:
    """Scale grey of 9 to 16 bits to uint8 (height, width, 1 or 3)."""
    table = scale(values[..., None], header, view)
    grey = table[values][:, :, None]
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    return np.where((values == clear)[:, :, None], np.array(view.rgb, np.uint8), grey)


def deep_colour(wide: Wide, image: Image.Image, view: View) -> Array:
    """Scale colour of 16 bits by the model's value range, and lay it on the background."""
    colours = wide[..., :3]
    if view.value_range == "full":
        pixels = (colours >> 8).astype(np.uint8)
    else:
        pixels = scale(colours, Header("", 0, 0, 16), view)[colours]
    clear = image.info.get("transparency")
    if isinstance(clear, tuple):
        hidden = (colours == np.array(clear, np.uint16)).all(axis=-1, keepdims=True)
        return np.where(hidden, np.array(view.rgb, np.uint8), pixels)
    if wide.shape[-1] == 4 and image.mode == "RGBA":  # noqa: PLR2004 - colours and alpha
        rgba = np.concatenate([pixels, (wide[..., 3:] >> 8).astype(np.uint8)], axis=-1)
        return channels(Image.fromarray(rgba, "RGBA"), view)
    return pixels


def scale(values: Wide, header: Header, view: View) -> Array:
    """Make the table that turns each 16-bit value into 0..255."""
    low, high = 0, (1 << (view.bits or header.depth)) - 1
    if view.value_range == "stretch":
        low, high = _spread(values)
    steps = np.clip(np.arange(65536, dtype=np.int64) - low, 0, high - low)
    return ((steps * 255 + (high - low) // 2) // (high - low)).astype(np.uint8)


def _spread(values: Wide) -> tuple[int, int]:
    """Return the values that half a percent of the samples lie below, and above; two that differ."""
    counts = np.zeros(65536, np.int64)
    for rows in bands(values.shape[1] * values.shape[2], values.shape[0]):
        counts += np.bincount(values[rows].ravel(), minlength=65536)
    below = counts.cumsum()
    total = int(below[-1])
    low = int(np.searchsorted(below, total * _STRETCHED // 1000, side="right"))
    high = int(np.searchsorted(below, total - total * _STRETCHED // 1000))
    return (low, high) if low < high else (0, 65535)


def wide_samples(image: ImageFile, header: Header, data: Data, view: View) -> Wide | None:
    """Read colour of 16 bits whole, where its low bytes count; None elsewhere.

    Pillow keeps one byte of each sample, by the name of the samples' order. Asked with either order, it gives
    both.
    """
    clear = isinstance(image.info.get("transparency"), tuple)
    if image.mode.startswith("I") or not image.tile or not (clear or view.value_range != "full"):
        return None
    tile = image.tile[0]
    order = order_of(tile)
    if order == "LA;16B":
        return _grey_with_alpha(image, tile)
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[order[-1]]
    with opened(header.format, data) as twin:
        if view.page > 1 and header.format != "TIFF":
            seek(twin, header, view.page, data)
        twin.tile = [_other_bytes(part, order[:-1] + other) for part in twin.tile]
        twin.load()
        low = np.asarray(twin, np.uint16)
    image.load()
    high = np.asarray(image, np.uint16)
    wide: Wide = np.left_shift(high, 8, dtype=np.uint16) | low
    return wide


def _other_bytes(tile: _Tile, order: str) -> _Tile:
    """Return a piece of a file whose samples are taken for stored in another order."""
    args = order if isinstance(tile.args, str) else (order, *(tile.args or ())[1:])
    return tile._replace(args=args)


def _grey_with_alpha(image: ImageFile, tile: _Tile) -> Wide:
    """Read grey and alpha of 16 bits each as four planes of 8 bits; give RGBA with three equal colours."""
    image.tile = [_other_bytes(tile, "RGBA")]
    image.load()
    planes = np.asarray(image, np.uint16)
    grey, alpha = planes[..., 0] << 8 | planes[..., 1], planes[..., 2] << 8 | planes[..., 3]
    return np.stack([grey, grey, grey, alpha], axis=-1)
