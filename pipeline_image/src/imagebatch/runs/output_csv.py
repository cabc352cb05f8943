"""The product: a ledger's rows as the columns and lines that a user reads (docs/reference/run-layout.md)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from imagebatch.contracts.addresses import without_permission
from imagebatch.contracts.ids import encode_cell
from imagebatch.contracts.records import RunDescription
from imagebatch.heads import head_of
from imagebatch.heads.multilabel import label_text
from imagebatch.heads.regression import SCORE, score_text
from imagebatch.runs.ledger import ShardLedger

REVIEW = "review"

FAILURE_COLUMNS = ("image_id", "uri", "stage", "reason", "detail")

# Probabilities in text have six decimals: float32 carries about seven digits.
_DECIMALS = 6
_FIXED = pa.decimal128(_DECIMALS + 2, _DECIMALS)


_OWN = re.compile(
    r"image_id|sha256|(label|probability|class|class_index|index)_\d+|model|model_(version|digest)"
)


def prediction_schema(description: RunDescription, carried: Sequence[str] = ()) -> pa.Schema:
    """Return names and types of the columns of predictions in order, those of the list at the end."""
    head = head_of(description.model, description.top_k)
    columns = [pa.field(name, pa.string()) for name in ("image_id", "sha256")]
    columns += head.fields()
    columns += [pa.field(name, pa.string()) for name in ("model", "model_version", "model_digest")]
    columns += head.class_fields() if description.class_index else []
    columns += [] if description.review_below is None else [pa.field(REVIEW, pa.bool_())]
    columns += [pa.field(name, pa.string()) for name in carried]
    return pa.schema(columns)


def is_own_column(name: str) -> bool:
    """Tell whether a name, in small letters, is one of ours for any number of labels."""
    return _OWN.fullmatch(name) is not None


def predictions(ledger: ShardLedger, description: RunDescription) -> pa.Table:
    """Return a shard's predicted images (`prediction_schema`), with what the model's head answers.

    What the list's columns hold comes last, as it stands in the list.
    """
    rows, model = ledger.predicted, description.model
    head = head_of(model, description.top_k)
    columns = [
        rows["image_id"],
        rows["sha256"],
        *head.values(rows),
        *(
            pa.array([said] * rows.num_rows, pa.string())
            for said in (model.name, model.version, model.digest)
        ),
        *(head.class_values(rows) if description.class_index else []),
    ]
    if description.review_below is not None:
        columns.append(head.doubtful(rows, description.review_below))
    carried = _carried(ledger)
    schema = prediction_schema(description, carried.column_names)
    return pa.table([*columns, *carried.columns], schema=schema)


def _carried(ledger: ShardLedger) -> pa.Table:
    """Return what the list says about the predicted images."""
    if not ledger.carried.num_columns:
        return ledger.carried
    predicted = pc.is_in(ledger.manifest["image_id"], ledger.predicted["image_id"].combine_chunks())
    return ledger.carried.filter(predicted)


def failures(ledger: ShardLedger) -> pa.Table:
    """Return a shard's images without a prediction: FAILURE_COLUMNS, sorted by id, addresses unsigned."""
    uris = dict(zip(ledger.manifest["image_id"].to_pylist(), ledger.manifest["uri"].to_pylist(), strict=True))
    rows = [
        {"image_id": row["image_id"], "uri": without_permission(uris[row["image_id"]]), "stage": stage}
        | {"reason": row["reason"], "detail": row["detail"]}
        for stage, table in (("preprocess", ledger.rejected), ("score", ledger.failed))
        for row in table.select(["image_id", "reason", "detail"]).to_pylist()
    ]
    schema = pa.schema([(name, pa.string()) for name in FAILURE_COLUMNS])
    return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["image_id"])), schema)


def csv_header(columns: Sequence[str]) -> bytes:
    """Return the header line of RFC 4180."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow([encode_cell(name) for name in columns])
    return line.getvalue().encode()


def csv_lines(table: pa.Table, carried: int = 0) -> bytes:
    """Return a table's rows as lines of RFC 4180: CRLF, quotes where needed, UTF-8.

    Args:
        table: Columns of text, lists of labels, probabilities (six decimals), scores (as they are) and
            whether a person should look (`true`, `false`).
        carried: How many columns at its end hold what others have written: they are made harmless.
    """
    if not table.num_rows:
        return b""
    columns = [column.combine_chunks() for column in table.columns]
    for at in range(len(columns) - carried, len(columns)):
        columns[at] = pa.array([encode_cell(text or "") for text in columns[at].to_pylist()], pa.string())
    columns = [_text(name, column) for name, column in zip(table.column_names, columns, strict=True)]
    lines = pc.binary_join_element_wise(*columns, ",").to_pylist()
    return ("\r\n".join(lines) + "\r\n").encode()


def _text(name: str, column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        if name == SCORE:
            return score_text(column)
        rounded = pc.round(column.cast(pa.float64()), _DECIMALS, round_mode="half_to_even")
        return pc.fill_null(rounded.cast(_FIXED).cast(pa.string()), "")
    if pa.types.is_list(column.type):
        column = pa.array(map(label_text, column.to_pylist()), pa.string())
    text = pc.fill_null(column.cast(pa.string()), "")
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring_regex(text, '[",\\r\\n]'), quoted, text)
