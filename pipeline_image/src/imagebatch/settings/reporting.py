"""Looking at runs: checks, report, drift, history."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from imagebatch.settings.base import CommonSettings, RunSettings
from imagebatch.settings.values import (
    Count,
    Name,
    OptionalAllowance,
    OptionalHttpUrl,
    Probability,
    Rate,
    RunsUri,
    Uri,
)


class SampleSettings(RunSettings):
    """How many images of a run are decoded to be looked at."""

    image_sample: Count = Field(
        400,
        ge=0,
        le=1_000_000,
        description="Images to decode for checks and drift, chosen by the run id; 0: all.",
    )
    max_suspect_images: OptionalAllowance = Field(
        "",
        description="Suite images: refuse a run with more suspect images in its sample; a count, a share, or"
        " empty: only warn.",
    )


class CheckSettings(SampleSettings):
    """Check the manifest or the predictions with Great Expectations, or look at a sample of the images."""

    suite: Literal["manifest", "predictions", "images"] = Field(description="Which data to check.")


class ReportingSettings(SampleSettings):
    """What the report draws and judges, and where the run is logged."""

    baseline: Uri = Field(
        "",
        description="File that imagebatch baseline wrote; {model} in it stands for the model's name, and then"
        " the file may be missing; empty: no drift is judged.",
    )
    drift_alpha: Probability = Field(
        0.01, gt=0, lt=1, description="Probability that a run without any drift is called drifting."
    )
    ceiling: Rate = Field(
        0,
        ge=0,
        description="Images per second that this machine can do, drawn; 0: what --bench measured, if it did.",
    )
    tracking_uri: OptionalHttpUrl = Field(
        "", description="MLflow server that runs are logged to; empty: none."
    )
    experiment: Name = Field(
        "batch-runs", min_length=1, description="MLflow experiment that runs are logged in."
    )


class ReportSettings(ReportingSettings):
    """Write report.html and history.html, judge drift, keep the run's figures, log it to MLflow."""


class BaselineSettings(SampleSettings):
    """Make a baseline for drift out of a finished run."""

    image_sample: Count = Field(
        2000, ge=0, le=1_000_000, description="Images to decode, chosen by the run id; 0: all."
    )
    output: Uri = Field(
        min_length=1,
        description="File to write: a path or any fsspec URI; {model} in it stands for the model's name.",
    )
    labels: Uri = Field(
        "", description="CSV with columns image_id and label: the truth, to calibrate confidences with."
    )


class PastRunsSettings(CommonSettings):
    """Which past runs to look at."""

    runs_uri: RunsUri = "var/runs"
    last: Count = Field(60, ge=1, le=10_000, description="Newest runs to take; trends: of each pipeline.")
    model: Name = Field("", description="Only runs of this model; empty: all.")
    pipeline: Name = Field("", description="Only runs of this pipeline; empty: all.")


class HistorySettings(PastRunsSettings):
    """List and compare runs, and write history.html."""


class TrendsSettings(PastRunsSettings):
    """Find changes of level, slopes and weekly patterns in the runs' figures, and say them in sentences."""

    trend_alpha: Probability = Field(
        0.002, gt=0, lt=1, description="Probability that a history without any change is called changing."
    )
