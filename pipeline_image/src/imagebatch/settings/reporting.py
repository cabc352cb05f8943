"""Looking at runs: checks, report, drift, history."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from imagebatch.settings.base import CommonSettings, RunSettings


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
