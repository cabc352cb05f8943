"""history.html: all runs on one page, each figure as a line over time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from imagebatch import __version__
from imagebatch.contracts.layout import HISTORY, HISTORY_PAGE, REPORT, TRENDS
from imagebatch.history.summary import RunSummary
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.stages.report.page import count, percent, render

Figure = Callable[[RunSummary], float | None]
Text = Callable[[float], str]

# A figure's name on the page, and its name in the findings of trends.
_FIGURES: dict[tuple[str, str], tuple[Figure, Text]] = {
    ("Images per second", "throughput"): (lambda run: run.images_per_second, lambda value: f"{value:.0f}"),
    ("Images", "number of images"): (lambda run: run.listed, count),
    ("Without a prediction", "share without a prediction"): (lambda run: run.failure_share, percent),
    ("Mean confidence", "mean confidence"): (lambda run: run.confidence, lambda value: f"{value:.3f}"),
    ("To review", "share of predictions to review"): (lambda run: run.review_share, percent),
    ("Labels per image", "labels per image"): (
        lambda run: run.labels_per_image,
        lambda value: f"{value:.2f}",
    ),
    ("Without a label", "share of predictions without a label"): (lambda run: run.unlabelled, percent),
    ("Mean score", "mean score"): (lambda run: run.score_mean, lambda value: f"{value:.4g}"),
    ("95th percentile of the scores", "95th percentile of the scores"): (
        lambda run: run.score_high,
        lambda value: f"{value:.4g}",
    ),
    ("Drift, largest effect", "drift from the baseline"): (
        lambda run: run.drift,
        lambda value: f"{value:.2f}",
    ),
    ("Estimated accuracy", "estimated accuracy"): (lambda run: run.estimated_accuracy, percent),
    ("Accuracy, by people", "accuracy"): (lambda run: run.accuracy, percent),
}
# Figures that have an interval: its two ends.
_ENDS: dict[str, tuple[Figure, Figure]] = {
    "accuracy": (lambda run: run.accuracy_low, lambda run: run.accuracy_high)
}
_MOST_CLASSES = 6
# With more points than this, the strip of each would be too narrow to point at.
_MOST_POINTS = 120


@dataclass(frozen=True, slots=True)
class Trends:
    """The last findings of `trends`: its sentences, and where levels changed: (pipeline, figure, run)."""

    sentences: list[str]
    steps: frozenset[tuple[str, str, str]] = frozenset()


def write_history(runs_uri: str, runs: list[RunSummary]) -> str:
    """Write history.html beside the runs.

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
    folder.write(HISTORY_PAGE, history_page(runs, _trends(folder), reports).encode())
    return f"{folder.uri}/{HISTORY_PAGE}"


def history_page(runs: list[RunSummary], trends: Trends, reports: set[str]) -> str:
    """Return the page.

    Args:
        runs: Oldest first.
        trends: What has changed.
        reports: Runs whose report.html is there to be linked.
    """
    names = list(dict.fromkeys(run.pipeline for run in reversed(runs)))
    pipelines = [_pipeline(name, [run for run in runs if run.pipeline == name], trends) for name in names]
    return render(
        "history.html.j2",
        runs=list(reversed(runs)),
        pipelines=pipelines,
        sentences=trends.sentences,
        reports=reports,
        version=__version__,
    )


def _pipeline(name: str, runs: list[RunSummary], trends: Trends) -> dict[str, Any]:
    """Return the charts of one pipeline: `name`, `figures`, `classes`."""

    def line(title: str, figure: str, value: Figure, text: Text) -> dict[str, Any] | None:
        changed = {run_id for pipeline, what, run_id in trends.steps if (pipeline, what) == (name, figure)}
        return _line(title, runs, value, text, changed, ends=_ENDS.get(figure))

    totals = {label: sum(run.classes.get(label, 0) for run in runs) for run in runs for label in run.classes}
    figures = [line(*names, *how) for names, how in _FIGURES.items()]
    classes = [
        line(label, f"share of {label}", partial(RunSummary.share, label=label), percent)
        for label in sorted(totals, key=lambda name: -totals[name])[:_MOST_CLASSES]
    ]
    return {
        "name": name,
        "runs": len(runs),
        "figures": [one for one in figures if one],
        "classes": [one for one in classes if one],
    }


def _trends(folder: RunFolder) -> Trends:
    """Read the last findings of `trends`; empty if it has not run, or its file cannot be read."""
    try:
        content = json.loads(folder.read(TRENDS))
        steps = [
            (str(one["pipeline"]), str(one["figure"]), str(one["run_id"])) for one in content.get("steps", [])
        ]
        return Trends([str(text) for text in content["sentences"]], frozenset(steps))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return Trends([])


def _line(
    name: str,
    runs: list[RunSummary],
    value: Figure,
    text: Text,
    changed: set[str],
    *,
    ends: tuple[Figure, Figure] | None = None,
) -> dict[str, Any] | None:
    """Return one small chart, in a box of 100 x 100 that reaches a little beyond the values.

    Args:
        name: Of the figure.
        runs: Oldest first.
        value: The figure of a run.
        text: How it is written.
        changed: Runs at which its level changed.
        ends: Of its interval, lower and upper, where it has one.

    Returns:
        `points` of the line, `steps` (where its level changed), `bars` (its intervals: `x`, `low`, `high`),
        `interval` (the newest one in words), `hovers` (a strip and a text for each run); None if no run has
        the figure.
    """
    known = [(at, run, number) for at, run in enumerate(runs) if (number := value(run)) is not None]
    if not known:
        return None
    numbers = [number for *_, number in known]
    spans = [_span(run, ends) for _, run, _ in known]
    low = min([*numbers, *(span[0] for span in spans if span)])
    high = max([*numbers, *(span[1] for span in spans if span)])
    room = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    width = 100 / max(len(runs) - 1, 1)

    def height(number: float) -> float:
        return 100 - (number - low) / (high - low) * 100

    points = [(at * width, height(number)) for at, _, number in known]
    bars = [
        {"x": round(x, 2), "low": round(height(span[0]), 2), "high": round(height(span[1]), 2)}
        for (x, _), span in zip(points, spans, strict=True)
        if span
    ]
    if len(points) == 1:
        points = [(0.0, points[0][1]), (100.0, points[0][1])]
    hovers = [
        {
            "left": round(max((at - 0.5) * width, 0), 2),
            "right": round(max(100 - (at + 0.5) * width, 0), 2),
            "text": f"{text(number)}{_words(span, text)}: {run.run_id}, {run.started:%-d %b %Y}",
        }
        for (at, run, number), span in zip(known, spans, strict=True)
    ]
    return {
        "name": name,
        "now": text(numbers[-1]),
        "least": text(min(numbers)),
        "most": text(max(numbers)),
        "bars": bars,
        "interval": _words(spans[-1], text).strip(" ()"),
        "points": " ".join(f"{x:.2f},{y:.2f}" for x, y in points),
        "steps": [round((at - 0.5) * width, 2) for at, run, _ in known if run.run_id in changed],
        "hovers": hovers if len(hovers) <= _MOST_POINTS else [],
    }


def _span(run: RunSummary, ends: tuple[Figure, Figure] | None) -> tuple[float, float] | None:
    if ends is None:
        return None
    low, high = ends[0](run), ends[1](run)
    return None if low is None or high is None else (low, high)


def _words(span: tuple[float, float] | None, text: Text) -> str:
    return f" ({text(span[0])} to {text(span[1])})" if span else ""
