"""MLflow: every parameter, figure, split and picture of a training. Only `release.registry` knows it, too."""

import copy
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before the import: these are read there. No usage statistics leave the machine, and a server that is away is
# reported within seconds, not minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # the folder it runs in is not the model's project
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

import mlflow
import numpy as np
import torch
from matplotlib.figure import Figure
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import Schema, TensorSpec
from torch import nn

from imagebatch_training.backbone.mobilenet import ServedModel
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.fit.assessment import Assessment
from imagebatch_training.fit.plots import plot_confusion, plot_history, plot_scores
from imagebatch_training.images.labels import SPLITS, Labels
from imagebatch_training.images.pixels import Pixels
from imagebatch_training.settings import Settings, Tracking, tracking_uri

_SQLITE = "sqlite:///"
_FOREIGN = re.compile(r"[^\w.:/-]|/(?!\w)|(?<!\w)/")
"""What MLflow refuses in a metric's name, as part of which a class may be called anything: brackets, `//`."""


def open_experiment(tracking: Tracking) -> None:
    """Select the experiment and create it where it is missing.

    Raises:
        ConfigurationError: The tracking server or database does not answer.
    """
    uri = tracking_uri(tracking)
    location = None
    if uri.startswith(_SQLITE):
        folder = Path(uri.removeprefix(_SQLITE)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{folder}: {error.strerror}; correct tracking.uri") from error
        location = Path(tracking.artifacts).resolve().as_uri()
    try:
        mlflow.set_tracking_uri(uri)
        if mlflow.get_experiment_by_name(tracking.experiment) is None:
            mlflow.create_experiment(tracking.experiment, artifact_location=location)
        mlflow.set_experiment(tracking.experiment)
    except MlflowException as error:
        text = " ".join(str(error).split())[:200]
        raise ConfigurationError(
            f"MLflow at {uri} does not answer: start it or unset MLFLOW_TRACKING_URI ({text})"
        ) from error


@contextmanager
def tracked_run(
    name: str, settings: Settings, tags: Mapping[str, str], begun: str | None = None
) -> Iterator[str]:
    """Open a run with the whole configuration as parameters; it is marked failed when the block raises.

    Args:
        name: Of a new run.
        settings: The configuration.
        tags: Of the run.
        begun: A run that the same training has begun and not ended, and goes on in; None: a new one.

    Yields:
        The run's id.
    """
    nested = mlflow.active_run() is not None  # one of a sweep
    if begun is not None and _is_there(begun):
        with mlflow.start_run(run_id=begun, nested=nested):
            yield begun
        return
    with mlflow.start_run(run_name=name, tags=dict(tags), nested=nested) as run:
        mlflow.log_params(dict(_flatten(asdict(settings))))
        yield run.info.run_id


@contextmanager
def tracked_sweep(trainings: int) -> Iterator[str]:
    """Open the run that the trainings of a sweep are nested in.

    Yields:
        The run's id.
    """
    with mlflow.start_run(run_name="sweep", tags={"trainings": str(trainings)}) as run:
        yield run.info.run_id


def log_summary(summary: Mapping[str, Any], table: str) -> None:
    """Log a sweep's table on its run, and the figures and settings of the best."""
    mlflow.log_dict(dict(summary), "sweep.json")
    mlflow.log_text(table, "sweep.md")
    best = summary["points"][0]
    mlflow.log_metrics(
        {f"best_validation_{key}": best["validation"][key] for key in ("accuracy", "log_loss")}
    )
    mlflow.log_params(dict(chosen.split("=", 1) for chosen in best["chosen"]))


def _is_there(run_id: str) -> bool:
    try:
        return bool(mlflow.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False


def log_splits(labels: Labels, csv: Path) -> None:
    """Log `labels.csv` (both splits, image by image) and the size of every part."""
    mlflow.log_artifact(str(csv), "data")
    for split in SPLITS:
        for part in ("train", "validation", "test"):
            mlflow.log_metric(f"{split}_{part}_images", len(labels.members(split, part)))


def log_assessment(
    assessment: Assessment, labels: Labels, pictures: Mapping[str, Figure] | None = None
) -> None:
    """Log one method on one split as a nested run, with its figures, history, scores per class and pictures.

    Args:
        assessment: What is logged.
        labels: Names of the classes.
        pictures: Further pictures by file name.
    """
    name = f"{assessment.method}, {assessment.split} split"
    with mlflow.start_run(run_name=name, nested=True):
        mlflow.log_params({"split": assessment.split, "method": assessment.method} | assessment.chosen)
        mlflow.log_metrics(dict(_numbers(assessment.test, "test")))
        mlflow.log_metrics(dict(_numbers(assessment.validation, "validation")))
        for step, row in enumerate(assessment.history, start=1):
            mlflow.log_metrics({f"history_{key}": value for key, value in row.items()}, step=step)
        mlflow.log_dict(asdict(assessment), "assessment.json")
        mlflow.log_dict(_table(assessment.test["classes"]), "scores.json")
        drawn = {
            "confusion.png": plot_confusion(assessment, labels.classes),
            "scores.png": plot_scores(assessment),
        }
        for file, figure in (drawn | dict(pictures or {})).items():
            mlflow.log_figure(figure, file)
        if assessment.history:
            mlflow.log_figure(plot_history(assessment), "history.png")


def log_result(report: Mapping[str, Any], files: list[Path]) -> None:
    """Log the report, its headline figures and the served weights on the open run."""
    mlflow.log_text(json.dumps(report, indent=2), "report.json")
    for row in report["results"]:
        prefix = f"{row['split']}_{row['method']}".replace("-", "_")
        mlflow.log_metric(f"{prefix}_test_accuracy", row["test"]["accuracy"])
    for file in files:
        mlflow.log_artifact(str(file), "model")


def log_model(
    model: ServedModel, example: Pixels, classes: Sequence[str], pictures: Mapping[str, Figure]
) -> None:
    """Log the served model on the open run, with its signature, an input example and pictures.

    It is an exported program: whoever loads it, by `mlflow.pyfunc` or `mlflow.pytorch`, needs torch, none of
    this package's code, and unpickles nothing.

    Args:
        model: In evaluation mode. What is logged answers probabilities, float32 (images, classes).
        example: uint8 (2 images or more, 3, side, side): of one image the number of images would be fixed.
        classes: Their names, kept in the model's metadata.
        pictures: By file name.
    """
    # Channels last is quick to compute and cannot be packed.
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    answering = nn.Sequential(plain, nn.Softmax(1)).eval()
    size = example.shape[1:]
    signature = ModelSignature(  # without names: a named tensor would come in as a dictionary
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *size))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
    )
    with warnings.catch_warnings():
        # What it imports for this warns of its own type hints.
        warnings.filterwarnings("ignore", ".*type hint is inferred as AnyType", UserWarning)
        mlflow.pytorch.log_model(
            answering,
            name="served",
            serialization_format="pt2",
            signature=signature,
            input_example=example,
            pip_requirements=[f"torch=={version('torch')}", f"numpy=={version('numpy')}"],
            metadata={"classes": list(classes)},
        )
    for file, figure in pictures.items():
        mlflow.log_figure(figure, file)


def _table(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Lay figures per class out as MLflow's tables are: columns, and a list per row."""
    columns = [*next(iter(rows.values()))]
    return {
        "columns": ["class", *columns],
        "data": [[name, *(row[column] for column in columns)] for name, row in rows.items()],
    }


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{name}_{_FOREIGN.sub('_', str(key))}")
    elif isinstance(value, tuple):
        yield f"{name}_low", value[0]
        yield f"{name}_high", value[1]
    elif isinstance(value, int | float):
        yield name, float(value)
