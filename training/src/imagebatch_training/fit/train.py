"""The verb `train`: both methods on both splits, all of it in MLflow, served weights and report on disk."""

import logging
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imagebatch_training.backbone.weights import WeightsFile, require_weights, write_weights
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.files import exclusive, read_json, sha256_file, sha256_json, write_json
from imagebatch_training.images.data import DataSet, require_data, split_sizes
from imagebatch_training.images.labels import SPLITS, Split
from imagebatch_training.images.pixels import load_pixels, pixels_key
from imagebatch_training.settings import Settings, cache_path, model_path, tracking_uri

if TYPE_CHECKING:
    from imagebatch_training.fit.experiment import Experiment

log = logging.getLogger(__name__)

_SQLITE = "sqlite:///"
LOCK = ".lock"
"""File of a training's folder that is locked while something is trained into it."""


def report_path(settings: Settings) -> Path:
    """Return the path of the report."""
    return Path(settings.paths.training) / "report.json"


def ensure_trained(settings: Settings) -> dict[str, Any]:
    """Return the report of a training with these settings, weights and images; train where there is none.

    Raises:
        ConfigurationError: Weights or data are missing, MLflow does not answer, or another training is under
            way in the same folder.
        DataError: An image cannot be decoded.
    """
    weights, data = require_weights(settings), require_data(settings)
    key = _key(settings, data, weights)
    report = find_report(settings)
    if report is not None and report["key"] == key and not _tracking_lost(settings):
        log.info("nothing has changed since run %s", report["run_id"])
        return report
    folder = Path(settings.paths.training)
    with exclusive(folder / LOCK) as alone:
        if not alone:
            raise ConfigurationError(busy(folder))
        return _train(settings, data, weights, key)


def busy(folder: Path) -> str:
    """Say that another training writes to a folder, and what to do."""
    return f"another training writes to {folder}: wait for it, or give this one a model.name of its own"


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
    tags = {
        "weights_source": weights.source,
        "weights_sha256": weights.sha256,
        "pixels": settings.model.pixels,
    }
    begun = _begun_path(settings)
    before = read_json(begun) or {}
    same = before.get("run_id") if before.get("key") == key else None
    with tracking.tracked_run("train", settings, tags, same) as run_id:
        write_json(begun, {"key": key, "run_id": run_id})
        tracking.log_splits(data.labels, data.csv)
        experiment = run_experiment(settings, data, weights, _checkpoints(settings, key))
        path = model_path(settings)
        write_weights(
            path, experiment.served_state(), experiment.convention, weights.source, settings.model.cut
        )
        report = _report(settings, data, weights, experiment) | {"run_id": run_id, "key": key}
        _log_trained(settings, data, experiment)
        report["seconds"] = round(time.monotonic() - started, 1)
        tracking.log_result(report, [path])
    write_json(report_path(settings), report)
    for done in [begun, *begun.parent.glob("checkpoint-*.pt")]:
        done.unlink(missing_ok=True)
    return report


def _log_trained(settings: Settings, data: DataSet, experiment: "Experiment") -> None:
    from imagebatch_training.fit import tracking  # noqa: PLC0415 - costs seconds, which a current training saves
    from imagebatch_training.fit.sheets import draw_answers, draw_grad_cam  # noqa: PLC0415 - it loads matplotlib

    labels, details = data.labels, settings.tracking.details
    pixels = load_pixels(data, settings.model, pixels_key(data, settings.model), cache_path(settings))
    for trained in experiment.trained:
        pictures = draw_answers(trained.answers, labels, pixels) if details else {}
        tracking.log_assessment(trained.assessment, labels, pictures)
    if details:
        model = experiment.served_model(settings.model.cut)
        heat = draw_grad_cam(experiment.served().answers, labels, pixels, model)
        example = np.repeat(pixels[:2], 3 // pixels.shape[1], axis=1)
        tracking.log_model(model, example, labels.classes, {"grad-cam.png": heat})


def _begun_path(settings: Settings) -> Path:
    """Return the path of the record of a training that has begun: its key and its run in MLflow."""
    return Path(settings.paths.training) / "begun.json"


def _checkpoints(settings: Settings, key: str) -> dict[Split, Path]:
    folder = Path(settings.paths.training)
    return {split: folder / f"checkpoint-{key[:16]}-{split}.pt" for split in SPLITS}


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
            "chosen_by": "log loss on the validation images of the block split",
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
