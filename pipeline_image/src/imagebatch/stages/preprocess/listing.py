"""The listing: every image of the input, sorted by id, in memory that does not grow with their number.

Sorted ids make shards contiguous ranges, so that the last stage joins shard by shard and never sorts again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pyarrow as pa

from imagebatch.errors import DataRefusedError
from imagebatch.stages.preprocess.sorter import CHUNK_ROWS, Sorter

# image_id, uri, then the values that are carried into the result, and in a run over pages: page, pages
Entry = tuple[str, ...]


def sorted_rows(rows: Iterable[Entry], chunk_rows: int = CHUNK_ROWS) -> Iterator[Entry]:
    """Sort rows by the bytes of their first value, the id, in bounded memory.

    Args:
        rows: In any order.
        chunk_rows: Rows held in memory at once.

    Raises:
        DataRefusedError: An id occurs twice.
    """
    with Sorter(chunk_rows) as sorter:
        for row in rows:
            sorter.add(row)
        yield from _unique(sorter.sorted())


def limited(rows: Iterator[Entry], limit: int) -> Iterator[Entry]:
    """Yield the first `limit` rows; all of them if it is 0."""
    return itertools.islice(rows, limit) if limit else rows


def shards_of(rows: Iterable[Entry], shard_size: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Cut sorted rows into shards: record batches of `listing_schema` with at most `shard_size` rows."""
    source = iter(rows)
    while shard := list(itertools.islice(source, shard_size)):
        columns = [
            pa.array(column, pa.string()).cast(field.type)
            for column, field in zip(zip(*shard, strict=True), schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _unique(rows: Iterable[Entry]) -> Iterator[Entry]:
    previous = None
    for row in rows:
        if row[0] == previous:
            raise DataRefusedError(f"image_id {row[0]} occurs twice in the input; ids must be unique")
        previous = row[0]
        yield row
