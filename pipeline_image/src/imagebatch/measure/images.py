"""The images that ceilings are measured with: spread evenly over the input, held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from imagebatch_formats import format_of
from imagebatch_header import ImageError

from imagebatch.errors import NothingToDoError
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.model_apis.base import ImagePayload

MOST_IMAGES = 256
MOST_BYTES = 256 * 2**20
_NEARLY_ALL = 0.9


def read_sample(uris: Sequence[str], source: ImageSource, most: int = MOST_IMAGES) -> list[ImagePayload]:
    """Read up to `most` images, or `MOST_BYTES` of them; those that cannot be read are passed over.

    Raises:
        NothingToDoError: None can be read.
    """
    step = max(1, len(uris) // most)
    found: list[ImagePayload] = []
    size = 0
    for position, uri in enumerate(uris[::step][:most]):
        try:
            data = source.read(uri)
        except ImageUnavailableError:
            continue
        size += len(data)
        found.append(ImagePayload(f"{position}-sample", data))
        if size > MOST_BYTES:
            break
    if not found:
        raise NothingToDoError("no image of the input can be read, so nothing can be measured")
    return found


def coded_as(images: Sequence[ImagePayload]) -> str:
    """Return the format of nearly all images, such as `JPEG`; empty where there is none."""
    found = Counter(_format(image.data) for image in images)
    name, count = found.most_common(1)[0]
    return name if count >= _NEARLY_ALL * len(images) else ""


def _format(data: bytes) -> str:
    try:
        return format_of(data)
    except ImageError:
        return ""
