"""The verb `trends`: what has changed over the runs, in sentences with figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from imagebatch.changes import LEAST_RUNS, Changes, changes
from imagebatch.contracts import HISTORY
from imagebatch.errors import NothingToDoError
from imagebatch.settings import TrendsSettings
from imagebatch.storage.runs import open_run
from imagebatch.summary import RunSummary, read_history

TRENDS = "trends.json"
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
# A figure that every run must have before it is looked at: this share of them.
_KNOWN = 0.8
_MOST_CLASSES = 12

Figure = Callable[[RunSummary], float | None]


@dataclass(frozen=True, slots=True)
class TrendsResult:
    """Sentences, the most certain first; `figures` were looked at over `runs`."""

    runs: int
    figures: int
    found: int
    sentences: list[str]


@dataclass(frozen=True, slots=True)
class Series:
    """A figure over the runs: how it is called and written."""

    name: str
    unit: str
    value: Figure


def trends(settings: TrendsSettings) -> TrendsResult:
    """Finds and keeps what has changed, as `_history/trends.json`.

    Raises:
        NothingToDoError: Fewer than 14 runs have figures.
    """
    runs = read_history(settings.runs_uri, settings.last, settings.model)
    if len(runs) < LEAST_RUNS:
        raise NothingToDoError(
            f"{len(runs)} runs at {settings.runs_uri} have figures, trends need {LEAST_RUNS}:"
            " they are kept by imagebatch report"
        )
    result = trends_of(runs, settings.trend_alpha)
    content = {"sentences": result.sentences, "figures": result.figures, "runs": result.runs}
    open_run(settings.runs_uri, HISTORY).write(TRENDS, (json.dumps(content, indent=1) + "\n").encode())
    return result


def trends_of(runs: list[RunSummary], alpha: float) -> TrendsResult:
    """What has changed over runs, oldest first."""
    usable = [one for one in series_of(runs) if _known(runs, one.value) >= _KNOWN * len(runs)]
    found: list[tuple[float, str]] = []
    for one in usable:
        taken = [(run, value) for run in runs if (value := one.value(run)) is not None]
        values = np.array([value for _, value in taken], np.float64)
        days = [run.started for run, _ in taken]
        # Bonferroni over the figures: `alpha` is the probability of any sentence where nothing has changed.
        outcome = changes(values, days, alpha / len(usable))
        found += _sentences(one, outcome, [run for run, _ in taken])
    sentences = [text for _, text in sorted(found)]
    return TrendsResult(len(runs), len(usable), len(sentences), sentences)


def series_of(runs: list[RunSummary]) -> list[Series]:
    """Every figure that is looked at: throughput, failures, classes, confidence, drift."""
    labels = {label: sum(run.classes.get(label, 0) for run in runs) for run in runs for label in run.classes}
    classes = sorted(labels, key=lambda label: -labels[label])[:_MOST_CLASSES]
    return [
        Series("throughput", "images/s", lambda run: run.images_per_second),
        Series("share without a prediction", "%", lambda run: run.failure_share * 100),
        Series("mean confidence", "", lambda run: run.confidence),
        Series("share of unsure predictions", "%", lambda run: _times(run.unsure, 100)),
        Series("drift from the baseline", "", lambda run: run.drift),
        Series("estimated accuracy", "%", lambda run: _times(run.estimated_accuracy, 100)),
        Series("brightness", "", lambda run: run.brightness),
        Series("number of images", "images", lambda run: float(run.listed)),
        *(Series(f"share of {label}", "%", _share_of(label)) for label in classes),
    ]


def _sentences(series: Series, outcome: Changes, runs: list[RunSummary]) -> list[tuple[float, str]]:
    found = []
    name = series.name

    def put(value: float) -> str:
        return _figure(value, series.unit)

    for level in outcome.levels:
        run = runs[level.at]
        verb = "rose" if level.after > level.before else "fell"
        change = f" ({(level.after / level.before - 1) * 100:+.0f} %)" if level.before else ""
        text = (
            f"The {name} {verb} from {put(level.before)} to {put(level.after)}{change}"
            f" with run {run.run_id} of {run.started:%a %-d %b %Y}"
        )
        found.append((level.p, text))
    if outcome.slope:
        first, last = outcome.slope.first, outcome.slope.last
        verb = "rises" if last > first else "falls"
        text = f"The {name} {verb} steadily, from {put(first)} to {put(last)} over {len(runs)} runs"
        found.append((outcome.slope.p, text))
    if outcome.weekly:
        weekly = outcome.weekly
        days = " and ".join(_DAYS[day] for day in weekly.weekdays)
        side = "higher" if weekly.difference > 0 else "lower"
        text = (
            f"The {name} is {side} on {days}: {put(weekly.mean + weekly.difference)},"
            f" on other days {put(weekly.mean)}"
        )
        found.append((weekly.p, text))
    return [(p, f"{text} (p {_p(p)}).") for p, text in found]


def _figure(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 3 if not unit else 2  # noqa: PLR2004 (three digits that say something)
    return f"{value:,.{digits}f} {unit}".rstrip()


def _p(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"  # noqa: PLR2004 (what is printed)


def _known(runs: list[RunSummary], value: Figure) -> int:
    return sum(value(run) is not None for run in runs)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _share_of(label: str) -> Figure:
    return lambda run: run.share(label) * 100


def as_sentences(content: bytes) -> list[str]:
    """The sentences of a trends.json; none if it is not one."""
    try:
        found: Any = json.loads(content)["sentences"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(text) for text in found]
