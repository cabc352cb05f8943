"""The storage ceiling: how fast images are listed, read and hashed when nothing else is to be done.

Files that were read a moment ago come out of the page cache, as they do in `score` after `preprocess`. A
bucket, or an input larger than memory, has no such luck, and shows it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from imagebatch.contracts.ids import sha256_hex
from imagebatch.inputs.listing import InputListing
from imagebatch.inputs.source import ImageSource
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.measure.clock import Clock, Reading
from imagebatch.settings import SourceSettings


def storage_ceiling(
    settings: SourceSettings, source: ImageSource, uris: Sequence[str], readers: int, seconds: float
) -> Reading:
    """List the input (unless it is a manifest), then read and hash as `read_ceiling` does.

    Args:
        settings: The input.
        source: Reads it.
        uris: Images to read, at least one.
        readers: Threads that read at once.
        seconds: How long to read.
    """
    listing = Clock()
    each = 0.0
    if settings.input:
        found = iter(InputListing(settings.input, settings.include.split(","), source))
        listed = sum(1 for _ in itertools.islice(found, settings.limit or None))
        each = listing.seconds / max(1, listed)
    reading = read_ceiling(source, uris, readers, seconds)
    return Reading(1 / (each + 1 / reading.rate), reading.cpu)


def read_ceiling(source: ImageSource, uris: Sequence[str], readers: int, seconds: float) -> Reading:
    """Read and hash the images again and again, for that many seconds."""
    images = 0
    clock = Clock()
    with ThreadPoolExecutor(readers) as threads:
        while clock.seconds < seconds:
            images += sum(threads.map(lambda uri: _read(source, uri), uris))
    return clock.reading(max(1, images))


def _read(source: ImageSource, uri: str) -> int:
    try:
        sha256_hex(source.read(uri))
    except ImageUnavailableError:
        return 0
    return 1
