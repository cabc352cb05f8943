"""Find changes in a series of one figure per run: of level, of slope, by weekday. Statistics only, no words.

A change counts when a permutation test says that shuffled runs hardly ever show one as large. Shuffling takes
runs to be independent of each other. Where consecutive runs are correlated, the statistic is scaled down,
because means of correlated values vary more (G. V. Bayley, J. M. Hammersley, 1946). Measured false alarms:
docs/how-to/history.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# Fewer runs than this carry no trend; for weekdays, three of each.
LEAST_RUNS = 14
_LEAST_PER_WEEKDAY = 3
# Runs on either side of a change of level.
LEAST_SEGMENT = 4
_MOST_CHANGES = 3
_WEEK = 7
# Shuffles at a time; a test that shows no promise ends with the first of them.
_SHUFFLES = 999
_HOPELESS = 10


@dataclass(frozen=True, slots=True)
class LevelChange:
    """The mean goes from `before` to `after`, first seen in run number `at` (from 0)."""

    at: int
    before: float
    after: float
    p: float


@dataclass(frozen=True, slots=True)
class Slope:
    """A steady change: from `first` to `last` over the whole series."""

    first: float
    last: float
    p: float


@dataclass(frozen=True, slots=True)
class Weekly:
    """Weekdays (0: Monday) whose mean is `difference` away from that of the other days."""

    weekdays: tuple[int, ...]
    difference: float
    mean: float
    p: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What was found in one series."""

    levels: tuple[LevelChange, ...]
    slope: Slope | None
    weekly: Weekly | None


def changes(values: Floats, days: Sequence[datetime], alpha: float, seed: int = 0) -> Changes:
    """Find what has changed in a series.

    Args:
        values: One per run, oldest first; shape (runs,).
        days: When each run began.
        alpha: Probability of finding anything in a series without a change.
        seed: Of the permutations.
    """
    nothing = Changes((), None, None)
    if len(values) < LEAST_RUNS or np.ptp(values) == 0:
        return nothing
    each = alpha / 3  # level, slope and weekday: any of them is an alarm
    chance = np.random.default_rng(seed)
    weekdays = np.array([day.weekday() for day in days])
    levels, weekly = _levels(values, each, chance), None
    # A weekly pattern hides a change of level, and the other way round: each is sought in what the other
    # leaves.
    for _ in range(2):
        weekly = _weekly(values - _step(values, levels) + values.mean(), weekdays, each, chance)
        levels = _levels(values - _pattern(weekly, weekdays), each, chance)
    rest = values - _pattern(weekly, weekdays)
    slope = _slope(rest, each, chance)
    if slope and levels:
        # One of the two explains it: the one that leaves less; a step takes two parameters more.
        if _unexplained(rest, levels) * 1.1 < _unexplained_by_line(rest):
            slope = None
        else:
            levels = ()
    return Changes(tuple(levels), slope, weekly)


def _levels(values: Floats, alpha: float, chance: np.random.Generator) -> tuple[LevelChange, ...]:
    """Place changes of level one after the other (binary segmentation), as long as a test accepts them."""
    accepted: list[int] = []
    p_of: dict[int, float] = {}
    open_segments = [(0, len(values))]
    while open_segments and len(accepted) < _MOST_CHANGES:
        start, end = open_segments.pop(0)
        segment = values[start:end]
        if len(segment) < 2 * LEAST_SEGMENT or np.ptp(segment) == 0:
            continue
        at = best_split(segment)
        fitted = np.where(np.arange(len(segment)) < at, segment[:at].mean(), segment[at:].mean())
        p = _p_value(segment, _best_gain, _independence(segment - fitted), alpha, chance)
        if p <= alpha:
            at += start
            accepted.append(at)
            p_of[at] = p
            open_segments += [(start, at), (at, end)]
    edges = [0, *sorted(accepted), len(values)]
    means = [float(values[a:b].mean()) for a, b in itertools.pairwise(edges)]
    return tuple(
        LevelChange(at, means[index], means[index + 1], p_of[at]) for index, at in enumerate(edges[1:-1])
    )


def _p_value(
    values: Floats,
    statistic: Callable[[Floats], Floats],
    weight: float,
    alpha: float,
    chance: np.random.Generator,
) -> float:
    """Estimate how often shuffled values show a change as large as these values do.

    Args:
        values: Shape (runs,).
        statistic: Of rows of values, shape (rows, runs); the larger the more of a change.
        weight: What the values' own statistic is multiplied with.
        alpha: Below which p-values matter: there are enough shuffles to reach it.
        chance: Source of the shuffles.
    """
    seen = float(statistic(values[None])[0]) * weight
    done = at_least = 0
    wanted = math.ceil(2 / alpha)
    while done < wanted and at_least < _HOPELESS:
        shuffled = chance.permuted(np.tile(values, (_SHUFFLES, 1)), axis=1)
        at_least += int((statistic(shuffled) >= seen - 1e-12).sum())
        done += _SHUFFLES
    return (1 + at_least) / (1 + done)


def _independence(rest: Floats) -> float:
    """Return the factor for a squared mean of correlated values, in (0, 1]; 1 for independent ones."""
    total = float(rest @ rest)
    resemblance = float(rest[1:] @ rest[:-1]) / total if total else 0.0
    resemblance = min(max(resemblance, 0.0), 0.95)
    return (1 - resemblance) / (1 + resemblance)


def best_split(values: Floats) -> int:
    """Return the number of the first run of the second level, where two levels explain a series best.

    Args:
        values: Shape (runs,), at least `2 * LEAST_SEGMENT`. Of several places that explain it as well, the
            first is returned.
    """
    return LEAST_SEGMENT + int(np.argmax(_gains(values[None])))


def _best_gain(rows: Floats) -> Floats:
    """Return the gain of the best split of each row: shape (rows,)."""
    best: Floats = _gains(rows).max(axis=1)
    return best


def _gains(rows: Floats) -> Floats:
    """Return how much less squared error two levels leave than one, for every place to split at.

    Returns:
        Shape (rows, places): the first place has `LEAST_SEGMENT` runs on its left, the last one on its right.
    """
    size = rows.shape[1]
    left = np.arange(LEAST_SEGMENT, size - LEAST_SEGMENT + 1)
    sums = np.cumsum(rows - rows.mean(axis=1, keepdims=True), axis=1)[:, left[0] - 1 : left[-1]]
    gains: Floats = sums**2 * size / (left * (size - left))
    return gains


def _slope(values: Floats, alpha: float, chance: np.random.Generator) -> Slope | None:
    time = np.arange(len(values)) - (len(values) - 1) / 2
    line = np.polyval(np.polyfit(time, values, 1), time)
    p = _p_value(values, lambda rows: (rows @ time) ** 2, _independence(values - line), alpha, chance)
    if p > alpha:
        return None
    slope = float(time @ values / (time @ time))
    mean = float(values.mean())
    return Slope(mean + slope * time[0], mean + slope * time[-1], p)


def _weekly(values: Floats, weekdays: Integers, alpha: float, chance: np.random.Generator) -> Weekly | None:
    present = [day for day in range(_WEEK) if (weekdays == day).sum() >= _LEAST_PER_WEEKDAY]
    if len(present) < 2:  # noqa: PLR2004 (a pattern needs another day to differ from)
        return None
    groups = np.stack([(weekdays == day) / (weekdays == day).sum() for day in present])
    sizes = np.array([(weekdays == day).sum() for day in present])
    means = groups @ (values - values.mean())
    p = _p_value(
        values - values.mean(), lambda rows: ((rows @ groups.T) ** 2 * sizes).sum(axis=1), 1.0, alpha, chance
    )
    if p > alpha:
        return None
    # The days that stand out: the largest gap between the sorted means parts them from the others.
    order = np.argsort(means)
    cut = int(np.argmax(np.diff(means[order]))) + 1
    low, high = order[:cut], order[cut:]
    odd = low if len(low) <= len(high) else high
    days = tuple(sorted(present[int(at)] for at in odd))
    inside = np.isin(weekdays, days)
    difference = float(values[inside].mean() - values[~inside].mean())
    return Weekly(days, difference, float(values[~inside].mean()), p)


def _pattern(weekly: Weekly | None, weekdays: Integers) -> Floats:
    if weekly is None:
        return np.zeros(len(weekdays))
    return np.where(np.isin(weekdays, weekly.weekdays), weekly.difference, 0.0)


def _step(values: Floats, levels: Sequence[LevelChange]) -> Floats:
    edges = [0, *(level.at for level in levels), len(values)]
    parts = [np.full(b - a, values[a:b].mean()) for a, b in itertools.pairwise(edges)]
    return np.concatenate(parts)


def _unexplained(values: Floats, levels: Sequence[LevelChange]) -> float:
    return float(((values - _step(values, levels)) ** 2).sum())


def _unexplained_by_line(values: Floats) -> float:
    time = np.arange(len(values))
    return float(((values - np.polyval(np.polyfit(time, values, 1), time)) ** 2).sum())
