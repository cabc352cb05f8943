"""Columns of the tables that the stages hand to each other."""

from __future__ import annotations

import pyarrow as pa

LISTING_SCHEMA = pa.schema([("image_id", pa.string()), ("uri", pa.string())])

# The manifest holds every listed image; a rejected one carries its reason, so that one file, written once,
# accounts for each id of its shard.
MANIFEST_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
# What the scorer reads of the manifest.
ASKED_COLUMNS = ["image_id", "uri", "size", "sha256"]
REJECTS_SCHEMA = pa.schema([(name, pa.string()) for name in ("image_id", "uri", "stage", "reason", "detail")])
SCORES_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("sha256", pa.string()),
        ("model_digest", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float32())),
        ("reason", pa.string()),
        ("detail", pa.string()),
        # Of the images of the drift sample only, and only where the model API gives any.
        ("embedding", pa.list_(pa.float32())),
    ]
)
EMBEDDINGS_SCHEMA = pa.schema([SCORES_SCHEMA.field(name) for name in ("image_id", "embedding")])
