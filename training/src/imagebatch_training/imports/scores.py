"""Which score images have by a regression, as somebody knows it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from imagebatch_training.errors import DataError
from imagebatch_training.imports.answers import Doubles
from imagebatch_training.imports.truth import TIE, Score, Told

SAME: Final = TIE
"""Difference of two scores, as a share of how far scores are spread, up to which they are the same."""
_MOST: Final = (5, 95)
"""Percentiles that scores are spread between: one that is far off shall not make all others alike."""
_ROUNDING: Final = 1e-6
_MOVES: Final = "a score moves by {:.3f} of their spread on average"


class Scores(Told):
    """Scores that the same model gives by other code.

    Args:
        by: Who gives them.
        scores: (images,), NaN where one is not told.
        scale: How far scores are spread, see `spread`.
        agreement: Share of images whose score must be the same.
    """

    def __init__(self, by: str, scores: Doubles, scale: float, agreement: float) -> None:
        super().__init__(agreement)
        self.by, self.scale, self._scores = by, scale, scores

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Those whose score is told."""
        return ~np.isnan(self._scores)

    def score(self, values: Doubles) -> Score:
        """Compare, see `Truth.score`."""
        known = self.known
        moved = np.abs(values[known, 0] - self._scores[known]) / self.scale
        same = int((moved <= SAME).sum())
        return Score(same, len(moved), float(moved.mean()), 0, float(moved.max()), _MOVES)

    def part(self, rows: Sequence[int]) -> "Scores":
        """Return some of it, measured as the whole."""
        return Scores(self.by, self._scores[list(rows)], self.scale, self.agreement)


def spread(scores: Doubles, widest: float, by: str) -> float:
    """Measure how far scores are spread.

    Args:
        scores: (images,), NaN where one is not told.
        widest: From the lowest to the highest score that there can be; infinite where nobody says.
        by: Who gives them.

    Raises:
        DataError: They are all alike, so that a wrong one could not be told.
    """
    found = scores[~np.isnan(scores)]
    low, high = np.percentile(found, _MOST)
    least = _ROUNDING * max(1.0, float(np.abs(found).max()))
    wide = float(high - low) if high - low > least else float(found.max() - found.min())
    if wide <= least:
        raise DataError(
            f"the score of all {len(found)} images by {by} is {float(found[0]):g}, which proves nothing: "
            "give images with different ones by --images"
        )
    return min(wide, widest)
