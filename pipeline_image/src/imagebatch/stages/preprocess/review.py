"""The certainty below which a run marks predictions for a person."""

from __future__ import annotations

from imagebatch.errors import ConfigurationError
from imagebatch.heads.base import Head
from imagebatch.settings.values import AUTO


def review_below(asked: str, head: Head) -> float | None:
    """Return the certainty below which a person should look; None where nobody is asked to.

    Raises:
        ConfigurationError: The head has no such figure, or the model declares no threshold.
    """
    pin = head.model
    if not asked:
        return None
    if not head.certain_by:
        raise ConfigurationError(
            f"--review-below wants a probability; the head of {pin.name} is a {pin.head}: leave it out"
        )
    if asked != AUTO:
        return float(asked)
    if pin.review is None:
        raise ConfigurationError(
            f"--review-below auto: {pin.name} {pin.version} declares no threshold; give a number, or make the"
            " archive with release.review_accuracy (docs/how-to/review.md)"
        )
    return pin.review
