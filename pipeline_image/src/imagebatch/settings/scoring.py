"""What to score, and how: the settings that shape a result or the speed at which it comes."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field, model_validator

from imagebatch.settings.base import (
    Allowance,
    ApiSettings,
    CommonSettings,
    ModelName,
    ModelVersion,
    RunSettings,
)

DEFAULT_INCLUDE = "*.jpg,*.jpeg,*.png,*.webp,*.bmp,*.tif,*.tiff,*.gif"
MOST_PER_PACK = 1024
MOST_IN_FLIGHT = 256


class SourceSettings(CommonSettings):
    """What to score, and with which model: all that shapes the result. Kept in run.json."""

    input: str = Field("", description="Folder, single image or fsspec URI to list.")
    manifest: str = Field("", description="CSV or Parquet file with a column uri and, optionally, image_id.")
    include: str = Field(
        DEFAULT_INCLUDE, min_length=1, description="Comma-separated name patterns to take from a folder."
    )
    shard_size: int = Field(512, ge=1, le=100_000, description="Images per shard.")
    limit: int = Field(0, ge=0, description="Take only the first N images by id; 0 takes all.")
    allowed_roots: str = Field(
        "", description="Comma-separated folders that images may come from; empty: the input itself."
    )
    backend: Literal["torchserve", "local"] = Field("torchserve", description="Kind of model API.")
    model: ModelName = Field("solar-cells", description="Name of the served model.")
    model_version: ModelVersion = Field("", description="Version of the model; empty: the server's default.")
    top_k: int = Field(4, ge=1, le=100, description="Labels per image, most probable first.")
    max_failures: Allowance = Field(
        "5%", description="Failures and rejects tolerated: a count (20) or a share (5%)."
    )
    max_class_share: float = Field(
        0.98, gt=0, le=1, description="Largest share of one class among 100 or more predictions."
    )
    max_image_bytes: int = Field(
        64 * 2**20, ge=1, le=2**31, description="Larger files are rejected, in bytes."
    )
    max_image_pixels: int = Field(
        100_000_000, ge=1, le=2**31, description="Larger images are rejected, width times height."
    )

    @model_validator(mode="after")
    def _one_source(self) -> SourceSettings:
        if bool(self.input) == bool(self.manifest):
            msg = "give one of --input and --manifest"
            raise ValueError(msg)
        return self


class InputSettings(RunSettings, SourceSettings):
    """A run, and what it is made from."""


class ScoringSettings(ApiSettings):
    """How hard to drive the model server; never changes the result."""

    pack_size: int = Field(128, ge=1, le=MOST_PER_PACK, description="Most images per request.")
    in_flight: int = Field(
        6,
        ge=1,
        le=MOST_IN_FLIGHT,
        description="Most requests under way at once; how many are found while scoring.",
    )

    max_consecutive_failures: int = Field(
        0, ge=0, description="Stop with 65 after more failures in a row; 0: any number."
    )
    golden: str = Field(
        "",
        description="File of golden images, asked about before the first row; {model} in it stands for the"
        " model's name, and then the file may be missing; empty: no probe.",
    )
    deadline: AwareDatetime | None = Field(
        None, description="When the run must be done, as 2026-01-31T06:00:00Z; progress says if it will be."
    )


class WholeScoringSettings(ScoringSettings):
    """Scoring from the first image to the last."""

    bench: bool = Field(
        default=False,
        description="After scoring, measure for some seconds what this machine could do: log and telemetry.",
    )
    embeddings: int = Field(
        400,
        ge=0,
        le=1_000_000,
        description="Images, chosen by the run id, whose embeddings the model API is asked for, for drift;"
        " 0: none.",
    )
    cache: str = Field(
        "", description="Folder of predictions kept from run to run; an unchanged image is not asked about."
    )


class MeasuringSettings(SourceSettings, ScoringSettings):
    """What a measurement is made with: a real input, a real model."""

    limit: int = Field(1024, ge=0, description="Take only the first N images by id; 0 takes all.")
    rounds: int = Field(
        3, ge=1, le=100, description="Times that each figure is measured, in turn; medians count."
    )


class PreprocessSettings(InputSettings, ApiSettings):
    """List the input, hash it, read image headers, plan shards, pin the model."""


class ScoreSettings(RunSettings, WholeScoringSettings):
    """Ask the model API about every image of a shard."""

    shard: int = Field(-1, ge=-1, description="Number of the shard; -1: all, one after the other.")
