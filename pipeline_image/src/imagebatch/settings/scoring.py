"""What to score, and how: the settings that shape a result or the speed at which it comes."""

from __future__ import annotations

from typing import ClassVar, Literal

from imagebatch_header import MOST_PIXELS
from pydantic import Field, model_validator

from imagebatch.settings.base import ApiSettings, CommonSettings, RunSettings
from imagebatch.settings.values import (
    Allowance,
    Backend,
    Bytes,
    Count,
    Encoding,
    ModelName,
    ModelReference,
    ModelVersion,
    Name,
    Names,
    Number,
    OptionalHttpUrl,
    OptionalTime,
    Path,
    Patterns,
    Pixels,
    ReviewBelow,
    Share,
    Sql,
    Uri,
    Uris,
)

IMAGES = "images"  # in --include: every suffix of the formats that are read
DEFAULT_INCLUDE = IMAGES
# Defaults of earlier versions: a run that was begun with one is continued.
EARLIER_INCLUDES = ("*.jpg,*.jpeg,*.png,*.webp,*.bmp,*.tif,*.tiff,*.gif",)
EARLIER_PIXELS = (100_000_000,)
MOST_PER_PACK = 1024
MOST_IN_FLIGHT = 256


class SourceSettings(CommonSettings):
    """What to score and with which model: all that shapes the result, kept in run.json."""

    one_of: ClassVar[tuple[str, ...]] = ("input", "manifest", "query")

    input: Uri = Field("", description="Folder, single image, archive (zip, tar) or fsspec URI to list.")
    manifest: Uri = Field(
        "",
        description="List of images: CSV, JSON lines, Parquet (a file or folder) or XLSX with a column uri"
        " and, optionally, image_id; or one name a line.",
    )
    query: Sql = Field(
        "",
        description="SQL that gives such a list, with whole paths or URIs, from the database that"
        " IMAGEBATCH_DATABASE_URL names; wants --allowed-roots, and imagebatch[sql].",
    )
    uri_column: Name = Field("", description="The list's column that names the images; empty: uri.")
    id_column: Name = Field("", description="The list's column of ids; empty: image_id, if there is one.")
    carry: Names = Field(
        "",
        description="Comma-separated further columns of the list to carry into the predictions as text; all:"
        " every one but names and ids; empty: none.",
    )
    list_encoding: Encoding = Field(
        "", description="Encoding of the list, as cp1252; empty: UTF-8, or what its first bytes say."
    )
    include: Patterns = Field(
        DEFAULT_INCLUDE,
        min_length=1,
        description="Comma-separated name patterns to take from a folder; images: the suffixes of all formats"
        " that are read; *: every file. Side files of systems and programs are never taken, hidden ones only"
        " if a pattern begins with a dot.",
    )
    shard_size: Count = Field(512, ge=1, le=100_000, description="Images per shard.")
    limit: Count = Field(0, ge=0, description="Take only the first N images by id; 0 takes all.")
    allowed_roots: Uris = Field(
        "",
        description="Comma-separated folders or URIs that images and a manifest may come from; empty: the"
        " input itself. Web servers are read only if one is listed here, as https://host/prefix.",
    )
    backend: Backend = Field(
        "torchserve",
        description="Kind of model API: torchserve; local, which needs no server but runs the archive's own"
        " handler in worker processes here; oip, kserve_v1, mlflow, http, transform"
        " (docs/reference/model-apis.md); or one that an installed package adds.",
    )
    model: ModelName = Field(
        "solar-cells",
        description="Name of the served model; the default is the demo's, which takes any photograph for"
        " a solar cell.",
    )
    model_version: ModelVersion = Field("", description="Version of the model; empty: the server's default.")
    top_k: Count = Field(4, ge=1, le=100, description="Labels per image, most probable first.")
    max_failures: Allowance = Field(
        "5%", description="Failures and rejects tolerated: a count (20) or a share (5%)."
    )
    max_class_share: Share = Field(
        0.98, gt=0, le=1, description="Largest share of one class among 100 or more predictions."
    )
    max_image_bytes: Bytes = Field(
        64 * 2**20, ge=1, le=2**31, description="Reject larger files; the default is 64 MiB."
    )
    max_image_pixels: Pixels = Field(
        MOST_PIXELS,
        ge=1,
        le=2**31,
        description="Reject larger images, width times height; the default is 8192 x 8192. The handler has a"
        " max_pixels of its own, too.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> SourceSettings:
        if [bool(self.input), bool(self.manifest), bool(self.query)].count(True) != 1:
            msg = "give one of --input and --manifest (or --query)"
            raise ValueError(msg)
        if self.query and not self.allowed_roots:
            msg = "--query wants --allowed-roots: a query has no folder of its own"
            raise ValueError(msg)
        of_lists = ("uri_column", "id_column", "carry", "list_encoding")
        if self.input and (given := [name for name in of_lists if getattr(self, name)]):
            msg = f"--{given[0].replace('_', '-')} is about a list: give one by --manifest or --query"
            raise ValueError(msg)
        return self


class InputSettings(RunSettings, SourceSettings):
    """A run, and what it is made from."""

    model: ModelReference = Field(
        "solar-cells",
        description="Name of the served model, or models:/NAME@ALIAS, whose version the registry at"
        " --tracking-uri says when the run begins; the default is the demo's, which takes any photograph for"
        " a solar cell.",
    )
    class_index: bool = Field(
        default=False,
        description="Write the numbers of the classes, too, as class_index_1 and so on, after the other"
        " columns of predictions.csv and .parquet: two classes of one name differ in them.",
    )
    review_below: ReviewBelow = Field(
        "",
        description="Add a column review to the predictions, true where the model is less sure than this: by"
        " the largest probability, of several labels by the least distance to a threshold; auto: as the model"
        " declares; empty: no such column.",
    )
    pages: Literal["model", "all"] = Field(
        "model",
        description="Of a file with several pages or frames: model, the one that the model declares; all,"
        " each as an image of its own, scan.tif#page=3.",
    )
    max_pages: Count = Field(
        1000,
        ge=1,
        le=10_000,
        description="With --pages all: reject files with more pages or frames.",
    )
    allow_empty: bool = Field(
        default=False,
        description="An input without any image is nothing to do (code 99), not an error (code 65).",
    )
    nothing_to_do_code: Literal["99", "0"] = Field(
        "99",
        description="Exit code where there is nothing to do; 0 is for orchestrators to which every other code"
        " is a failure: they branch on the number of shards, 0 (--result-files).",
    )


class ScoringSettings(ApiSettings):
    """How hard to drive the model API, and when to stop; never changes the result."""

    pack_size: Count = Field(
        128,
        ge=1,
        le=MOST_PER_PACK,
        description="Most images per request. More than 256 have no effect, for packs are cut within parts,"
        " and a request takes no more than 16 MiB of files or 400 million pixels unless it is one file.",
    )
    in_flight: Count = Field(
        6,
        ge=1,
        le=MOST_IN_FLIGHT,
        description="Most requests under way at once; how many suit the server is found while scoring.",
    )
    max_consecutive_failures: Count = Field(
        0, ge=0, description="Stop with code 65 after more failures in a row; 0: any number."
    )
    golden: Uri = Field(
        "",
        description="File of golden images, asked about before the first row; {model} in it stands for the"
        " model's name, and then the file may be missing; empty: no probe.",
    )
    deadline: OptionalTime = Field(
        None,
        description="When the run must be done, as 2026-01-31T06:00:00Z; progress shows the time to spare.",
    )


class WholeScoringSettings(ScoringSettings):
    """What scoring keeps and measures beside the predictions."""

    bench: bool = Field(
        default=False,
        description="After scoring, measure for some seconds what this machine could do: a line in the log, a"
        " file in telemetry/.",
    )
    embeddings: Count = Field(
        400,
        ge=0,
        le=1_000_000,
        description="Images, chosen by the run id, whose embeddings the model API is asked for, for drift;"
        " 0: none.",
    )
    cache: Path = Field(
        "",
        description="Folder on a local disk: predictions kept from run to run, found by the image's SHA-256,"
        " the model's digest and --top-k; an unchanged image is not asked about. Empty: none are kept.",
    )


class MeasuringSettings(SourceSettings, ScoringSettings):
    """How often a measurement is repeated."""

    limit: Count = Field(1024, ge=0, description="Take only the first N images by id; 0 takes all.")
    rounds: Count = Field(
        3, ge=1, le=100, description="Times that each figure is measured, in turn; medians count."
    )


class PreprocessSettings(InputSettings, ApiSettings):
    """List the input, hash it, read image headers, plan shards, pin the model."""

    tracking_uri: OptionalHttpUrl = Field(
        "",
        description="MLflow server whose registry says which version models:/NAME@ALIAS is; empty: none, and"
        " @champion is the server's default.",
    )


class ScoreSettings(RunSettings, WholeScoringSettings):
    """Ask the model API about every image of a shard."""

    shard: Number = Field(-1, ge=-1, description="Number of the shard; -1: all, one after the other.")
