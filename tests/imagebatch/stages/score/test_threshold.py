"""When scoring stops early."""

from __future__ import annotations

import pytest
from imagebatch.errors import DataRefusedError
from imagebatch.stages.score.threshold import Threshold


def test_more_failures_than_allowed_stop_with_a_summary() -> None:
    """Rejects count too, and the text says what failed how often."""
    threshold = Threshold(allowed=3, rejected=1, in_a_row=0)
    threshold.add(["truncated", None, "quarantined"])
    with pytest.raises(
        DataRefusedError, match=r"3 failed \(truncated 2, quarantined 1\) and 1 rejected images, 3"
    ):
        threshold.add([None, "truncated"])


def test_predictions_between_failures_reset_the_row() -> None:
    """Only failures without a prediction between them count as in a row."""
    threshold = Threshold(allowed=100, rejected=0, in_a_row=2)
    for _ in range(5):
        threshold.add(["truncated", "truncated", None])
    with pytest.raises(DataRefusedError, match="3 failures in a row"):
        threshold.add(["truncated", "truncated", "truncated"])


def test_rejects_alone_do_not_stop_scoring() -> None:
    """Too many rejects are the manifest gate's to refuse."""
    Threshold(allowed=0, rejected=5, in_a_row=0).add([None, None])


def test_what_would_stop_can_be_asked_without_counting() -> None:
    """Asking leaves the counts as they are."""
    threshold = Threshold(allowed=1, rejected=0, in_a_row=0)
    assert not threshold.tolerates(["truncated", "truncated"])
    assert threshold.tolerates(["truncated"])
    threshold.add(["truncated"])
