"""One manifest file per shard: images are read, hashed and their headers parsed on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagebatch.contracts.layout import manifest_path, rejects_path
from imagebatch.contracts.rows import (
    LISTING_SCHEMA,
    PAGE_FIELDS,
    REJECTS_SCHEMA,
    ListedRow,
    ManifestRow,
    manifest_schema,
)
from imagebatch.inputs.header import Inspection, inspect
from imagebatch.inputs.source import ImageSource, ReadOnce
from imagebatch.runs.folder import RunFolder, parquet_bytes
from imagebatch.stages.preprocess.pages import readers_for

Inspected = list[Future[list[ManifestRow]]]

# Rows per task: one at a time, starting tasks would cost as much as the work.
_ROWS = 32


def write_manifests(
    run: RunFolder, listing: pq.ParquetFile, source: ImageSource, asked: Inspection
) -> Iterator[tuple[int, int]]:
    """Write every shard's manifest and rejects; manifests that are there already are kept.

    Args:
        run: The run's files.
        listing: Its listing; row group N is shard N.
        source: Reads the images.
        asked: How images are looked at.

    Yields:
        (images, rejected ones) of each shard, in order.
    """
    waiting: deque[tuple[int, Inspected | None]] = deque()
    schema = manifest_schema(paged=asked.max_pages > 0)
    columns = LISTING_SCHEMA.names + [field.name for field in PAGE_FIELDS if asked.max_pages]
    first = listing.read_row_group(0, columns=["uri"])["uri"][0].as_py()
    with ThreadPoolExecutor(readers_for(first)) as readers:

        def inspected(rows: list[ListedRow]) -> list[ManifestRow]:
            read = ReadOnce(source)  # of a file's pages that follow each other
            return [inspect(row, read, asked) for row in rows]

        def begin(shard: int) -> Inspected | None:
            if run.exists(manifest_path(shard)):
                return None
            rows = listing.read_row_group(shard, columns=columns).to_pylist()
            return [readers.submit(inspected, rows[at : at + _ROWS]) for at in range(0, len(rows), _ROWS)]

        try:
            for shard in range(listing.num_row_groups):
                waiting.append((shard, begin(shard)))
                if len(waiting) > 1:  # the next shard is read while this one is written
                    yield _written(run, schema, *waiting.popleft())
            while waiting:
                yield _written(run, schema, *waiting.popleft())
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def _written(run: RunFolder, schema: pa.Schema, shard: int, inspected: Inspected | None) -> tuple[int, int]:
    if inspected is not None:
        rows = [row for task in inspected for row in task.result()]
        manifest = pa.Table.from_pylist(rows, schema)
    if inspected is None or not run.create_table(manifest_path(shard), manifest):
        manifest = run.read_table(manifest_path(shard))
    return manifest.num_rows, _write_rejects(run, shard, manifest)


def _write_rejects(run: RunFolder, shard: int, manifest: pa.Table) -> int:
    """Write the manifest's rejected rows to a file of their own, for people; return how many."""
    rejects = manifest.filter(pc.is_valid(manifest["reason"]))
    stage = pa.array(["preprocess"] * rejects.num_rows, pa.string())
    run.write(
        rejects_path(shard), parquet_bytes(rejects.append_column("stage", stage).select(REJECTS_SCHEMA.names))
    )
    return int(rejects.num_rows)
