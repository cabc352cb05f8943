"""The sample of a run: the same for the same id, nested, and even."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from imagebatch.runs.sampling import sampled_positions


@pytest.mark.parametrize(("total", "images"), [(0, 5), (5, 0), (5, 5), (5, 9)])
def test_all_are_taken_where_no_fewer_are_asked_for(total: int, images: int) -> None:
    """Zero means all, and more than there are too."""
    assert sampled_positions("r", total, images) == list(range(total))


def test_a_sample_is_drawn_without_replacement_and_repeatable() -> None:
    """As many as asked for, rising, none twice, the same again, and another run's are others."""
    found = sampled_positions("r", 5000, 4999)
    assert len(set(found)) == 4999
    assert found == sorted(found)
    assert sampled_positions("r", 5000, 300) == sampled_positions("r", 5000, 300)
    assert sampled_positions("r", 5000, 300) != sampled_positions("s", 5000, 300)


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    """What was embedded while scoring is among what a report or a baseline looks at."""
    samples = [set(sampled_positions("night", 3000, images)) for images in (1, 100, 400, 1023, 1025, 2900)]
    assert all(small < large for small, large in itertools.pairwise(samples))


def test_every_image_has_the_same_chance() -> None:
    """Over 2,000 runs each of 50 images is drawn about equally often."""
    counts = np.zeros(50)
    for run in range(2000):
        counts[sampled_positions(f"run-{run}", 50, 10)] += 1
    assert counts.sum() == 20_000
    # Chi-squared with 49 degrees of freedom: 99.9 % are below 86.
    assert ((counts - 400) ** 2 / 400).sum() / (1 - 10 / 50) < 86
