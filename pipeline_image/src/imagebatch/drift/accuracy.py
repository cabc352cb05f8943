"""An estimate of accuracy without labels: the mean of calibrated confidences.

Calibration is isotonic (B. Zadrozny, C. Elkan, KDD 2002), fitted on labelled images of the baseline. The
estimate is right as long as confidence means the same as it did there; a shift that makes the model wrong and
sure of itself is not seen by it, which is why it stands beside the drift tests and never replaces them.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.float64]

_RESAMPLES = 500
_INTERVAL = (2.5, 97.5)


class Calibration(BaseModel):
    """Probability of being right, by confidence: linear between points, constant beyond.

    Attributes:
        confidence: Rising, in [0, 1].
        probability: Not falling, in [0, 1].
        images: Labelled images that it was fitted on.
        accuracy: Their share of right answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence: list[float]
    probability: list[float]
    images: int
    accuracy: float

    def __call__(self, confidence: Floats) -> Floats:
        """Return the probabilities of being right: same shape."""
        return np.interp(confidence, self.confidence, self.probability)


def calibrate(confidence: Floats, right: npt.NDArray[np.bool_]) -> Calibration:
    """Fit a calibration.

    Args:
        confidence: Largest probability of each image, shape (images,).
        right: Whether its label was the true one, shape (images,).
    """
    from scipy.optimize import isotonic_regression  # noqa: PLC0415 (a third of a second, for baselines only)

    order = np.argsort(confidence, kind="stable")
    fitted = isotonic_regression(right[order].astype(float)).x
    steps = np.flatnonzero(np.diff(fitted, prepend=-1.0, append=2.0))
    groups = list(itertools.pairwise(steps))
    return Calibration(
        confidence=[round(float(confidence[order][start:end].mean()), 6) for start, end in groups],
        probability=[round(float(fitted[start]), 6) for start, _ in groups],
        images=len(right),
        accuracy=round(float(right.mean()), 6),
    )


def estimate(calibration: Calibration, confidence: Floats, seed: int = 0) -> dict[str, Any]:
    """Estimate the accuracy of answers whose true labels are not known.

    Returns:
        `accuracy`, `low` and `high` (95 %, from resampling these images and the calibration's own size),
        `baseline_accuracy`, `images`.
    """
    expected = calibration(confidence)
    chance = np.random.default_rng(seed)
    means = expected[chance.integers(0, len(expected), (_RESAMPLES, len(expected)))].mean(axis=1)
    share = calibration.accuracy
    means = means + chance.normal(0, np.sqrt(share * (1 - share) / calibration.images), _RESAMPLES)
    low, high = np.clip(np.percentile(means, _INTERVAL), 0, 1)
    return {
        "accuracy": round(float(expected.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "baseline_accuracy": round(share, 4),
        "images": len(confidence),
    }
