"""Images that tests draw: small, large, and hostile."""

import io
import random
import struct
import zlib

import numpy as np
from PIL import Image


def jpeg(seed: int, size: tuple[int, int] = (24, 16)) -> bytes:
    """A small JPEG that no other seed gives."""
    noise = random.Random(seed).randbytes(size[0] * size[1] * 3)
    return encoded(Image.frombytes("RGB", size, noise), "JPEG")


def photograph(seed: int = 0, size: tuple[int, int] = (320, 260)) -> Image.Image:
    """A picture with structure at every scale."""
    chance = np.random.default_rng(seed)
    pixels = np.zeros((size[1], size[0]))
    for cells in (2, 5, 13, 40, 130):
        coarse = Image.fromarray(chance.integers(0, 256, (cells, cells), dtype=np.uint8))
        pixels += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), float) / 5
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """The bytes of an image file of this kind."""
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def png_bomb() -> bytes:
    """A PNG that claims 50,000 x 50,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0"))
        + chunk(b"IEND", b"")
    )
