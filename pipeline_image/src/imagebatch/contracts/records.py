"""What the stages hand to each other: identifiers, columns, file names, the run's description.

The public form of all this is docs/reference/run-layout.md; tests pin it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from enum import StrEnum
from urllib.parse import unquote_to_bytes

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = 1

RUN_JSON = "run.json"
LISTING = "listing.parquet"
PLAN = "manifest/_DONE.json"
PREDICTIONS_CSV = "output/predictions.csv"
PREDICTIONS_PARQUET = "output/predictions.parquet"
FAILURES_CSV = "output/failures.csv"
CERTIFICATE = "output/certificate.json"
REPORT = "output/report.html"
IMAGE_SAMPLE = "quality/images.parquet"
DRIFT = "quality/drift.json"
EMBEDDINGS = "quality/embeddings.parquet"
STAGES = "telemetry/stages"
SUCCESS = "_SUCCESS"

# Beside the runs, not a run's name: what stays of a run when it is pruned.
HISTORY = "_history"
HISTORY_PAGE = "history.html"
TRENDS = "_trends.json"  # no run's name either

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


class Reason(StrEnum):
    """Why an image has no prediction: the fixed list."""

    # refused by preprocess
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    NOT_A_FILE = "not_a_file"
    NOT_FOUND = "not_found"
    UNREADABLE = "unreadable"
    OUTSIDE_ALLOWED_ROOTS = "outside_allowed_roots"
    # refused by the handler
    TRUNCATED = "truncated"
    DECODE_FAILED = "decode_failed"
    # found while scoring
    CONTENT_CHANGED = "content_changed"
    REQUEST_TOO_LARGE = "request_too_large"
    QUARANTINED = "quarantined"


class ModelPin(BaseModel):
    """The model that a run is made with; every answer must carry this digest.

    Attributes:
        name: Name on the model server.
        version: Version on the model server.
        digest: `sha256:` and 64 hex digits, over the files that the worker loaded.
        labels: Class names by class index.
        engine: What computes it, where the server says so. Not written to run.json: the digest holds it.
        embedding: Numbers in an image's embedding, where the server gives any. Not written either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    digest: str
    labels: list[str]
    engine: str = Field(default="", exclude=True)
    embedding: int = Field(default=0, exclude=True)


class RunDescription(BaseModel):
    """run.json: what was asked. Written once, by the first attempt of preprocess."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: int = PROTOCOL_VERSION
    run_id: str
    code_version: str
    input: str
    manifest: str
    include: str
    allowed_roots: str
    limit: int
    shard_size: int
    backend: str
    top_k: int
    max_failures: str
    max_class_share: float
    max_image_bytes: int
    max_image_pixels: int
    model: ModelPin


class Plan(BaseModel):
    """manifest/_DONE.json: what preprocess found, in images and shards; written when it has finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listed: int
    accepted: int
    rejected: int
    shards: int


class DonePart(BaseModel):
    """A file of scores that counts: its path in the run, SHA-256 (hex) and number of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    rows: int


class ShardDone(BaseModel):
    """scores/shard-…/_DONE.json: a finished shard's parts, in the order of their rows.

    `cached` of its predictions came out of the cache (--cache).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt: int
    parts: list[DonePart]
    predicted: int
    failed: int
    cached: int = 0


class RedriveDone(BaseModel):
    """redrives/…/_DONE.json: a redrive whose rows count.

    Attributes:
        number: 1 for the first redrive of the run.
        previous_certificate: SHA-256 (hex) of the certificate that it replaced, kept beside this file.
        redriven: Images tried again.
        recovered: Those that have a prediction now.
        manifest: Their manifest rows.
        scores: Score rows of those that were not rejected again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    previous_certificate: str
    redriven: int
    recovered: int
    manifest: DonePart
    scores: DonePart


def manifest_path(shard: int) -> str:
    """Path of a shard's manifest inside the run."""
    return f"manifest/shard-{shard:05d}.parquet"


def rejects_path(shard: int) -> str:
    """Path of a shard's rejects inside the run."""
    return f"rejects/shard-{shard:05d}.parquet"


def scores_folder(shard: int) -> str:
    """Folder of a shard's score parts inside the run."""
    return f"scores/shard-{shard:05d}"


def done_path(shard: int) -> str:
    """Path of the file that says which of a shard's score parts count."""
    return f"{scores_folder(shard)}/_DONE.json"


def redrive_folder(number: int) -> str:
    """Folder of a redrive inside the run."""
    return f"redrives/{number:05d}"


def redrive_done_path(number: int) -> str:
    """Path of the file that makes a redrive count."""
    return f"{redrive_folder(number)}/_DONE.json"


def telemetry_path(shard: int, attempt: int) -> str:
    """Path of what an attempt at a shard counted."""
    return f"telemetry/score-shard-{shard:05d}-attempt-{attempt:05d}.json"


def quality_path(suite: str) -> str:
    """Path of a suite's JSON result inside the run."""
    return f"quality/{suite}.json"


def allowed_failures(allowance: str, total: int) -> int:
    """Failures tolerated among `total` images, from `"20"` (a count) or `"5%"` (a share, rounded down)."""
    if allowance.endswith("%"):
        return int(float(allowance[:-1]) / 100 * total)
    return int(allowance)


_FORMULA_START = frozenset("=+-@")
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cn"})
_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9 _./,;()\[\]+=@-]*")


def encode_id(name: bytes) -> str:
    """Turns a file's name into an image id that is safe in CSV, HTML, logs and paths, and can be turned back.

    `%`, bytes that are not valid UTF-8, control, format, separator and unassigned characters become `%XX`,
    and so does a first character that a spreadsheet would take for a formula.

    Args:
        name: The name's bytes, relative to the input, with `/` between folders.

    Returns:
        Text without control characters; `decode_id` gives `name` back.
    """
    text = name.decode("utf-8", "surrogateescape")
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        if char == "%"
        or "\udc80" <= char <= "\udcff"
        or unicodedata.category(char) in _UNSAFE_CATEGORIES
        or (index == 0 and char in _FORMULA_START)
        else char
        for index, char in enumerate(text)
    )


def decode_id(image_id: str) -> bytes:
    """Gives back the bytes that `encode_id` was given."""
    return unquote_to_bytes(image_id)


def sha256_hex(data: bytes | bytearray | memoryview) -> str:
    """SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
