"""The commands around and after scoring, and those about the installation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from imagebatch.settings.base import ApiSettings, CommonSettings, RunSettings
from imagebatch.settings.reporting import ReportingSettings
from imagebatch.settings.scoring import (
    MOST_IN_FLIGHT,
    InputSettings,
    MeasuringSettings,
    ScoringSettings,
    WholeScoringSettings,
)
from imagebatch.settings.values import (
    Backend,
    Bytes,
    Count,
    Days,
    Gigabytes,
    Line,
    ModelName,
    ModelVersion,
    Name,
    Names,
    OptionalHttpUrl,
    OptionalRunId,
    Path,
    Ports,
    RunsUri,
    Uri,
    WholeSeconds,
)


class PostprocessSettings(RunSettings):
    """Write the CSV, the failures and the certificate."""


class VerifySettings(RunSettings):
    """Prove a finished run's certificate again."""


class RedriveSettings(ReportingSettings, ScoringSettings):
    """Score only the images of a finished run that have no prediction, and merge them into it."""

    reasons: Names = Field("", description="Comma-separated reasons to redrive; empty: all of failures.csv.")


class WholeRunSettings(ReportingSettings, WholeScoringSettings, InputSettings):
    """Run all stages in one process, without an orchestrator."""

    report: bool = Field(default=True, description="End with a report, which never fails the run.")


class PruneSettings(CommonSettings):
    """Remove old runs, and what killed processes left in the others."""

    runs_uri: RunsUri = "var/runs"
    keep_days: Days = Field(
        ge=0, le=36_500, description="Remove runs that were last written to longer ago than this."
    )
    unfinished: bool = Field(
        default=False, description="Remove old runs that never finished, too: they cannot be continued then."
    )
    dry_run: bool = Field(default=False, description="Only say what would be removed.")


class BenchSettings(MeasuringSettings):
    """Measure what this machine can do with this model, and how much of it a run gets."""

    seconds: WholeSeconds = Field(3, ge=1, le=600, description="Seconds per ceiling and round.")


class TuneSettings(MeasuringSettings):
    """Find the pack size, requests in flight and workers that suit this machine and model."""

    output: Path = Field(
        "imagebatch.env", min_length=1, description="File to write, for --settings-file; replaced as a whole."
    )
    tune_workers: bool = Field(
        default=True,
        description="Try numbers of TorchServe workers, and leave the best set, where the server is on this"
        " machine and its management API answers.",
    )


class ConformanceSettings(ApiSettings):
    """Hold any model server to what a run relies on, and print a table for its maker."""

    backend: Backend = Field(
        "torchserve",
        description="Model API under test: torchserve, local, oip, kserve_v1, mlflow, http, or one that"
        " an installed package adds.",
    )
    model: ModelName = Field("solar-cells", description="Name of the model.")
    model_version: ModelVersion = Field("", description="Version of the model; empty: the server's default.")
    input: Uri = Field(
        "",
        description="Folder of images that the model can read; empty: some are drawn, JPEGs of 192x192.",
    )
    limit: Count = Field(24, ge=2, le=256, description="Images that are asked about, the first by id.")
    top_k: Count = Field(4, ge=1, le=100, description="Labels per image, most probable first.")
    most: Count = Field(
        8,
        ge=0,
        le=MOST_IN_FLIGHT,
        description="Requests at once, of four images each, in the check that loads the server; 0: no load.",
    )
    largest: Bytes = Field(
        16 * 2**20,
        ge=1,
        le=2**30,
        description="Bytes of the one large request; the default, 16 MiB, is the most that a run sends unless"
        " one file is larger.",
    )
    restart_command: Line = Field(
        "",
        description="Command line, run without a shell, that restarts the server and ends when that is done;"
        " empty: nothing is restarted, and that check is skipped.",
    )
    out: Path = Field(
        "", description="File for the table: Markdown if it ends in .md, else JSON; replaced as a whole."
    )


class ModelsSettings(ApiSettings):
    """Ask the model server's management API, or have it register and scale models."""

    action: CliPositionalArg[
        Literal[
            "list",
            "describe",
            "register",
            "default",
            "set-default",
            "rollback",
            "probe",
            "unregister",
            "scale",
        ]
    ] = Field(description="What to do; default is the short word for set-default.")
    model: ModelName = Field("solar-cells", description="Name of the model.")
    model_version: ModelVersion = Field("", description="Version of the model; empty: the server's default.")
    archive: Name = Field("", description="register: the archive's file name in the model store.")
    workers: Count = Field(2, ge=0, le=1024, description="register, rollback, scale: worker processes.")
    model_store: Path = Field(
        "",
        description="set-default, rollback: the server's folder of archives, where the default and the one"
        " before it are remembered; empty: a restart forgets them.",
    )
    golden: Uri = Field(
        "", description="probe: file of golden images that the version must answer as its archive did."
    )
    tracking_uri: OptionalHttpUrl = Field(
        "",
        description="rollback: MLflow server whose registry's alias champion goes back, too; empty: none.",
    )


class ShadowSettings(ApiSettings):
    """Ask two versions of a model about images of a finished run, and show where they differ."""

    model: ModelName = Field("solar-cells", description="Name of the model.")
    model_version: ModelVersion = Field(min_length=1, description="Version that is looked at.")
    against: ModelVersion = Field(
        "", description="Version that it is compared with; empty: the server's default."
    )
    runs_uri: RunsUri = "var/runs"
    run_id: OptionalRunId = Field(
        "", description="Finished run whose images are asked about; empty: the newest of this model."
    )
    sample: Count = Field(
        400, ge=1, le=100_000, description="Images of it, chosen by the run id, that both are asked about."
    )
    output: Path = Field(
        "var/shadow.html", min_length=1, description="File for the page; replaced as a whole."
    )


class DoctorSettings(CommonSettings):
    """Say what is missing on this machine."""

    ports: Ports = Field("", description="Comma-separated TCP ports of loopback that must be free.")
    java: Path = Field("", description="Java executable that must start; empty: not checked.")
    min_free_gb: Gigabytes = Field(1.0, ge=0, description="Free disk space wanted, in GB (10^9 bytes).")
    path: Path = Field(".", description="Folder on the disk that is checked.")
