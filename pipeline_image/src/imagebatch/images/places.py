"""Where the images of a run are, for those that are looked at one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imagebatch.runs.folder import RunFolder
from imagebatch.runs.listing import open_listing


class Place(NamedTuple):
    """Where an image is: its URI, and its page where images are pages."""

    uri: str
    page: int | None


def places(run: RunFolder, wanted: Iterable[str]) -> Iterator[tuple[str, Place]]:
    """Yield the id and the place of each wanted image that was listed, in the order of the ids.

    Args:
        run: Planned.
        wanted: Ids.
    """
    missing = set(wanted)
    with open_listing(run) as listing:
        for manifest in listing.manifests():
            if not missing:
                return
            ids = manifest["image_id"].to_pylist()
            for at in [at for at, name in enumerate(ids) if name in missing]:
                missing.discard(ids[at])
                page = manifest["page"][at].as_py() if "page" in manifest.column_names else None
                yield ids[at], Place(manifest["uri"][at].as_py(), page)
