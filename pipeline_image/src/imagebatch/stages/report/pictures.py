"""Thumbnails for a page: few, small, decoded elsewhere, and only of what may be read."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from imagebatch.contracts.records import RunDescription
from imagebatch.images.decoders import Decoders
from imagebatch.images.places import Place, places
from imagebatch.images.sample import at_page
from imagebatch.inputs.source import image_source
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.runs.folder import RunFolder

Row = dict[str, Any]

# All thumbnails of a page together, in bytes of base64.
MOST_BYTES = 900_000


def with_thumbnails(
    run: RunFolder, description: RunDescription, groups: Iterable[list[Row]], decoders: Decoders
) -> None:
    """Add `picture`, a data URI or empty, to rows that carry an `image_id`.

    Args:
        run: Planned.
        description: Its run.json.
        groups: Rows, changed in place; the same image in two groups is decoded once.
        decoders: What makes them.
    """
    rows = [row for group in groups for row in group]
    found = dict(places(run, {row["image_id"] for row in rows}))
    source, view = image_source(description), description.model.seen

    def small(place: Place) -> bytes:
        try:
            return decoders.thumbnail(source.read(place.uri), at_page(view, place.page))
        except ImageUnavailableError:
            return b""

    pictures = dict(zip(found, decoders.map(small, found.values()), strict=True))
    spent = 0
    for row in rows:
        jpeg = base64.b64encode(pictures.get(row["image_id"], b"")).decode("ascii")
        spent += len(jpeg)
        row["picture"] = f"data:image/jpeg;base64,{jpeg}" if jpeg and spent <= MOST_BYTES else ""
