"""Files in, their pages out: what `--pages all` lists.

Every file is read once more than otherwise, while it is listed: how many pages it has decides how many images
there are, and shards, samples and the certificate count those.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from imagebatch.contracts.ids import page_id, without_page
from imagebatch.inputs.header import pages_of
from imagebatch.inputs.source import ImageSource
from imagebatch.stages.preprocess.listing import Entry

_LOCAL = ("file://", "zip:file://", "tar:file://")
# Threads for storage that answers slowly: they wait, and take no core.
_REMOTE_READERS = 32


def readers_for(uri: str) -> int:
    """Return how many threads read files from where this one lies."""
    return len(os.sched_getaffinity(0)) + 1 if uri.startswith(_LOCAL) else _REMOTE_READERS


def pages_of_all(files: Iterable[Entry], source: ImageSource, most: int) -> Iterator[Entry]:
    """Yield a row for each page of each file, in the order of the files.

    A file with one page keeps its id. One with more pages than `most`, or whose pages cannot be counted, is
    one row, which the look at its header will refuse.

    Args:
        files: Rows (image_id, uri, …).
        source: Reads them.
        most: Pages of a file that are taken.

    Yields:
        (image_id, uri, …, page, pages): from 1; 0 pages where they cannot be counted.
    """
    waiting: deque[tuple[Entry, Future[int]]] = deque()
    rows = iter(files)
    first = next(rows, None)
    if first is None:
        return
    threads = readers_for(first[1])
    with ThreadPoolExecutor(threads) as readers:
        try:
            for row in itertools.chain([first], rows):
                waiting.append((row, readers.submit(pages_of, row[1], source)))
                if len(waiting) > 2 * threads:
                    yield from _pages(*waiting.popleft(), most)
            while waiting:
                yield from _pages(*waiting.popleft(), most)
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def _pages(row: Entry, counted: Future[int], most: int) -> Iterator[Entry]:
    image_id, *rest = row
    pages = counted.result()
    if pages in {0, 1} or pages > most:
        yield (without_page(image_id), *rest, "1", str(pages))
        return
    for page in range(1, pages + 1):
        yield (page_id(image_id, page), *rest, str(page), str(pages))
