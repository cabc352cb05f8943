"""What people are asked about, and what they have said."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from imagebatch.settings.base import CommonSettings, RunSettings
from imagebatch.settings.values import Count, OptionalProbability, Path, Uri


class FormatSettings(CommonSettings):
    """In which tool people look at images."""

    format: Literal["label-studio", "cvat", "csv"] = Field(
        description="label-studio: its JSON; cvat: CVAT for images 1.1; csv: a table, and a page of pictures."
    )


class ReviewSettings(RunSettings, FormatSettings):
    """Hand out the predictions of a finished run that a person should look at."""

    action: CliPositionalArg[Literal["export"]] = Field(description="What to do.")
    out: Path = Field(min_length=1, description="Folder to make; it must not hold anything.")
    below: OptionalProbability = Field(
        None,
        gt=0,
        le=1,
        description="Take predictions whose largest probability is below this; empty: those that the run"
        " marks (--review-below).",
    )
    queue: bool = Field(default=True, description="Take the least certain predictions.")
    limit: Count = Field(500, ge=0, description="Most of these, the least certain; 0 takes all.")
    sample: Count = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Take so many predictions at random, too, whatever their probability: the run's accuracy"
        " is measured on them.",
    )
    predictions: bool = Field(
        default=True,
        description="Show people what the model says; without, they judge without being swayed.",
    )
    image_url: Uri = Field(
        "/data/local-files/?d=",
        description="label-studio: what stands before images/NAME in a task; the default is its storage of"
        " local files, whose root is the folder.",
    )


class LabelsSettings(RunSettings, FormatSettings):
    """Read back what people said about a run's images: training data, and the run's accuracy."""

    action: CliPositionalArg[Literal["import"]] = Field(description="What to do.")
    file: Path = Field(min_length=1, description="The export, unpacked.")
    accept_predictions: bool = Field(
        default=False,
        description="cvat: people have looked at every image, and a label of the model that they left is"
        " right; without, it counts as no label.",
    )
    images: Path = Field(
        "",
        description="Folder that the paths of the labels begin at, as data.images of imagebatch-train; empty:"
        " the run's input, if that is a folder, else the one that all labelled images lie in.",
    )
    training_csv: Path = Field(
        "",
        description="CSV of images and labels to add these to, for imagebatch-train data=csv; made if there"
        " is none. An image that it has gets the new label.",
    )
