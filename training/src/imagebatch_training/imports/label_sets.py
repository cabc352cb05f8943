"""Which labels images have by a multilabel model, as somebody knows it."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from imagebatch_training.imports.answers import Doubles
from imagebatch_training.imports.truth import TIE, Score, Told, largest_changes

Bools = npt.NDArray[np.bool_]
_NEAR: Final = 0.1
"""Mean distance of two classes' answers above which one does not stand for the other."""


class LabelSets(Told):
    """Labels that the same model gives by other code.

    Args:
        by: Who gives them.
        known: Of which images they are told, (images,).
        members: Whether a label is one of an image's, (images, classes).
        probabilities: (images, classes), NaN where one is not told.
        thresholds: Probability from which on a label is one of an image's, float32 (classes,).
        agreement: Share of images whose labels must be the same.
    """

    def __init__(
        self,
        by: str,
        known: Bools,
        members: Bools,
        probabilities: Doubles,
        *,
        thresholds: Doubles,
        agreement: float,
    ) -> None:
        super().__init__(agreement)
        self.by = by
        self._known, self._members, self._probabilities = known, members, probabilities
        self._thresholds = thresholds

    @property
    def known(self) -> Bools:
        """Those whose labels are told, none included."""
        return self._known

    def score(self, values: Doubles) -> Score:
        """Compare, see `Truth.score`; a label may be missing or too many where it is near its threshold."""
        known = self._known
        other = self._found(values)[known] != self._members[known]
        told = np.where(np.isnan(self._probabilities), values, self._probabilities)[known]
        near = np.abs(told - self._thresholds) < TIE
        same = ~other.any(1)
        ties = ~(other & ~near).any(1) & ~same
        worst = largest_changes(values[known], self._probabilities[known])
        moved, most = (float(worst.mean()), float(worst.max())) if len(worst) else (None, None)
        return Score(int(same.sum()), len(same), moved, int(ties.sum()), most)

    def part(self, rows: Sequence[int]) -> "LabelSets":
        """Return some of it."""
        chosen = list(rows)
        return LabelSets(
            self.by,
            self._known[chosen],
            self._members[chosen],
            self._probabilities[chosen],
            thresholds=self._thresholds,
            agreement=self.agreement,
        )

    def meant(self, values: Doubles) -> Mapping[int, int] | None:
        """Find for each class the one that is told the most alike, see `Truth.meant`."""
        known = self._known
        if np.isnan(self._probabilities[known]).any():
            answered, told = self._found(values)[known].astype(float), self._members[known].astype(float)
        else:
            answered, told = values[known], self._probabilities[known]
        apart = np.stack([np.abs(answered[:, [said]] - told).mean(0) for said in range(answered.shape[1])])
        alike = bool((apart.min(1) < _NEAR).all())
        return {said: int(row.argmin()) for said, row in enumerate(apart)} if alike else None

    def _found(self, values: Doubles) -> Bools:
        found: Bools = values.astype(np.float32) >= self._thresholds
        return found
