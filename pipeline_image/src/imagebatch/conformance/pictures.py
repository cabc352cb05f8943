"""Files that checks send: images that differ, a heavy one, and bytes that are no image."""

from __future__ import annotations

import functools
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE = 192
_HEAVY_SIDE = 1024


def drawn(count: int) -> list[bytes]:
    """Return JPEGs of 192x192 that differ in colour, brightness and structure, the same at every call."""
    chance = np.random.default_rng(7)
    images: list[bytes] = []
    for _ in range(count):
        colour = chance.integers(0, 256, 3)
        cells = int(chance.integers(2, 24))
        coarse = Image.fromarray(chance.integers(0, 256, (cells, cells), dtype=np.uint8))
        shade = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float32)
        pixels = (0.6 * colour + 0.4 * shade[..., None]).clip(0, 255).astype(np.uint8)
        images.append(_jpeg(pixels))
    return images


@functools.cache
def heavy() -> bytes:
    """Return a JPEG of noise, about a megabyte of one megapixel."""
    return _jpeg(np.random.default_rng(8).integers(0, 256, (_HEAVY_SIDE, _HEAVY_SIDE, 3), dtype=np.uint8))


def garbage(image: bytes) -> dict[str, bytes]:
    """Return files that no decoder should take for an image, by what they are.

    Args:
        image: A good file, of which half is one of them.
    """
    return {
        "empty": b"",
        "text": b"<!DOCTYPE html><title>404</title>",
        "a JPEG's first bytes": b"\xff\xd8\xff\xe0 and nothing that follows",
        "noise": np.random.default_rng(9).bytes(2048),
        "half of an image": image[: len(image) // 2],
    }


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()
