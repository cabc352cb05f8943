"""One manifest file per shard: images are read, hashed and their headers parsed on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from imagebatch_header import View

from imagebatch.contracts.layout import manifest_path, rejects_path
from imagebatch.contracts.rows import (
    LISTING_SCHEMA,
    MANIFEST_SCHEMA,
    REJECTS_SCHEMA,
    ListedRow,
    ManifestRow,
)
from imagebatch.inputs.header import inspect
from imagebatch.inputs.source import ImageSource
from imagebatch.runs.folder import RunFolder, parquet_bytes

Inspected = list[Future[list[ManifestRow]]]

# Rows per task: one at a time, starting tasks would cost as much as the work.
_ROWS = 32
_LOCAL = ("file://", "zip:file://", "tar:file://")
# Threads for storage that answers slowly: they wait, and take no core.
_REMOTE_READERS = 32


def write_manifests(
    run: RunFolder, listing: pq.ParquetFile, source: ImageSource, max_pixels: int, view: View
) -> Iterator[tuple[int, int]]:
    """Write every shard's manifest and rejects; manifests that are there already are kept.

    Args:
        run: The run's files.
        listing: Its listing; row group N is shard N.
        source: Reads the images.
        max_pixels: Largest width times height taken.
        view: How the model sees files that can be seen in more than one way.

    Yields:
        (images, rejected ones) of each shard, in order.
    """
    waiting: deque[tuple[int, Inspected | None]] = deque()
    with ThreadPoolExecutor(_readers(listing)) as readers:

        def inspected(rows: list[ListedRow]) -> list[ManifestRow]:
            return [inspect(row, source, max_pixels, view) for row in rows]

        def begin(shard: int) -> Inspected | None:
            if run.exists(manifest_path(shard)):
                return None
            rows = listing.read_row_group(shard, columns=LISTING_SCHEMA.names).to_pylist()
            return [readers.submit(inspected, rows[at : at + _ROWS]) for at in range(0, len(rows), _ROWS)]

        try:
            for shard in range(listing.num_row_groups):
                waiting.append((shard, begin(shard)))
                if len(waiting) > 1:  # the next shard is read while this one is written
                    yield _written(run, *waiting.popleft())
            while waiting:
                yield _written(run, *waiting.popleft())
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


def _readers(listing: pq.ParquetFile) -> int:
    first = listing.read_row_group(0, columns=["uri"])["uri"][0].as_py()
    return len(os.sched_getaffinity(0)) + 1 if first.startswith(_LOCAL) else _REMOTE_READERS


def _written(run: RunFolder, shard: int, inspected: Inspected | None) -> tuple[int, int]:
    if inspected is not None:
        rows = [row for task in inspected for row in task.result()]
        manifest = pa.Table.from_pylist(rows, MANIFEST_SCHEMA)
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
