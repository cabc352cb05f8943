"""history.html: all runs on one page, each figure as a line over time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from imagebatch import __version__
from imagebatch.contracts import HISTORY, HISTORY_PAGE, REPORT, TRENDS
from imagebatch.report.page import count, percent, render
from imagebatch.storage.runs import RunFolder, open_run
from imagebatch.summary import RunSummary

_FIGURES: dict[str, tuple[Callable[[RunSummary], float | None], Callable[[float], str]]] = {
    "Images per second": (lambda run: run.images_per_second, lambda value: f"{value:.0f}"),
    "Images": (lambda run: run.listed, count),
    "Without a prediction": (lambda run: run.failure_share, percent),
    "Mean confidence": (lambda run: run.confidence, lambda value: f"{value:.3f}"),
    "Drift, largest effect": (lambda run: run.drift, lambda value: f"{value:.2f}"),
    "Estimated accuracy": (lambda run: run.estimated_accuracy, percent),
}
_MOST_CLASSES = 6


def write_history(runs_uri: str, runs: list[RunSummary]) -> str:
    """Writes history.html beside the runs.

    Args:
        runs_uri: Where runs are kept.
        runs: At least one, oldest first.

    Returns:
        The page's URI.

    Raises:
        StorageError: It cannot be written.
    """
    folder = open_run(runs_uri, HISTORY)
    reports = {run.run_id for run in runs if open_run(runs_uri, run.run_id).exists(REPORT)}
    folder.write(HISTORY_PAGE, history_page(runs, _sentences(folder), reports).encode())
    return f"{folder.uri}/{HISTORY_PAGE}"


def history_page(runs: list[RunSummary], sentences: list[str], reports: set[str]) -> str:
    """The page.

    Args:
        runs: Oldest first.
        sentences: What trends have been found.
        reports: Runs whose report.html is there to be linked.
    """
    names = list(dict.fromkeys(run.pipeline for run in reversed(runs)))
    pipelines = [_pipeline(name, [run for run in runs if run.pipeline == name]) for name in names]
    return render(
        "history.html.j2",
        runs=list(reversed(runs)),
        pipelines=pipelines,
        sentences=sentences,
        reports=reports,
        version=__version__,
    )


def _pipeline(name: str, runs: list[RunSummary]) -> dict[str, Any]:
    """The charts of one pipeline: `name`, `figures`, `classes`."""
    figures = [_line(name, [value(run) for run in runs], text) for name, (value, text) in _FIGURES.items()]
    totals = {label: sum(run.classes.get(label, 0) for run in runs) for run in runs for label in run.classes}
    classes = [
        _line(label, [run.share(label) for run in runs], percent)
        for label in sorted(totals, key=lambda name: -totals[name])[:_MOST_CLASSES]
    ]
    return {
        "name": name,
        "runs": len(runs),
        "figures": [line for line in figures if line],
        "classes": [line for line in classes if line],
    }


def _sentences(folder: RunFolder) -> list[str]:
    """What `trends` has found last; nothing if it has not run, or its file cannot be read."""
    try:
        return [str(text) for text in json.loads(folder.read(TRENDS))["sentences"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _line(name: str, values: list[float | None], text: Callable[[float], str]) -> dict[str, Any] | None:
    """One small chart: `points` in a box of 100 x 100 that reaches a little beyond the values."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if not known:
        return None
    numbers = [value for _, value in known]
    low, high = min(numbers), max(numbers)
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    last = max(len(values) - 1, 1)
    points = [(at / last * 100, 100 - (value - low) / (high - low) * 100) for at, value in known]
    if len(points) == 1:
        points = [(0.0, points[0][1]), (100.0, points[0][1])]
    return {
        "name": name,
        "now": text(numbers[-1]),
        "least": text(min(numbers)),
        "most": text(max(numbers)),
        "points": " ".join(f"{x:.2f},{y:.2f}" for x, y in points),
    }
