"""Where a series is split in two, against an oracle that tries every place."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from imagebatch.history.change_points import LEAST_SEGMENT, best_split


def left_by_two_levels(values: Sequence[float], at: int) -> float:
    """The squared error that is left when each part has a level of its own; in exact sums."""
    parts = (values[:at], values[at:])
    return math.fsum((value - statistics.fmean(part)) ** 2 for part in parts for value in part)


@pytest.mark.parametrize("step", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("scale", [(0.0, 1.0), (1e6, 0.01)])
def test_no_place_leaves_less_than_the_one_found(step: float, scale: tuple[float, float]) -> None:
    """Proves on 60 random series each, noise and steps, that every other place leaves a larger error."""
    chance = np.random.default_rng(5)
    mean, spread = scale
    for _ in range(60):
        runs = int(chance.integers(2 * LEAST_SEGMENT, 60))
        values = chance.normal(size=runs)
        values[int(chance.integers(runs)) :] += step
        series = mean + spread * values
        left = {
            at: left_by_two_levels(series.tolist(), at)
            for at in range(LEAST_SEGMENT, runs - LEAST_SEGMENT + 1)
        }
        assert best_split(series) == min(left, key=left.__getitem__)


def test_of_equally_good_places_the_first_is_taken() -> None:
    """Proves it on a series that reads the same from both ends."""
    assert best_split(np.array([0.0] * 4 + [1.0] * 6 + [0.0] * 4)) == LEAST_SEGMENT
