"""One image before scoring: its digest, and its header read without decoding a pixel."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.records import Reason
from imagebatch.contracts.rows import ListedRow, ManifestRow
from imagebatch.inputs.formats import FORMATS
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError

# The limit is ours (--max-image-pixels) and is applied below; Pillow's would warn on a fixed one.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class Header:
    """Format (Pillow's name) and size in pixels, as stored: before any EXIF rotation."""

    format: str
    width: int
    height: int


def inspect(row: ListedRow, source: ImageSource, max_pixels: int) -> ManifestRow:
    """Make an image's manifest row; a refused image's row has a reason.

    Args:
        row: The image as it was listed.
        source: Reads the image.
        max_pixels: Largest width times height taken.
    """
    found = ManifestRow(image_id=row["image_id"], uri=row["uri"])
    try:
        data = source.read(row["uri"])
        found |= {"size": len(data), "sha256": sha256_hex(data)}
        header = read_header(data, max_pixels)
    except ImageUnavailableError as refused:
        return {**found, "reason": refused.reason.value, "detail": refused.detail}
    return {**found, "format": header.format, "width": header.width, "height": header.height}


def read_header(data: bytes, max_pixels: int) -> Header:
    """Read an image's header.

    Args:
        data: The whole file.
        max_pixels: Largest width times height taken.

    Raises:
        ImageUnavailableError: Empty, not an image of a known format, or too large.
    """
    if not data:
        raise ImageUnavailableError(Reason.EMPTY, "0 bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            header = Header(image.format or "", image.width, image.height)
    except UnidentifiedImageError as error:
        raise ImageUnavailableError(Reason.NOT_AN_IMAGE, "no header of a known image format") from error
    except Exception as error:
        reason = Reason.TRUNCATED if "truncated" in str(error).lower() else Reason.DECODE_FAILED
        raise ImageUnavailableError(reason, f"{type(error).__name__}: {error}") from error
    if header.width * header.height > max_pixels:
        raise ImageUnavailableError(
            Reason.TOO_MANY_PIXELS, f"{header.width}x{header.height}, at most {max_pixels} pixels are taken"
        )
    return header
