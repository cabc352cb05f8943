"""The product: a ledger's rows as the columns and lines that a user reads (docs/reference/run-layout.md)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from imagebatch.contracts.records import RunDescription
from imagebatch.runs.ledger import ShardLedger

FAILURE_COLUMNS = ("image_id", "uri", "stage", "reason", "detail")

# Probabilities in text have six decimals: float32 carries about seven digits.
_DECIMALS = 6
_FIXED = pa.decimal128(_DECIMALS + 2, _DECIMALS)


def prediction_schema(top_k: int, *, class_index: bool = False) -> pa.Schema:
    """Return names and types of the columns of predictions, in order."""
    ranks = range(1, top_k + 1)
    columns = [(name, pa.string()) for name in ("image_id", "sha256")]
    columns += [(f"label_{k}", pa.string()) for k in ranks]
    columns += [(f"probability_{k}", pa.float32()) for k in ranks]
    columns += [(name, pa.string()) for name in ("model", "model_version", "model_digest")]
    columns += [(f"class_index_{k}", pa.int32()) for k in ranks if class_index]
    return pa.schema(columns)


def predictions(ledger: ShardLedger, description: RunDescription) -> pa.Table:
    """Return a shard's predicted images (`prediction_schema`): probabilities in [0, 1], classes from 0."""
    rows, model, ranks = ledger.predicted, description.model, range(description.top_k)
    size = rows.num_rows
    columns = [
        rows["image_id"],
        rows["sha256"],
        *(ranked(rows["labels"], rank) for rank in ranks),
        *(ranked(rows["probabilities"], rank) for rank in ranks),
        *(pa.array([value] * size, pa.string()) for value in (model.name, model.version, model.digest)),
    ]
    if description.class_index:
        columns += [_class_indices(rows, rank, model.labels) for rank in ranks]
    schema = prediction_schema(description.top_k, class_index=description.class_index)
    return pa.table(columns, schema=schema)


def _class_indices(rows: pa.Table, rank: int, labels: list[str]) -> pa.ChunkedArray:
    """Return the class of each image at this rank: as the model told it, or as its name tells."""
    if len(set(labels)) < len(labels):
        return ranked(rows["classes"], rank)
    return pc.index_in(ranked(rows["labels"], rank), value_set=pa.array(labels, pa.string()))


def failures(ledger: ShardLedger) -> pa.Table:
    """Return a shard's images without a prediction: FAILURE_COLUMNS, sorted by id."""
    uris = dict(zip(ledger.manifest["image_id"].to_pylist(), ledger.manifest["uri"].to_pylist(), strict=True))
    rows = [
        {"image_id": row["image_id"], "uri": uris[row["image_id"]], "stage": stage}
        | {"reason": row["reason"], "detail": row["detail"]}
        for stage, table in (("preprocess", ledger.rejected), ("score", ledger.failed))
        for row in table.select(["image_id", "reason", "detail"]).to_pylist()
    ]
    schema = pa.schema([(name, pa.string()) for name in FAILURE_COLUMNS])
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["image_id"])), schema)


def csv_header(columns: Sequence[str]) -> bytes:
    """Return the header line of RFC 4180."""
    return (",".join(columns) + "\r\n").encode()


def csv_lines(table: pa.Table) -> bytes:
    """Return a table's rows as lines of RFC 4180: CRLF, quotes where needed, UTF-8, six decimals."""
    if not table.num_rows:
        return b""
    columns = [_text(column.combine_chunks()) for column in table.columns]
    lines = pc.binary_join_element_wise(*columns, ",").to_pylist()
    return ("\r\n".join(lines) + "\r\n").encode()


def ranked(lists: pa.ChunkedArray, rank: int) -> pa.ChunkedArray:
    """Return element `rank` (from 0) of each list; null where a list is null or shorter."""
    # Flattening drops null lists, so they are made empty first: every row must keep its place.
    whole = pc.coalesce(lists, pa.scalar([], lists.type))
    return pc.list_flatten(pc.list_slice(whole, rank, rank + 1, return_fixed_size_list=True))


def _text(column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        rounded = pc.round(column.cast(pa.float64()), _DECIMALS, round_mode="half_to_even")
        return pc.fill_null(rounded.cast(_FIXED).cast(pa.string()), "")
    text = pc.fill_null(column.cast(pa.string()), "")
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(text, '[",\\r\\n]'), quoted, text)
