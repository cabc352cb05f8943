"""The verb `sweep`: a training for every combination of settings, ranked by validation images alone."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imagebatch_training.backbone.weights import require_weights
from imagebatch_training.errors import ConfigurationError
from imagebatch_training.files import exclusive, sha256_json
from imagebatch_training.fit.train import LOCK, busy, ensure_trained
from imagebatch_training.images.data import require_data
from imagebatch_training.settings import Settings, cache_path
from imagebatch_training.sweeps import Point

_LONGEST = 80
"""Letters of a folder's name that say what is in it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One combination: what it sets, the settings of its training, and the folder that the sweep is in."""

    chosen: Sequence[str]
    settings: Settings
    base: Path


def plan(point: Point, settings: Settings) -> Job:
    """Give one combination a training folder of its own below `sweep/`; the cache is shared.

    Args:
        point: The combination.
        settings: With it.
    """
    base = Path(settings.paths.training)
    folder = base / "sweep" / _folder_name(point.chosen)
    paths = replace(settings.paths, training=str(folder), cache=str(cache_path(settings)))
    plain = replace(settings, paths=paths, tracking=replace(settings.tracking, details=False))
    return Job(chosen=point.chosen, settings=plain, base=base)


def run_sweep(jobs: Sequence[Job]) -> dict[str, Any]:
    """Train every combination that is not current, each a nested run of one run in MLflow.

    Args:
        jobs: All of them are valid.

    Returns:
        `points`, best first, each with `chosen`, `method` (the better one on the validation images of the
        block split), `validation`, `folder`, `run_id`; and MLflow's `run_id` of the sweep.

    Raises:
        ConfigurationError: Weights or data are missing, MLflow does not answer, or another training or
            sweep is under way in the same folder.
        DataError: An image cannot be decoded.
    """
    from imagebatch_training.fit import tracking  # noqa: PLC0415 - costs seconds

    require_weights(jobs[0].settings)
    require_data(jobs[0].settings)
    with ExitStack() as held:
        for folder in sorted({job.base for job in jobs}):  # a training there would share the cache
            if not held.enter_context(exclusive(folder / LOCK)):
                raise ConfigurationError(busy(folder))
        tracking.open_experiment(jobs[0].settings.tracking)
        with tracking.tracked_sweep(len(jobs)) as run_id:
            points = [_point(job, ensure_trained(job.settings)) for job in jobs]
            points.sort(key=lambda one: (-one["validation"]["accuracy"], one["validation"]["log_loss"]))
            summary = {"run_id": run_id, "points": points}
            tracking.log_summary(summary, render_sweep(summary))
    return summary


def render_sweep(summary: dict[str, Any]) -> str:
    """Render a sweep as Markdown: a row per combination, best first."""
    lines = [
        "| rank | settings | method | validation accuracy | validation log loss | folder |",
        "|---|---|---|---|---|---|",
    ]
    for rank, point in enumerate(summary["points"], start=1):
        figures = point["validation"]
        chosen = " ".join(point["chosen"]).replace("|", "\\|")
        lines.append(
            f"| {rank} | {chosen} | {point['method']} | {figures['accuracy']:.3f} |"
            f" {figures['log_loss']:.3f} | {point['folder']} |"
        )
    said = (
        "Ranked on the validation images of the block split, and on nothing else: test images choose no"
        " settings. To train the best as the model, say its settings with `imagebatch-train train`."
    )
    return "\n".join([*lines, "", said]) + "\n"


def _point(job: Job, report: dict[str, Any]) -> dict[str, Any]:
    block = [result for result in report["results"] if result["split"] == "block"]
    best = max(block, key=lambda one: (one["validation"]["accuracy"], -one["validation"]["log_loss"]))
    return {
        "chosen": list(job.chosen),
        "method": best["method"],
        "validation": best["validation"],
        "folder": job.settings.paths.training,
        "run_id": report["run_id"],
    }


def _folder_name(chosen: Sequence[str]) -> str:
    """Name a combination so that it is found again; a digest tells apart what no file should be called."""
    said = re.sub(r"[^\w.=,-]+", "_", ",".join(chosen))[:_LONGEST].strip("._")
    return f"{said}-{sha256_json(list(chosen))[:8]}"
