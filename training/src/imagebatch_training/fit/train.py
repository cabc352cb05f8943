"""The verb `train`: both methods on both splits, all of it in MLflow, served weights and report on disk."""

import logging
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagebatch_pixels import PIXELS_VERSION  # type: ignore[import-untyped]  # flat modules of a .mar: no type marker

from imagebatch_training.backbone.weights import WeightsFile, require_weights, write_weights
from imagebatch_training.files import read_json, sha256_file, sha256_json, write_json
from imagebatch_training.images.data import DataSet, require_data, split_sizes
from imagebatch_training.images.pixels import pixels_key
from imagebatch_training.settings import Settings, model_path, tracking_uri

if TYPE_CHECKING:
    from imagebatch_training.fit.experiment import Experiment

log = logging.getLogger(__name__)

_SQLITE = "sqlite:///"


def report_path(settings: Settings) -> Path:
    """Return the path of the report."""
    return Path(settings.paths.training) / "report.json"


def ensure_trained(settings: Settings) -> dict[str, Any]:
    """Return the report of a training with these settings, weights and images; train where there is none.

    Raises:
        ConfigurationError: Weights or data are missing, or MLflow does not answer.
        DataError: An image cannot be decoded.
    """
    weights, data = require_weights(settings), require_data(settings)
    key = _key(settings, data, weights)
    report = find_report(settings)
    if report is not None and report["key"] == key and not _tracking_lost(settings):
        log.info("nothing has changed since run %s", report["run_id"])
        return report
    return _train(settings, data, weights, key)


def find_report(settings: Settings) -> dict[str, Any] | None:
    """Return the last report if the served weights are the ones it speaks of."""
    report: dict[str, Any] | None = read_json(report_path(settings))
    path = model_path(settings)
    if report is None or not path.is_file() or report["served"]["weights_sha256"] != sha256_file(path):
        return None
    return report


def _train(settings: Settings, data: DataSet, weights: WeightsFile, key: str) -> dict[str, Any]:
    from imagebatch_training.fit import tracking  # noqa: PLC0415 - costs seconds, which a current training saves
    from imagebatch_training.fit.experiment import run_experiment  # noqa: PLC0415 - costs seconds, which a current training saves

    started = time.monotonic()
    tracking.open_experiment(settings.tracking)
    tags = {"weights_source": weights.source, "weights_sha256": weights.sha256, "pixels": PIXELS_VERSION}
    with tracking.tracked_run("train", settings, tags) as run_id:
        tracking.log_splits(data.labels, data.csv)
        experiment = run_experiment(settings, data, weights)
        path = model_path(settings)
        write_weights(
            path, experiment.served_state(), experiment.convention, weights.source, settings.model.cut
        )
        report = _report(settings, data, weights, experiment) | {"run_id": run_id, "key": key}
        for trained in experiment.trained:
            tracking.log_assessment(trained.assessment, data.labels)
        report["seconds"] = round(time.monotonic() - started, 1)
        tracking.log_result(report, [path])
    write_json(report_path(settings), report)
    return report


def _report(
    settings: Settings, data: DataSet, weights: WeightsFile, experiment: "Experiment"
) -> dict[str, Any]:
    served = experiment.served().assessment
    return {
        "data": {"name": settings.data.name, "classes": list(data.labels.classes)} | data.summary(),
        "splits": split_sizes(data.labels),
        "weights": {
            "source": weights.source,
            "sha256": weights.sha256,
            "padding": experiment.convention.padding,
        },
        "served": {
            "method": served.method,
            "split": served.split,
            "chosen_by": "test accuracy on the block split",
            "weights_sha256": sha256_file(model_path(settings)),
        },
        "results": [asdict(trained.assessment) for trained in experiment.trained],
    }


def _key(settings: Settings, data: DataSet, weights: WeightsFile) -> str:
    relevant = asdict(settings)
    for name in ("paths", "weights", "tracking", "release"):
        del relevant[name]
    for name in ("images", "csv"):  # where they are; what is in them is hashed below
        del relevant["data"][name]
    for name in ("version", "engine"):  # say what the archive is, not what is trained
        del relevant["model"][name]
    versions = {name: version(name) for name in ("torch", "torchvision", "openvino", "numpy")}
    images = pixels_key(data, settings.model)
    return sha256_json([relevant, weights.sha256, sha256_file(data.csv), images, versions])


def _tracking_lost(settings: Settings) -> bool:
    uri = tracking_uri(settings.tracking)
    return uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists()
