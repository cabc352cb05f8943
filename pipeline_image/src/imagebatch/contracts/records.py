"""What a run is asked for and what its stages record: its JSON files, and the reasons for a failure.

Their public form is docs/reference/run-layout.md; tests pin it.
"""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, Literal, Self

from imagebatch_header import View
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, model_validator

PROTOCOL_VERSION = 1


class Reason(StrEnum):
    """Why an image has no prediction: the fixed list."""

    # refused by preprocess
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_PAGES = "too_many_pages"
    NOT_A_FILE = "not_a_file"
    NOT_FOUND = "not_found"
    UNREADABLE = "unreadable"
    OUTSIDE_ALLOWED_ROOTS = "outside_allowed_roots"
    # refused by the handler
    TRUNCATED = "truncated"
    DECODE_FAILED = "decode_failed"
    OUT_OF_RANGE = "out_of_range"
    # found while scoring
    CONTENT_CHANGED = "content_changed"
    REQUEST_TOO_LARGE = "request_too_large"
    QUARANTINED = "quarantined"


class LeftOut(StrEnum):
    """Why a file of the input is not among the listed images: the fixed list."""

    NO_IMAGE_SUFFIX = "no_image_suffix"  # its suffix is none that an image of a known format has
    NOT_INCLUDED = "not_included"  # an image's suffix, but not one of --include
    SIDE_FILE = "side_file"  # what file systems and programs keep beside the files of people
    HIDDEN = "hidden"  # its name, or that of a folder on the way, begins with a dot
    NOT_A_FILE = "not_a_file"  # a FIFO, a socket, a link to nothing, without an image's suffix
    BEYOND_LIMIT = "beyond_limit"  # an image, but not among the first --limit


# Files by reason and, within a reason, by suffix.
LeftOutCounts = dict[str, dict[str, int]]


class HeadKind(StrEnum):
    """What a model's numbers mean (docs/reference/heads.md)."""

    SOFTMAX = "softmax"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"


def _printable(text: str) -> str:
    if not text.isprintable():
        msg = "is not printable"
        raise ValueError(msg)
    return text


_Plain = Annotated[str, Field(max_length=60), AfterValidator(_printable)]


class Quantity(BaseModel):
    """What the score of a regression is.

    Attributes:
        name: Of what is measured.
        unit: Of the score; empty: it has none.
        lowest: Least score that can be; None: any.
        highest: Largest score that can be; None: any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[_Plain, Field(pattern=r"\S")]
    unit: _Plain = ""
    lowest: FiniteFloat | None = None
    highest: FiniteFloat | None = None

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            msg = "lowest must be below highest"
            raise ValueError(msg)
        return self


class HeadDeclaration(BaseModel):
    """What is declared of a model's head; a softmax needs nothing.

    Attributes:
        head: Its kind.
        thresholds: Of a multilabel head: the probability from which on each label is an image's, by class.
        quantity: Of a regression: what its score is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: HeadKind = Field(default=HeadKind.SOFTMAX, exclude_if=lambda kind: kind is HeadKind.SOFTMAX)
    thresholds: list[Annotated[float, Field(gt=0, le=1)]] = Field(default=[], exclude_if=operator.not_)
    quantity: Quantity | None = Field(default=None, exclude_if=lambda declared: declared is None)

    @model_validator(mode="after")
    def _of_one_head(self) -> Self:
        if (self.quantity is None) != (self.head is not HeadKind.REGRESSION):
            msg = "a regression, and nothing else, needs a quantity"
            raise ValueError(msg)
        if self.thresholds and self.head is not HeadKind.MULTILABEL:
            msg = "only a multilabel head has thresholds"
            raise ValueError(msg)
        return self


class ModelPin(HeadDeclaration):
    """The model that a run is made with; every answer must carry this digest.

    Attributes:
        name: Name on the model server.
        version: Version on the model server.
        digest: `sha256:` and 64 hex digits, over the files that the worker loaded.
        labels: Class names by class index.
        engine: What computes it, where the server says so. Not written to run.json: the digest holds it.
        embedding: Numbers in an image's embedding, where the server gives any. Not written either.
        pages: Whether it can be asked about a page of a file that it names. Not written either.
        view: What the model declares about files that can be seen in more than one way; left out where it
            declares nothing.
        review: Confidence below which the model itself wants a person to look (`--review-below auto`); left
            out where it declares none.
        head: What its numbers mean, with `thresholds` and `quantity`; left out for a softmax.
    """

    name: str
    version: str
    digest: str
    labels: list[str]
    engine: str = Field(default="", exclude=True)
    embedding: int = Field(default=0, exclude=True)
    pages: bool = Field(default=False, exclude=True)
    view: dict[str, str | int] = Field(default_factory=dict, exclude_if=lambda declared: not declared)
    review: float | None = Field(default=None, gt=0, le=1, exclude_if=lambda declared: declared is None)

    @model_validator(mode="after")
    def _labels_of_the_head(self) -> Self:
        if self.head is HeadKind.REGRESSION and self.labels:
            msg = "a regression has no labels"
            raise ValueError(msg)
        if self.head is HeadKind.MULTILABEL:
            if len(self.thresholds) != len(self.labels) or not self.labels:
                msg = f"{len(self.thresholds)} thresholds for {len(self.labels)} labels"
                raise ValueError(msg)
            if len(set(self.labels)) < len(self.labels):
                msg = "two labels of a multilabel head have one name"
                raise ValueError(msg)
        return self

    @property
    def declaration(self) -> HeadDeclaration:
        """What is declared of its head alone."""
        return HeadDeclaration(head=self.head, thresholds=self.thresholds, quantity=self.quantity)

    @property
    def seen(self) -> View:
        """How the model sees files that can be seen in more than one way."""
        return View(**self.view)  # type: ignore[arg-type]  # checked where the description was read


class Released(BaseModel):
    """What the model registry said when a run began.

    Attributes:
        reference: What was asked, as `models:/solar-cells@champion`.
        registry_version: The registry's number of the version, from 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    registry_version: str


class RunDescription(BaseModel):
    """run.json: what was asked. Written by the first attempt of preprocess.

    `left_out` is the one thing in it that was found, not asked: files of the input that are not listed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: int = PROTOCOL_VERSION
    run_id: str
    code_version: str
    input: str
    manifest: str
    query: str = ""
    uri_column: str = ""
    id_column: str = ""
    carry: str = ""
    list_encoding: str = ""
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
    # Left out where it is off, so that run.json stays what it was.
    class_index: bool = Field(default=False, exclude_if=operator.not_)
    pages: Literal["model", "all"] = Field(default="model", exclude_if=lambda pages: pages == "model")
    max_pages: int = Field(default=0, exclude_if=operator.not_)  # where pages are images of their own
    # The confidence below which predictions are marked for a person, `auto` resolved.
    review_below: float | None = Field(default=None, exclude_if=lambda threshold: threshold is None)
    model: ModelPin
    # Where the model was asked for by an alias of the registry; which version that was stands in `model`.
    released: Released | None = Field(default=None, exclude_if=lambda released: released is None)
    left_out: LeftOutCounts = {}

    @property
    def paged(self) -> bool:
        """Whether each page of a file is an image of its own."""
        return self.pages == "all"


class Plan(BaseModel):
    """manifest/_DONE.json: what preprocess found, in images and shards; written when it has finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listed: int
    accepted: int
    rejected: int
    shards: int
    left_out: LeftOutCounts = {}


class DonePart(BaseModel):
    """A file of scores that counts: its path in the run, SHA-256 (hex) and number of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    rows: int


class LeftOutRecord(BaseModel):
    """In the metadata of listing.parquet: the files of the input that are not listed.

    Attributes:
        counts: Files by reason and suffix.
        names: The file that names them, with its number of rows; None where nothing was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    counts: LeftOutCounts
    names: DonePart | None


class ShardDone(BaseModel):
    """scores/shard-…/_DONE.json: a finished shard's parts, in the order of their rows.

    `cached` of its predictions came out of the cache (--cache). `endpoints` tells how many images each of
    several endpoints has answered, where that is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt: int
    parts: list[DonePart]
    predicted: int
    failed: int
    cached: int = 0
    endpoints: dict[str, int] = Field(default={}, exclude_if=operator.not_)


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
