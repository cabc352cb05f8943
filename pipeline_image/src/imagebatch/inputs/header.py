"""One image before scoring: its digest, and its header read without decoding a pixel."""

from __future__ import annotations

from imagebatch_header import Header, ImageError, View
from imagebatch_picture import PLAIN, probe
from PIL import Image

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.records import Reason
from imagebatch.contracts.rows import ListedRow, ManifestRow
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError

# The limit is ours (--max-image-pixels) and is applied below; Pillow's would warn on a fixed one.
Image.MAX_IMAGE_PIXELS = None


def inspect(row: ListedRow, source: ImageSource, max_pixels: int, view: View = PLAIN) -> ManifestRow:
    """Make an image's manifest row; a refused image's row has a reason.

    Args:
        row: The image as it was listed.
        source: Reads the image.
        max_pixels: Largest width times height taken.
        view: How the model sees files that can be seen in more than one way.
    """
    found = ManifestRow(image_id=row["image_id"], uri=row["uri"])
    try:
        data = source.read(row["uri"])
        found |= {"size": len(data), "sha256": sha256_hex(data)}
        header = read_header(data, max_pixels, view)
    except ImageUnavailableError as refused:
        return {**found, "reason": refused.reason.value, "detail": refused.detail}
    return {
        **found,
        "format": header.format,
        "width": header.width,
        "height": header.height,
        "frames": header.frames,
    }


def read_header(data: bytes, max_pixels: int, view: View = PLAIN) -> Header:
    """Read an image's header, as the model's own decoder will.

    Args:
        data: The whole file.
        max_pixels: Largest width times height taken.
        view: How the model sees files that can be seen in more than one way.

    Raises:
        ImageUnavailableError: Empty, not an image, of a layout that is not read, or too large.
    """
    try:
        return probe(data, view=view, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageUnavailableError(Reason(error.reason), error.detail) from error
