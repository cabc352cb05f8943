"""One image before scoring: its digest, and its header read without decoding a pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from imagebatch_header import Header, ImageError, View
from imagebatch_picture import PLAIN, count_pages, probe
from PIL import Image

from imagebatch.contracts.records import Reason, RunDescription
from imagebatch.contracts.rows import ListedRow, ManifestRow
from imagebatch.inputs.source import ImageSource, ReadOnce
from imagebatch.inputs.unavailable import ImageUnavailableError

# The limit is ours (--max-image-pixels) and is applied below; Pillow's would warn on a fixed one.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """How images are looked at before scoring.

    Attributes:
        max_pixels: Largest width times height taken.
        view: How the model sees files that can be seen in more than one way.
        max_pages: Most pages of a file where each is an image of its own; 0 where files are images.
    """

    max_pixels: int
    view: View = PLAIN
    max_pages: int = 0

    @classmethod
    def of(cls, description: RunDescription) -> Self:
        """Return what a run asks for."""
        return cls(
            max_pixels=description.max_image_pixels,
            view=description.model.seen,
            max_pages=description.max_pages if description.paged else 0,
        )


def inspect(row: ListedRow, read: ReadOnce, asked: Inspection) -> ManifestRow:
    """Make an image's manifest row; a refused image's row has a reason.

    Args:
        row: The image as it was listed.
        read: Reads the image.
        asked: How it is looked at.
    """
    found = ManifestRow(image_id=row["image_id"], uri=row["uri"])
    view = asked.view
    if asked.max_pages:
        found |= {"page": row["page"], "pages": row["pages"]}
        view = replace(view, page=row["page"])
    try:
        data, digest = read(row["uri"])
        found |= {"size": len(data), "sha256": digest}
        if asked.max_pages:
            _require_pages(data, row["pages"], asked.max_pages)
        header = read_header(data, asked.max_pixels, view)
    except ImageUnavailableError as refused:
        return {**found, "reason": refused.reason.value, "detail": refused.detail}
    return {
        **found,
        "format": header.format,
        "width": header.width,
        "height": header.height,
        "frames": header.frames,
    }


def pages_of(uri: str, source: ImageSource) -> int:
    """Count an image file's pages; 0 where that cannot be told, and looking at it says why."""
    try:
        return count_pages(source.read(uri))
    except (ImageUnavailableError, ImageError):
        return 0


def _require_pages(data: bytes, listed: int, most: int) -> None:
    """Refuse a file with too many pages, or with others than it had when it was listed: one would be lost."""
    try:
        pages = count_pages(data)
    except ImageError as error:
        raise ImageUnavailableError(Reason(error.reason), error.detail) from error
    if pages > most:
        raise ImageUnavailableError(
            Reason.TOO_MANY_PAGES, f"{pages} pages or frames, at most {most} are taken; see --max-pages"
        )
    if pages != max(1, listed):
        raise ImageUnavailableError(
            Reason.CONTENT_CHANGED,
            f"{pages} pages or frames, and {max(1, listed)} when it was listed: begin another run",
        )


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
        if error.reason == "too_many_pixels":
            detail = f"{error.detail}; see --max-image-pixels"
            raise ImageUnavailableError(Reason.TOO_MANY_PIXELS, detail) from error
        raise ImageUnavailableError(Reason(error.reason), error.detail) from error
