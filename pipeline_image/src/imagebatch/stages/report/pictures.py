"""Thumbnails for a page: few, small, decoded elsewhere, and only of what may be read."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any

from imagebatch.contracts.records import RunDescription
from imagebatch.images.decoders import Decoders
from imagebatch.images.sample import at_page
from imagebatch.inputs.source import image_source
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.listing import open_listing

Row = dict[str, Any]
Place = tuple[str, int | None]

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
    places = dict(_places(run, {row["image_id"] for row in rows}))
    source, view = image_source(description), description.model.seen

    def small(place: Place) -> bytes:
        uri, page = place
        try:
            return decoders.thumbnail(source.read(uri), at_page(view, page))
        except ImageUnavailableError:
            return b""

    pictures = dict(zip(places, decoders.map(small, places.values()), strict=True))
    spent = 0
    for row in rows:
        jpeg = base64.b64encode(pictures.get(row["image_id"], b"")).decode("ascii")
        spent += len(jpeg)
        row["picture"] = f"data:image/jpeg;base64,{jpeg}" if jpeg and spent <= MOST_BYTES else ""


def _places(run: RunFolder, wanted: set[str]) -> Iterator[tuple[str, Place]]:
    """Yield where each wanted image is: its URI, and its page where images are pages."""
    missing = set(wanted)
    with open_listing(run) as listing:
        for manifest in listing.manifests():
            if not missing:
                return
            ids = manifest["image_id"].to_pylist()
            for at in [at for at, name in enumerate(ids) if name in missing]:
                missing.discard(ids[at])
                page = manifest["page"][at].as_py() if "page" in manifest.column_names else None
                yield ids[at], (manifest["uri"][at].as_py(), page)
