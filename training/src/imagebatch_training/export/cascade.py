"""The margin of a precision cascade: below which difference of the two best logits float32 decides."""

import math
from typing import Any

import numpy as np

from imagebatch_training.export.refit import Matrix

_STEP = 1e-4
"""The margin is written with this step, rounded up."""


def fit_margin(cheap: Matrix, exact: Matrix, agreement: float) -> dict[str, Any]:
    """Find the smallest margin with which the cascade agrees often enough.

    Args:
        cheap: Held-out logits of the cheap precision, (images, classes), classes at least 2.
        exact: Logits of float32, the same shape.
        agreement: Share of images whose best class must be float32's, 0..1.

    Returns:
        The content of `cascade.json`: `margin`, the `agreement` asked for, the number of `images` and the
        share of them that is `repeated` in float32.
    """
    ordered = np.sort(cheap, axis=1)
    gaps = ordered[:, -1] - ordered[:, -2]
    wrong = np.sort(gaps[cheap.argmax(1) != exact.argmax(1)])
    # As many of the wrong ones, those with the widest gaps, may stay below notice.
    spared = math.floor(round((1 - agreement) * len(cheap), 9))
    repeated = wrong[: max(0, len(wrong) - spared)]
    margin = math.floor(float(repeated[-1]) / _STEP + 1) * _STEP if len(repeated) else 0.0
    share = float((gaps < margin).mean())
    return {
        "margin": round(margin, 4),
        "agreement": agreement,
        "images": len(cheap),
        "repeated": round(share, 4),
    }
