"""An image is blamed when its failures are more than the server's own."""

from __future__ import annotations

import pytest
from imagebatch.scorer.reliability import Reliability


@pytest.mark.parametrize(
    ("good", "failed", "fewest"),
    [(15, 0, 4), (64, 0, 3), (63, 1, 4), (32, 32, 20), (6, 58, 132)],
)
def test_how_many_failures_are_more_than_chance(good: int, failed: int, fewest: int) -> None:
    """The more good requests fail, the more often an image must: a chance below one in a million."""
    reliability = Reliability()
    for _ in range(good):
        reliability.answered()
    reliability.failed(failed)
    assert next(failures for failures in range(1, 1000) if reliability.blames(failures)) == fewest


def test_nobody_is_blamed_before_the_server_is_known() -> None:
    """Fourteen good answers are too few."""
    reliability = Reliability()
    for _ in range(14):
        reliability.answered()
    assert (reliability.known, reliability.blames(1000)) == (False, False)


def test_a_server_that_has_recovered_is_a_good_one_again() -> None:
    """Only the last requests count."""
    reliability = Reliability()
    reliability.failed(1000)
    assert reliability.share > 0.99
    for _ in range(64):
        reliability.answered()
    assert reliability.share < 0.01
