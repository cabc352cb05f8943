"""What has changed over the runs of a pipeline, in sentences with figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from imagebatch.history.change_points import Changes, changes
from imagebatch.history.summary import RunSummary

_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
# A figure is looked at if at least this share of the runs has it.
_KNOWN = 0.8
_MOST_CLASSES = 12

Figure = Callable[[RunSummary], float | None]
Kind = Literal["level", "slope", "weekly"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One change.

    Attributes:
        figure: What has changed, such as `throughput`.
        kind: How: a step, steadily, or by weekday.
        rises: Upwards, or higher on the weekdays named.
        run_id: The first run of the new level; the newest run for the other kinds.
        p: Share of shuffled histories that show a change at least as large.
        text: A sentence.
    """

    figure: str
    kind: Kind
    rises: bool
    run_id: str
    p: float
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """A figure over the runs: how it is called and written."""

    name: str
    unit: str
    value: Figure


def findings(runs: list[RunSummary], alpha: float) -> tuple[int, list[Finding]]:
    """Look for changes over runs.

    Args:
        runs: Of one pipeline, oldest first.
        alpha: Probability of any finding where nothing has changed.

    Returns:
        How many figures were looked at, and what was found, the most certain first.
    """
    usable = [one for one in series_of(runs) if _known(runs, one.value) >= _KNOWN * len(runs)]
    found: list[Finding] = []
    for one in usable:
        taken = [(run, value) for run in runs if (value := one.value(run)) is not None]
        values = np.array([value for _, value in taken], np.float64)
        days = [run.started for run, _ in taken]
        # Bonferroni over the figures: `alpha` is the probability of any sentence where nothing has changed.
        outcome = changes(values, days, alpha / len(usable))
        found += _of_one(one, outcome, [run for run, _ in taken])
    return len(usable), sorted(found, key=lambda one: (one.p, one.text))


def series_of(runs: list[RunSummary]) -> list[Series]:
    """Return every figure that is looked at: throughput, failures, classes, confidence, drift."""
    labels = {label: sum(run.classes.get(label, 0) for run in runs) for run in runs for label in run.classes}
    classes = sorted(labels, key=lambda label: -labels[label])[:_MOST_CLASSES]
    return [
        Series("throughput", "images/s", lambda run: run.images_per_second),
        Series("share without a prediction", "%", lambda run: run.failure_share * 100),
        Series("mean confidence", "", lambda run: run.confidence),
        Series("share of unsure predictions", "%", lambda run: _times(run.unsure, 100)),
        Series("share of predictions to review", "%", lambda run: _times(run.review_share, 100)),
        Series("labels per image", "", lambda run: run.labels_per_image),
        Series("share of predictions without a label", "%", lambda run: _times(run.unlabelled, 100)),
        Series("mean score", "", lambda run: run.score_mean),
        Series("95th percentile of the scores", "", lambda run: run.score_high),
        Series("drift from the baseline", "", lambda run: run.drift),
        Series("estimated accuracy", "%", lambda run: _times(run.estimated_accuracy, 100)),
        Series("brightness", "", lambda run: run.brightness),
        Series("number of images", "images", lambda run: float(run.listed)),
        *(Series(f"share of {label}", "%", _share_of(label)) for label in classes),
    ]


def _of_one(series: Series, outcome: Changes, runs: list[RunSummary]) -> list[Finding]:
    found = []
    name, newest = series.name, runs[-1].run_id

    def put(value: float) -> str:
        return _figure(value, series.unit)

    for level in outcome.levels:
        run, rises = runs[level.at], level.after > level.before
        change = f" ({(level.after / level.before - 1) * 100:+.0f} %)" if level.before else ""
        text = (
            f"The {name} {'rose' if rises else 'fell'} from {put(level.before)} to {put(level.after)}{change}"
            f" with run {run.run_id} of {run.started:%a %-d %b %Y}"
        )
        found.append(Finding(name, "level", rises, run.run_id, level.p, text))
    if outcome.slope:
        first, last = outcome.slope.first, outcome.slope.last
        verb = "rises" if last > first else "falls"
        text = f"The {name} {verb} steadily, from {put(first)} to {put(last)} over {len(runs)} runs"
        found.append(Finding(name, "slope", last > first, newest, outcome.slope.p, text))
    if outcome.weekly:
        weekly = outcome.weekly
        days = " and ".join(_DAYS[day] for day in weekly.weekdays)
        side = "higher" if weekly.difference > 0 else "lower"
        text = (
            f"The {name} is {side} on {days}: {put(weekly.mean + weekly.difference)},"
            f" on other days {put(weekly.mean)}"
        )
        found.append(Finding(name, "weekly", weekly.difference > 0, newest, weekly.p, text))
    return [replace(one, text=f"{one.text} (p {_p(one.p)}).") for one in found]


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
