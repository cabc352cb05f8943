"""JPEG: decoded whole or at a few eighths, damage found; and the pictures that one file may hold."""

import io
import re
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # ships no type marker
from imagebatch_colour import PLAIN, Array, channels
from imagebatch_formats import failure, format_of
from imagebatch_header import Data, Header, ImageError, View, require_page
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

# What the fast decoder complains of that says nothing about the pixels. Only its first complaint is reported,
# so there may be others: Pillow reads those files, and `_load_jpeg` finds out whether all pixels are there.
_HARMLESS: Final = ("extraneous bytes", "adobe", "icc profile", "sos parameters", "subsampling")


WHOLE: Final = 8
"""Eighths of a picture's sides that are all of it."""
Eighths = Callable[[int, int], int]
"""Of a JPEG's height and width: how many eighths of them are enough, 1 to 8; symmetrical in both."""
_MOST_EIGHTHS: Final = 4
_MARGIN: Final = 2


def eighths_for(side: int, wanted: int) -> int:
    """Return how many eighths of its size a JPEG is decoded at so that enough is left to resize from.

    The decoder leaves out the frequencies that a smaller picture cannot hold, which costs it less than to
    work them out and average them away. Enough is twice the side that is wanted: what is resized from less
    differs visibly (docs/adr/0008). Five to seven eighths save nothing: the decoder has quick arithmetic for
    one, two and four, and for eight.

    Args:
        side: Of the whole picture, the one that decides, pixels.
        wanted: What it is resized to, pixels.

    Returns:
        1 to 4, or `WHOLE`.
    """
    enough = -(-WHOLE * _MARGIN * wanted // side)
    return enough if enough <= _MOST_EIGHTHS else WHOLE


def read_jpeg(image: ImageFile, data: Data, view: View, eighths: int = WHOLE) -> Array:
    """Decode with simplejpeg, which is faster than Pillow and, unlike it, reports damaged pixel data.

    Args:
        image: The file, opened by Pillow.
        data: The file.
        view: What the model declares.
        eighths: Of the height and width, rounded up, that are decoded: all coded pixels are read for it, so
            that damage is found as in the whole. What the quick decoder does not take is decoded whole.

    Returns:
        uint8 (height, width, 1 or 3), at that size.

    Raises:
        ImageError: The pixels are damaged or not all there, or the headers contradict each other.
    """
    try:
        return _decode_jpeg(image, data, eighths)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # mostly ValueError; an impossible subsampling is a KeyError
        text = str(error).lower()
        if any(word in text for word in _HARMLESS):
            return _load_jpeg(image, bytes(data))
        if view.end_marker == "lenient" and "premature end of jpeg" in text:
            return read_jpeg(image, bytes(data).rstrip(b"\xff") + b"\xff\xd9", PLAIN, eighths)
        raise failure(error, data) from error


def _decode_jpeg(image: ImageFile, data: Data, eighths: int) -> Array:
    # The two libraries must agree on the size that was bounded: a crafted file may show each another one.
    height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
    if (width, height) != image.size:
        raise ImageError("decode_failed", _CONTRADICTION)
    colorspace = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[image.mode]
    high, wide = (-(-side * eighths // WHOLE) for side in (height, width))
    array: Array = simplejpeg.decode_jpeg(
        data,
        colorspace,
        fastdct=False,
        fastupsample=False,
        min_height=high if eighths < WHOLE else 0,
        min_width=wide if eighths < WHOLE else 0,
        strict=True,
    )
    if array.shape[:2] != (high, wide):
        raise ImageError("decode_failed", f"the decoder gave {array.shape[1]} x {array.shape[0]} pixels")
    if colorspace == "CMYK":  # stored inverted, by Adobe's convention, which Pillow follows too
        array = np.array(Image.fromarray(255 - array, "CMYK").convert("RGB"))
    return array


_CONTRADICTION: Final = "the headers contradict each other"


def _load_jpeg(image: ImageFile, data: bytes) -> Array:
    """Decode with Pillow, and find out in another way what it is silent about: pixel data that ends early."""
    if jpeg_sizes(data) != [image.size]:
        raise ImageError("decode_failed", _CONTRADICTION)
    pixels = _loaded(image, data)
    with JpegImageFile(io.BytesIO(_lengthened(data))) as longer:
        if not np.array_equal(pixels, _loaded(longer, data)):
            raise ImageError("truncated", "the pixel data ends before the last pixel")
    return pixels


def _loaded(image: ImageFile, data: Data) -> Array:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like
        raise failure(error, data) from error
    return channels(image, PLAIN)


def _lengthened(data: bytes) -> bytes:
    """Return a JPEG with stray bytes behind each run of coded pixels.

    A decoder that has all pixels skips them; one that lacks some takes the bytes for pixels, where before it
    made them up: the picture is another one then.
    """
    ends = list(run_ends(data))
    pieces = zip([0, *ends], [*ends, len(data)], strict=True)
    return _STRAY.join(data[start:end] for start, end in pieces)


_STRAY: Final = bytes(range(1, 97))
# A marker; a byte 0xFF within coded pixels is followed by zero and is none.
_MARKER: Final = re.compile(rb"\xff+[^\x00\xff]")
_SCAN: Final = 0xDA
_RESTARTS: Final = range(0xD0, 0xD8)
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xDA)})
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def jpeg_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return the width and height of each frame header before a JPEG's first scan: of a sound file, one."""
    found = []
    for kind, at in _segments(data):
        if kind == _SCAN:
            break
        if kind in _FRAMES:
            found.append(
                (int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 3 : at + 5], "big"))
            )
    return found


def run_ends(data: bytes) -> Iterator[int]:
    """Yield where each run of a JPEG's coded pixels ends: at a marker, also at one of a restart."""
    for kind, end in _segments(data):
        if kind == _SCAN:
            after = end + int.from_bytes(data[end : end + 2], "big")
            found = _MARKER.search(data, after)
            while found:
                yield found.start()
                if data[found.end() - 1] not in _RESTARTS:
                    break
                found = _MARKER.search(data, found.end())


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker of a JPEG: its kind, and where what it marks begins."""
    at = 0
    while found := _MARKER.search(data, at):
        kind, at = data[found.end() - 1], found.end()
        yield kind, at
        if kind not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")


def jpeg_frames(image: JpegImageFile) -> int:
    """Count the pictures of a phone's or a stereo camera's file; one that is damaged has the first."""
    try:
        found = image._getmp()  # noqa: SLF001 - Pillow's own reader of such files calls it
        return max(1, int((found or {}).get(0xB001, 1)))
    except Exception:  # noqa: BLE001 - broken metadata raises anything, and says nothing about the pixels
        return 1


def picture_within(image: ImageFile, header: Header, number: int, data: Data) -> bytes:
    """Return one of the pictures of a JPEG that holds several: each is a whole JPEG (CIPA DC-007)."""
    require_page(header.frames, number)
    try:
        entry = image._getmp()[0xB002][number - 1]  # type: ignore[attr-defined]  # noqa: SLF001 - Pillow's own reader of such files calls it
        start = int(image.info["mpoffset"]) + int(entry["DataOffset"]) if number > 1 else 0
    except Exception as error:  # broken metadata raises anything
        raise ImageError("decode_failed", f"the file does not say where its picture {number} is") from error
    # How long it is, writers get wrong, and its own end marker says.
    found = bytes(data[start:])
    if not found:
        raise ImageError("truncated", f"the file ends before its picture {number}")
    if format_of(found) != "JPEG":
        raise ImageError("decode_failed", f"picture {number} of the JPEG is no JPEG")
    return found
