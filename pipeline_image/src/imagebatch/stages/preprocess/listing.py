"""The listing: every image of the input, sorted by id, in memory that does not grow with their number.

Sorted ids make shards contiguous ranges, so that the last stage joins shard by shard and never sorts again.
"""

from __future__ import annotations

import heapq
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from imagebatch.errors import DataRefusedError

Entry = tuple[str, ...]  # image_id, uri, then the values that are carried into the result

# Each chunk is one open file while the chunks are merged: 10 million rows make 500.
CHUNK_ROWS = 20_000


def sorted_rows(rows: Iterable[Entry], chunk_rows: int = CHUNK_ROWS) -> Iterator[Entry]:
    """Sort rows by the bytes of their first value, the id, spilling to a temporary folder.

    Args:
        rows: In any order.
        chunk_rows: Rows held in memory at once.

    Raises:
        DataRefusedError: An id occurs twice.
    """
    source = iter(rows)
    with tempfile.TemporaryDirectory(prefix="imagebatch-listing-") as folder, ExitStack() as stack:
        chunks: list[Iterable[str]] = []
        while chunk := sorted(itertools.islice(source, chunk_rows)):
            if not chunks and len(chunk) < chunk_rows:
                yield from _unique(chunk)
                return
            path = Path(folder) / str(len(chunks))
            _spill(path, chunk)
            chunks.append(stack.enter_context(path.open(encoding="ascii")))
        yield from _unique(heapq.merge(*map(_read_back, chunks)))


def limited(rows: Iterator[Entry], limit: int) -> Iterator[Entry]:
    """Yield the first `limit` rows; all of them if it is 0."""
    return itertools.islice(rows, limit) if limit else rows


def shards_of(rows: Iterable[Entry], shard_size: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Cut sorted rows into shards: record batches of `listing_schema` with at most `shard_size` rows."""
    source = iter(rows)
    while shard := list(itertools.islice(source, shard_size)):
        columns = [pa.array(column, pa.string()) for column in zip(*shard, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _spill(path: Path, chunk: list[Entry]) -> None:
    # Lines of JSON: a file is read back through one small buffer, however many there are.
    with path.open("w", encoding="ascii") as sink:
        sink.writelines(json.dumps(row) + "\n" for row in chunk)


def _read_back(lines: Iterable[str]) -> Iterator[Entry]:
    for line in lines:
        yield tuple(json.loads(line))


def _unique(rows: Iterable[Entry]) -> Iterator[Entry]:
    previous = None
    for row in rows:
        if row[0] == previous:
            raise DataRefusedError(f"image_id {row[0]} occurs twice in the input; ids must be unique")
        previous = row[0]
        yield row
