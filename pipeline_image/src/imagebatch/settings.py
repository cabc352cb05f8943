"""Every setting of every command, declared once: a flag, or the `IMAGEBATCH_*` variable of the same name.

One class per command; what several commands share stands in a mixin. docs/reference/protocol.md lists the
same settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints, model_validator
from pydantic_settings import (
    BaseSettings,
    CliPositionalArg,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from typing_extensions import override

from imagebatch.settings_file import SettingsFile

DEFAULT_INCLUDE = "*.jpg,*.jpeg,*.png,*.webp,*.bmp,*.tif,*.tiff,*.gif"
MOST_PER_PACK = 1024
MOST_IN_FLIGHT = 256

RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
ModelVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$")]
Allowance = Annotated[str, StringConstraints(pattern=r"^(\d{1,9}|(100|\d{1,2})(\.\d+)?%)$")]


class CommonSettings(BaseSettings):
    """What every command takes."""

    model_config = SettingsConfigDict(
        env_prefix="IMAGEBATCH_",
        env_ignore_empty=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_exit_on_error=False,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Log events below this level are dropped."
    )
    settings_file: str = Field(
        default="",
        description="File of IMAGEBATCH_NAME=value lines, as tune writes it; flags and variables win.",
    )

    @override
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags stand before all of these."""
        return init_settings, env_settings, SettingsFile(settings_cls, CommonSettings)


class RunSettings(CommonSettings):
    """Which run."""

    run_id: RunId = Field(description="Name of the run: letters, digits, '.', '_' and '-', at most 128.")
    runs_uri: str = Field(
        "var/runs", min_length=1, description="Where runs are kept: a folder or any fsspec URI."
    )
    pipeline: ModelName = Field(
        "default", description="Name of the batch that this run is one of; metrics carry it."
    )
    metrics_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Pushgateway that metrics are pushed to; empty: none.",
    )
    metrics_interval: float = Field(15, gt=0, le=3600, description="Seconds between two pushes.")
    next_run: AwareDatetime | None = Field(
        None, description="When the next run of the pipeline is expected to begin; metrics carry it."
    )


class ApiSettings(CommonSettings):
    """Where the model server is, and how to be let in."""

    api_url: HttpUrl = Field("http://127.0.0.1:8080", description="Inference API of the model server.")
    management_url: HttpUrl = Field(
        "http://127.0.0.1:8081", description="Management API; also renews inference keys that have expired."
    )
    key_file: str = Field(
        "", description="TorchServe's key_file.json, read again whenever a key is refused; empty: no keys."
    )
    model_archive: str = Field(
        "",
        description="Backend local: the .mar file, run as code; {model} in it stands for the model's name.",
    )
    local_workers: int = Field(
        0, ge=0, le=1024, description="Backend local: worker processes of one thread each; 0: one per core."
    )
    request_timeout: float = Field(
        120, gt=0, le=3600, description="Seconds before a request is given up (and tried again)."
    )
    retry_seconds: float = Field(
        180, ge=0, le=86400, description="Seconds without any answer before the stage ends with code 69."
    )


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

    pack_size: int = Field(32, ge=1, le=MOST_PER_PACK, description="Most images per request.")
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


class SampleSettings(RunSettings):
    """How many images of a run are decoded to be looked at."""

    image_sample: int = Field(
        400,
        ge=0,
        le=1_000_000,
        description="Images to decode for checks and drift, chosen by the run id; 0: all.",
    )
    max_suspect_images: str = Field(
        "",
        pattern=r"^((\d{1,9}|(100|\d{1,2})(\.\d+)?%)?)$",
        description="Suite images: refuse a run with more suspect images in its sample; a count, a share, or"
        " empty: only warn.",
    )


class CheckSettings(SampleSettings):
    """Great Expectations on the manifest or the predictions, or a look at a sample of the images."""

    suite: Literal["manifest", "predictions", "images"] = Field(description="Which data to check.")


class ScoreSettings(RunSettings, WholeScoringSettings):
    """Ask the model API about every image of a shard."""

    shard: int = Field(-1, ge=-1, description="Number of the shard; -1: all, one after the other.")


class PostprocessSettings(RunSettings):
    """Write the CSV, the failures and the certificate."""


class ReportSettings(SampleSettings):
    """Write report.html and history.html, judge drift, keep the run's figures, log it to MLflow."""

    baseline: str = Field(
        "",
        description="File that imagebatch baseline wrote; {model} in it stands for the model's name, and then"
        " the file may be missing; empty: no drift is judged.",
    )
    drift_alpha: float = Field(
        0.01, gt=0, lt=1, description="Probability that a run without any drift is called drifting."
    )
    ceiling: float = Field(
        0, ge=0, description="Images per second that this machine can do (imagebatch bench), drawn; 0: none."
    )
    tracking_uri: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="MLflow server that runs are logged to; empty: none.",
    )
    experiment: str = Field(
        "batch-runs", min_length=1, description="MLflow experiment that runs are logged in."
    )


class BaselineSettings(SampleSettings):
    """Make a baseline for drift out of a finished run."""

    image_sample: int = Field(
        2000, ge=0, le=1_000_000, description="Images to decode, chosen by the run id; 0: all."
    )
    output: str = Field(min_length=1, description="File to write: a path or any fsspec URI.")
    labels: str = Field(
        "", description="CSV with columns image_id and label: the truth, to calibrate confidences with."
    )


class HistorySettings(CommonSettings):
    """List and compare runs, and write history.html."""

    runs_uri: str = Field(
        "var/runs", min_length=1, description="Where runs are kept: a folder or any fsspec URI."
    )
    last: int = Field(60, ge=1, le=10_000, description="Newest runs to take; trends: of each pipeline.")
    model: str = Field("", description="Only runs of this model; empty: all.")
    pipeline: str = Field("", description="Only runs of this pipeline; empty: all.")


class TrendsSettings(HistorySettings):
    """Find changes of level, slopes and weekly patterns in the runs' figures, and say them in sentences."""

    trend_alpha: float = Field(
        0.002, gt=0, lt=1, description="Probability that a history without any change is called changing."
    )


class VerifySettings(RunSettings):
    """Prove a finished run's certificate again."""


class RedriveSettings(ReportSettings, ScoringSettings):
    """Score only the images of a finished run that have no prediction, and merge them into it."""

    reasons: str = Field("", description="Comma-separated reasons to redrive; empty: all of failures.csv.")


class WholeRunSettings(InputSettings, WholeScoringSettings, ReportSettings):
    """All stages in one process, without an orchestrator."""

    report: bool = Field(default=True, description="End with a report, which never fails the run.")


class PruneSettings(CommonSettings):
    """Remove old runs, and what killed processes left in the others."""

    runs_uri: str = Field(
        "var/runs", min_length=1, description="Where runs are kept: a folder or any fsspec URI."
    )
    keep_days: float = Field(
        ge=0, le=36_500, description="Runs that were last written to longer ago are removed, in days."
    )
    unfinished: bool = Field(
        default=False, description="Remove old runs that never finished, too: they cannot be continued then."
    )
    dry_run: bool = Field(default=False, description="Only say what would be removed.")


class BenchSettings(MeasuringSettings):
    """Measure what this machine can do with this model, and how much of it a run gets."""

    seconds: int = Field(3, ge=1, le=600, description="Seconds per ceiling and round.")


class TuneSettings(MeasuringSettings):
    """Find the pack size, requests in flight and workers that suit this machine and model."""

    output: str = Field(
        "imagebatch.env", min_length=1, description="File to write, for --settings-file; replaced as a whole."
    )
    tune_workers: bool = Field(
        default=True,
        description="Try numbers of TorchServe workers, and leave the best set, where the server is on this"
        " machine and its management API answers.",
    )


class ModelsSettings(ApiSettings):
    """The model server's management API."""

    action: CliPositionalArg[Literal["list", "describe", "register", "unregister", "scale"]] = Field(
        description="What to do."
    )
    model: ModelName = Field("solar-cells", description="Name of the model.")
    model_version: ModelVersion = Field("", description="Version of the model; empty: the server's default.")
    archive: str = Field("", description="register: the archive's file name in the model store.")
    workers: int = Field(2, ge=0, le=1024, description="register, scale: worker processes.")


class DoctorSettings(CommonSettings):
    """Say what is missing on this machine."""

    ports: str = Field("", description="Comma-separated TCP ports of loopback that must be free.")
    java: str = Field("", description="Java executable that must start; empty: not checked.")
    min_free_gb: float = Field(1.0, ge=0, description="Free disk space wanted, in GB (10^9 bytes).")
    path: str = Field(".", description="Folder on the disk that is checked.")
