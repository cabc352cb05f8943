"""The storage ceiling: how fast images are listed, read and hashed when nothing else is to be done.

Files that were read a moment ago come out of the page cache, as they do in `score` after `preprocess`. A
bucket, or an input larger than memory, has no such luck, and shows it.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

from imagebatch.ceilings.clock import Clock, Reading
from imagebatch.contracts import sha256_hex
from imagebatch.settings import SourceSettings
from imagebatch.storage.inputs import ImageSource, InputListing
from imagebatch.storage.unavailable import ImageUnavailableError


def storage_ceiling(
    settings: SourceSettings, source: ImageSource, uris: list[str], readers: int, seconds: float
) -> Reading:
    """Lists the input (unless it is a manifest), then reads and hashes it again and again.

    Args:
        settings: The input.
        source: Reads it.
        uris: Images to read, at least one.
        readers: Threads that read at once.
        seconds: How long to read.
    """
    clock = Clock()
    if settings.input:
        wanted = settings.limit or None
        listing = iter(InputListing(settings.input, settings.include.split(","), source))
        listed = sum(1 for _ in itertools.islice(listing, wanted))
        per_image = clock.seconds / max(1, listed)
    else:
        per_image = 0.0
    begun = clock.seconds
    images = 0
    with ThreadPoolExecutor(readers) as threads:
        while clock.seconds - begun < seconds:
            images += sum(threads.map(lambda uri: _read(source, uri), uris))
    per_image += (clock.seconds - begun) / images
    return clock.reading(images, rate=1 / per_image)


def _read(source: ImageSource, uri: str) -> int:
    try:
        sha256_hex(source.read(uri))
    except ImageUnavailableError:
        return 0
    return 1
