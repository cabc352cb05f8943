"""MLflow: every parameter, figure, split and picture of a training. The only module that imports it."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Before the import: these are read there. No usage statistics leave the machine, and a server that is away is
# reported within seconds, not minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

import mlflow
from mlflow.exceptions import MlflowException

from imagebatch_training.errors import ConfigurationError
from imagebatch_training.fit.assessment import Assessment
from imagebatch_training.fit.plots import plot_confusion, plot_history
from imagebatch_training.images.labels import SPLITS, Labels
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
def tracked_run(name: str, settings: Settings, tags: Mapping[str, str]) -> Iterator[str]:
    """Open a run with the whole configuration as parameters; it is marked failed when the block raises.

    Yields:
        The run's id.
    """
    with mlflow.start_run(run_name=name, tags=dict(tags)) as run:
        mlflow.log_params(dict(_flatten(asdict(settings))))
        yield run.info.run_id


def log_splits(labels: Labels, csv: Path) -> None:
    """Log `labels.csv` (both splits, image by image) and the size of every part."""
    mlflow.log_artifact(str(csv), "data")
    for split in SPLITS:
        for part in ("train", "validation", "test"):
            mlflow.log_metric(f"{split}_{part}_images", len(labels.members(split, part)))


def log_assessment(assessment: Assessment, labels: Labels) -> None:
    """Log one method on one split as a nested run, with its figures, history and pictures."""
    name = f"{assessment.method}, {assessment.split} split"
    with mlflow.start_run(run_name=name, nested=True):
        mlflow.log_params({"split": assessment.split, "method": assessment.method} | assessment.chosen)
        mlflow.log_metrics(dict(_numbers(assessment.test, "test")))
        mlflow.log_metrics(dict(_numbers(assessment.validation, "validation")))
        for step, row in enumerate(assessment.history, start=1):
            mlflow.log_metrics({f"history_{key}": value for key, value in row.items()}, step=step)
        mlflow.log_dict(asdict(assessment), "assessment.json")
        mlflow.log_figure(plot_confusion(assessment, labels.classes), "confusion.png")
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
