"""Accuracy with its interval, from labels of a random sample of a run."""

from __future__ import annotations

from scipy.stats import binomtest

from imagebatch.review.record import MeasuredAccuracy


def measured(sample: int, labelled: int, right: int) -> MeasuredAccuracy | None:
    """Estimate a run's accuracy.

    People leave out what is hard to tell, so that the images without a label are no random part of the
    sample: the interval reaches from where all of them would be wrong to where all would be right.

    Args:
        sample: Images drawn at random.
        labelled: Of these, those with a label.
        right: Of these, those whose label is the model's.

    Returns:
        The estimate; None if no image has a label.
    """
    if not labelled:
        return None
    low, _ = wilson(right, sample)
    _, high = wilson(right + sample - labelled, sample)
    return MeasuredAccuracy(
        sample=sample,
        labelled=labelled,
        right=right,
        accuracy=round(right / labelled, 6),
        low=round(low, 6),
        high=round(high, 6),
    )


def wilson(right: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (E. B. Wilson, JASA 1927).

    Args:
        right: Images that count.
        images: All of them, at least one.
    """
    found = binomtest(right, images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
