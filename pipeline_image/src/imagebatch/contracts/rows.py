"""Columns of the tables that the stages hand to each other, and their rows as typed dictionaries."""

from __future__ import annotations

from typing import NotRequired, TypedDict

import pyarrow as pa

LISTING_SCHEMA = pa.schema([("image_id", pa.string()), ("uri", pa.string())])
_CARRIED = "carried:"  # before the name of a list's column, which may be `uri`, too

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
        ("frames", pa.int32()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
# Of a run that looks at every page (--pages all): the page of the file, from 1, and how many it had when it
# was listed; 0 where that could not be told.
PAGE_FIELDS = [pa.field("page", pa.int32()), pa.field("pages", pa.int32())]
PAGED_MANIFEST_SCHEMA = pa.schema([*MANIFEST_SCHEMA, *PAGE_FIELDS])
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
        # Indices of the labels' classes, only where two classes of the model have one name.
        ("classes", pa.list_(pa.int32())),
        # Of a regression only, which has no labels and no probabilities.
        ("score", pa.float32()),
    ]
)
EMBEDDINGS_SCHEMA = pa.schema([SCORES_SCHEMA.field(name) for name in ("image_id", "embedding")])


def listing_schema(carried: list[str], *, paged: bool = False) -> pa.Schema:
    """Return the columns of a listing.

    Args:
        carried: Columns of the list it was made from that it carries.
        paged: Whether each row is a page of a file.
    """
    pages = PAGE_FIELDS if paged else []
    return pa.schema([*LISTING_SCHEMA, *((f"{_CARRIED}{name}", pa.string()) for name in carried), *pages])


def manifest_schema(*, paged: bool) -> pa.Schema:
    """Return the columns of a manifest, whose rows are files, or pages of files."""
    return PAGED_MANIFEST_SCHEMA if paged else MANIFEST_SCHEMA


def asked_rows(accepted: pa.Table) -> pa.Table:
    """Return what the scorer reads of the manifest: its ASKED_COLUMNS, and the page where rows are pages."""
    page = [name for name in ("page",) if name in accepted.column_names]
    return accepted.select([*ASKED_COLUMNS, *page])


ASKED_COLUMNS = ["image_id", "uri", "size", "sha256", "width", "height"]


def carried_columns(listing: pa.Schema) -> dict[str, str]:
    """Return the list's columns that a listing carries: name in the listing by name in the list."""
    return {name.removeprefix(_CARRIED): name for name in listing.names if name.startswith(_CARRIED)}


class ListedRow(TypedDict):
    """A row of a listing: an image, by its id and where it lies; of a run over pages, which of how many."""

    image_id: str
    uri: str
    page: NotRequired[int]
    pages: NotRequired[int]


class ManifestRow(ListedRow):
    """A row of MANIFEST_SCHEMA; a missing key is a null. A refused image has a reason and no format."""

    size: NotRequired[int]
    sha256: NotRequired[str]
    format: NotRequired[str]
    width: NotRequired[int]
    height: NotRequired[int]
    frames: NotRequired[int]
    reason: NotRequired[str]
    detail: NotRequired[str]


class AskedRow(ListedRow):
    """An accepted image as the scorer is asked about it: ASKED_COLUMNS, and what is wanted of it.

    `embed`: its embedding is wanted too.
    """

    size: int
    sha256: str
    width: NotRequired[int]
    height: NotRequired[int]
    embed: NotRequired[bool]


class ScoreRow(TypedDict):
    """A row of SCORES_SCHEMA: an answer, or a reason.

    What an answer is, its model's head says (`imagebatch.heads`): labels with probabilities, or a score.
    `endpoint`, which of several has answered, is no column: a part's metadata count its images by it.
    """

    image_id: str
    sha256: str
    model_digest: str
    labels: list[str] | None
    probabilities: list[float] | None
    reason: str | None
    detail: str | None
    embedding: list[float] | None
    classes: list[int] | None
    score: float | None
    endpoint: NotRequired[str]
