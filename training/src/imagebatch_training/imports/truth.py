"""What a model shall answer, as somebody knows it: its own code's answers, its publisher's, or labels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from imagebatch_training import metrics
from imagebatch_training.imports.answers import Doubles
from imagebatch_training.imports.pictures import Picture

MOVED: Final = 0.02
"""Mean change of a probability that resizing by another library explains; another preprocessing does not."""
TIE: Final = 0.05
"""Difference of two classes' probabilities below which rounding of pixels may choose the other one."""
SURE: Final = 1e-3
"""Chance at which a better accuracy is no accident any more, with a few dozen alternatives tried."""
_MOSTLY: Final = 0.8
"""Share of images that another order of the labels must put right, so that it is no accident."""


class Score(NamedTuple):
    """How answers fit what is known.

    Attributes:
        agreeing: Images with the answer that is known.
        images: All of them.
        moved: Mean change of the probabilities that are known, of a score in its `Truth.scale`; None where
            none is.
        ties: Images with another answer that is known to be as good.
        most: The largest such change.
        moves: What moves, in words.
    """

    agreeing: int
    images: int
    moved: float | None
    ties: int = 0
    most: float | None = None
    moves: str = "a probability moves by {:.3f} on average"

    def __str__(self) -> str:
        """Say it in a few words."""
        moved = "" if self.moved is None else f", {self.moves.format(self.moved)}"
        return f"{self.agreeing} of {self.images} images ({self.agreeing / self.images:.1%}){moved}"


class Truth(ABC):
    """Knowledge of images.

    Attributes:
        by: Who knows it.
        scale: What changes are measured in: 1 of a probability, of a score how far scores are spread.
    """

    by: str
    scale: float = 1.0

    @property
    @abstractmethod
    def known(self) -> npt.NDArray[np.bool_]:
        """Of which images something is known, (images,)."""

    @abstractmethod
    def score(self, values: Doubles) -> Score:
        """Compare what is answered, (images, classes) or (images, 1), with it."""

    @abstractmethod
    def holds(self, values: Doubles) -> bool:
        """Tell whether these can be the answers that it knows."""

    @abstractmethod
    def explains(self, other: Doubles, instead_of: Doubles) -> bool:
        """Tell whether other answers fit where these do not."""

    @abstractmethod
    def part(self, rows: Sequence[int]) -> Self:
        """Return what it knows of some of the images."""

    def meant(self, values: Doubles) -> Mapping[int, int] | None:
        """Tell which class each answered one mostly stands for; None where it cannot."""
        del values
        return None


class Told(Truth):
    """Answers of the same model by other code.

    Args:
        agreement: Share of images whose answer must be the same.
    """

    def __init__(self, agreement: float) -> None:
        self.agreement = agreement

    def holds(self, values: Doubles) -> bool:
        """Tell by both figures, see `Truth.holds`."""
        score = self.score(values)
        return score.agreeing + score.ties >= self.agreement * score.images and (score.moved or 0) <= MOVED

    def explains(self, other: Doubles, instead_of: Doubles) -> bool:
        """Tell, see `Truth.explains`."""
        return self.holds(other) and not self.holds(instead_of)


class Answers(Told):
    """Classes that the same model names by other code.

    Args:
        by: Who gives them.
        classes: Class index by image, -1 where it is not told.
        probabilities: (images, classes), NaN where one is not told.
        agreement: Share of images whose class must be the same.
    """

    def __init__(self, by: str, classes: metrics.Integers, probabilities: Doubles, agreement: float) -> None:
        super().__init__(agreement)
        self.by, self.classes = by, classes
        self._probabilities = probabilities

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Those whose class is told."""
        known: npt.NDArray[np.bool_] = self.classes >= 0
        return known

    def score(self, values: Doubles) -> Score:
        """Compare, see `Truth.score`."""
        known = self.known
        same = values.argmax(1)[known] == self.classes[known]
        worst = largest_changes(values, self._probabilities)
        ties = near_ties(self._probabilities, values)[known] & ~same
        return Score(
            int(same.sum()), len(same), float(np.mean(worst)) if len(worst) else None, int(ties.sum())
        )

    def part(self, rows: Sequence[int]) -> "Answers":
        """Return some of it."""
        chosen = list(rows)
        return Answers(self.by, self.classes[chosen], self._probabilities[chosen], self.agreement)

    def meant(self, values: Doubles) -> Mapping[int, int] | None:
        """Count, see `Truth.meant`."""
        return _meant(values, self.classes)


class Labels(Truth):
    """Classes of images, which a model need not get right.

    Args:
        by: Who gives them.
        classes: Class index by image.
    """

    def __init__(self, by: str, classes: metrics.Integers) -> None:
        self.by, self.classes = by, classes

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """All."""
        known: npt.NDArray[np.bool_] = self.classes >= 0
        return known

    def score(self, values: Doubles) -> Score:
        """Count, see `Truth.score`."""
        return Score(int((values.argmax(1) == self.classes).sum()), len(self.classes), None)

    def holds(self, values: Doubles) -> bool:  # noqa: ARG002 - the same for all knowledge
        """Hold always: only another answer that is better says that something is wrong."""
        return True

    def explains(self, other: Doubles, instead_of: Doubles) -> bool:
        """Tell by a sign test whether the other answers are right more often, and that is no accident."""
        better = other.argmax(1) == self.classes
        now = instead_of.argmax(1) == self.classes
        gained, lost = int((better & ~now).sum()), int((now & ~better).sum())
        tosses = gained + lost
        chance = sum(math.comb(tosses, k) for k in range(gained, tosses + 1)) / 2**tosses
        return gained > lost and chance < SURE

    def part(self, rows: Sequence[int]) -> "Labels":
        """Return some of it."""
        return Labels(self.by, self.classes[list(rows)])

    def meant(self, values: Doubles) -> Mapping[int, int] | None:
        """Count, see `Truth.meant`."""
        return _meant(values, self.classes)


def largest_changes(values: Doubles, told: Doubles) -> Doubles:
    """Return of each image the change of the class that moves most, as in a certificate of parity.

    Args:
        values: Probabilities (images, classes).
        told: The same, NaN where one is not told; images of which none is are left out.
    """
    moved = np.abs(values - told)
    found: Doubles = np.nanmax(moved[~np.isnan(moved).all(1)], axis=1, initial=0.0)
    return found


def _meant(values: Doubles, classes: metrics.Integers) -> Mapping[int, int] | None:
    """Tell which class each answered one mostly stands for; None where that puts few images right."""
    counts = np.zeros((values.shape[1],) * 2, dtype=np.int64)
    np.add.at(counts, (values.argmax(1), classes), 1)
    meant = {said: int(row.argmax()) for said, row in enumerate(counts) if row.any()}
    right = sum(int(counts[said, index]) for said, index in meant.items())
    return meant if right >= _MOSTLY * len(values) else None


def near_ties(wanted: Doubles, answers: Doubles) -> npt.NDArray[np.bool_]:
    """Tell which images' best class is, by what is wanted, no worse than the best but for `TIE`.

    Args:
        wanted: Probabilities (images, classes), NaN where one is not known: then there is no tie.
        answers: Probabilities or logits (images, classes).
    """
    rows = np.arange(len(wanted))
    best = np.where(np.isnan(wanted), -1.0, wanted).max(1)
    near: npt.NDArray[np.bool_] = best - wanted[rows, answers.argmax(1)] < TIE
    return near


def known_by_folders(pictures: Sequence[Picture], labels: Sequence[str]) -> Labels | None:
    """Take the folders of images as their classes; None where a folder is no class's."""
    index = {name: position for position, name in enumerate(labels)}
    if not all(picture.folder in index for picture in pictures):
        return None
    return Labels("the images' folders", np.array([index[picture.folder] for picture in pictures]))
