"""A bounded random sample of a run's images, the same for the same run id, with what can be seen of each.

Made once per run and kept as `quality/images.parquet`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa
from imagebatch_header import View

from imagebatch.contracts.layout import IMAGE_SAMPLE
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import NotProvenError
from imagebatch.images.decoders import Decoders
from imagebatch.inputs.source import ImageSource, image_source
from imagebatch.inputs.unavailable import ImageUnavailableError
from imagebatch.log import get_logger
from imagebatch.runs.folder import RunFolder, parquet_bytes
from imagebatch.runs.listing import Listing, open_listing
from imagebatch.runs.parts import parquet_table
from imagebatch.runs.sampling import sampled_positions

log = get_logger()

Row = dict[str, Any]

STATISTICS = ("brightness", "contrast", "sharpness", "saturation")
PAGE = pa.field("page", pa.int32())  # of a run that looks at every page
_MANIFEST_COLUMNS = ("image_id", "uri", "sha256", "format", "width", "height", "size")
SAMPLE_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "uri", "sha256", "format")),
        *((name, pa.int64()) for name in ("width", "height", "size")),
        ("mode", pa.string()),
        *((name, pa.float32()) for name in STATISTICS),
        ("layout", pa.list_(pa.float32())),
        ("hash", pa.string()),
        ("decode_ms", pa.float32()),
        ("problem", pa.string()),
        ("low_depth", pa.string()),
        ("reduced", pa.bool_()),
    ]
)


def image_sample(run: RunFolder, description: RunDescription, images: int, decoders: Decoders) -> pa.Table:
    """Return the run's sample, read from its file or made now.

    Args:
        run: Planned.
        description: Its run.json.
        images: How many to decode; 0: all. A sample that is there already is taken as it is if it was
            asked for with the same number.
        decoders: What looks at them.

    Returns:
        SAMPLE_SCHEMA, and `page` where rows are pages; sorted by image_id; rejected images are never in it.

    Raises:
        ConfigurationError: The run is not planned.
        StorageError: The inputs' storage failed.
    """
    asked = str(images).encode()
    try:
        found = parquet_table(run.read(IMAGE_SAMPLE), IMAGE_SAMPLE)
        if (found.schema.metadata or {}).get(b"asked") == asked:
            return found
    except (FileNotFoundError, NotProvenError):
        pass
    table = measured_sample(run, description, images, decoders).replace_schema_metadata({"asked": asked})
    run.write(IMAGE_SAMPLE, parquet_bytes(table))
    return table


def measured_sample(run: RunFolder, description: RunDescription, images: int, decoders: Decoders) -> pa.Table:
    """Make the sample as `image_sample` does, but neither read nor write its file."""
    rows = chosen_rows(run, description.run_id, images)
    source, view = image_source(description), description.model.seen
    looked_at = list(decoders.map(lambda row: row | _look(row, source, decoders, view), rows))
    log.info("images looked at", images=len(rows))
    schema = SAMPLE_SCHEMA.append(PAGE) if description.paged else SAMPLE_SCHEMA
    return pa.Table.from_pylist(looked_at, schema)


def chosen_rows(run: RunFolder, seed: str, images: int) -> list[Row]:
    """Draw manifest rows of accepted images without replacement; all of them if `images` is 0."""
    with open_listing(run) as listing:
        wanted = sampled_positions(seed, listing.images, images)
        return [row for row in _rows_at(listing, wanted) if row.pop("reason") is None]


def _rows_at(listing: Listing, positions: Iterable[int]) -> Iterable[Row]:
    """Yield the rows at these positions of the whole listing, in rising order.

    Only shards that hold one of them are read.
    """
    waiting = list(positions)
    start = at = 0
    for shard in range(listing.shards):
        end = start + listing.images_in([shard])
        inside = at
        while inside < len(waiting) and waiting[inside] < end:
            inside += 1
        if inside > at:
            manifest = listing.manifest(shard)
            page = [PAGE.name] if PAGE.name in manifest.column_names else []
            table = manifest.select([*_MANIFEST_COLUMNS, "reason", *page])
            yield from table.take([position - start for position in waiting[at:inside]]).to_pylist()
        start, at = end, inside


def at_page(view: View, page: int | None) -> View:
    """Return how the model sees a page; the one that it declares where none is given."""
    return replace(view, page=page) if page else view


def _look(row: Row, source: ImageSource, decoders: Decoders, view: View) -> Row:
    try:
        return decoders.measure(source.read(row["uri"]), at_page(view, row.get("page")))
    except ImageUnavailableError as gone:
        return {"problem": f"{gone.reason}: {gone.detail}"}
