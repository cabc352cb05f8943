"""What a model shall answer, as somebody knows it: its own code's answers, its publisher's, or labels."""

import csv
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imagebatch_training import metrics
from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.imports.answers import Doubles
from imagebatch_training.imports.pictures import Picture

MOVED: Final = 0.02
"""Mean change of a probability that resizing by another library explains; another preprocessing does not."""
TIE: Final = 0.05
"""Difference of two classes' probabilities below which rounding of pixels may choose the other one."""
SURE: Final = 1e-3
"""Chance at which a better accuracy is no accident any more, with a few dozen alternatives tried."""
_IMAGE: Final = ("image", "image_id", "file", "filename", "file_name", "path", "uri", "name")
_LABEL: Final = ("label", "class", "prediction", "predicted", "label_1")
_UNTOLD: Final = -1
_SCORE: Final = ("probability", "score", "confidence", "probability_1")


class Score(NamedTuple):
    """How answers fit what is known.

    Attributes:
        agreeing: Images with the class that is known.
        images: All of them.
        moved: Mean change of the probabilities that are known; None where none is.
        ties: Images with another class that is known to be as good as the best.
    """

    agreeing: int
    images: int
    moved: float | None
    ties: int = 0

    def __str__(self) -> str:
        """Say it in a few words."""
        moved = "" if self.moved is None else f", a probability moves by {self.moved:.3f} on average"
        return f"{self.agreeing} of {self.images} images ({self.agreeing / self.images:.1%}){moved}"


class Truth(ABC):
    """Knowledge of images.

    Attributes:
        by: Who knows it.
        classes: Class index by image, -1 where it is not known.
    """

    by: str
    classes: metrics.Integers

    @abstractmethod
    def score(self, probabilities: Doubles) -> Score:
        """Compare probabilities (images, classes) with it."""

    @abstractmethod
    def holds(self, probabilities: Doubles) -> bool:
        """Tell whether these can be the answers that it knows."""

    @abstractmethod
    def explains(self, other: Doubles, instead_of: Doubles) -> bool:
        """Tell whether other answers fit where these do not."""

    @abstractmethod
    def part(self, rows: Sequence[int]) -> "Truth":
        """Return what it knows of some of the images."""


class Answers(Truth):
    """Answers of the same model by other code.

    Args:
        by: Who gives them.
        classes: Class index by image, -1 where it is not told.
        probabilities: (images, classes), NaN where one is not told.
        agreement: Share of images whose class must be the same.
    """

    def __init__(self, by: str, classes: metrics.Integers, probabilities: Doubles, agreement: float) -> None:
        self.by, self.classes = by, classes
        self._probabilities, self._agreement = probabilities, agreement

    def score(self, probabilities: Doubles) -> Score:
        """Compare, see `Truth.score`."""
        known = self.classes >= 0
        same = probabilities.argmax(1)[known] == self.classes[known]
        told = ~np.isnan(self._probabilities)
        moved = np.abs(probabilities - self._probabilities)
        # As in a certificate of parity: of each image the class that moves most.
        worst = [float(row[there].max()) for row, there in zip(moved, told, strict=True) if there.any()]
        ties = near_ties(self._probabilities, probabilities)[known] & ~same
        return Score(int(same.sum()), len(same), float(np.mean(worst)) if worst else None, int(ties.sum()))

    def holds(self, probabilities: Doubles) -> bool:
        """Tell by both figures, see `Truth.holds`."""
        score = self.score(probabilities)
        return score.agreeing + score.ties >= self._agreement * score.images and (score.moved or 0) <= MOVED

    def explains(self, other: Doubles, instead_of: Doubles) -> bool:
        """Tell, see `Truth.explains`."""
        return self.holds(other) and not self.holds(instead_of)

    def part(self, rows: Sequence[int]) -> "Answers":
        """Return some of it."""
        chosen = list(rows)
        return Answers(self.by, self.classes[chosen], self._probabilities[chosen], self._agreement)


class Labels(Truth):
    """Classes of images, which a model need not get right.

    Args:
        by: Who gives them.
        classes: Class index by image.
    """

    def __init__(self, by: str, classes: metrics.Integers) -> None:
        self.by, self.classes = by, classes

    def score(self, probabilities: Doubles) -> Score:
        """Count, see `Truth.score`."""
        return Score(int((probabilities.argmax(1) == self.classes).sum()), len(self.classes), None)

    def holds(self, probabilities: Doubles) -> bool:  # noqa: ARG002 - the same for all knowledge
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


def read_expected(
    path: Path, pictures: Sequence[Picture], labels: Sequence[str], agreement: float
) -> Answers:
    """Read what a model's own code answers.

    Args:
        path: CSV with a header: an image's name, and its class (`label`), its class's `probability`, or a
            column of probabilities for each class; also the form of imagebatch's predictions.csv.
        pictures: Images, by whose names below their folder, or file names that only one has, rows are found.
        labels: Of the classes; rows may have their indices instead. A name of two tells of none.
        agreement: Share of images whose class must be the same.

    Raises:
        ConfigurationError: The file cannot be read.
        DataError: It has not these columns, or tells nothing of any of the images.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigurationError(f"--expect {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name} is no CSV in UTF-8: {error}") from error
    head = [name for name in (rows[0] if rows else {}) if name]
    image = next((name for name in _IMAGE if name in head), None)
    columns = {name: index for index, name in enumerate(labels) if name in head and labels.count(name) == 1}
    if image is None or not (columns or any(name in head for name in _LABEL)):
        raise DataError(
            f"{path.name} must have a column {' or '.join(_IMAGE[:3])}, and a column label or one a class"
        )
    told = {row[image]: row for row in rows}
    files = Counter(picture.path.name for picture in pictures)
    classes = np.full(len(pictures), -1, dtype=np.int64)
    probabilities = np.full((len(pictures), len(labels)), np.nan)
    for position, picture in enumerate(pictures):
        name = picture.path.name
        row = told.get(picture.name) or (told.get(name) if files[name] == 1 else None)
        if row is not None:
            said = _row(row, columns, labels, path.name)
            probabilities[position, list(said.probabilities)] = list(said.probabilities.values())
            classes[position] = said.label
    if (classes < 0).all():
        raise DataError(
            f"{path.name} tells of none of the {len(pictures)} images: its {image} is {rows[0][image]!r}, "
            f"a file here is {pictures[0].name!r}"
        )
    return Answers(path.name, classes, probabilities, agreement)


class _Said(NamedTuple):
    label: int
    probabilities: Mapping[int, float]


def _row(row: Mapping[str, Any], columns: Mapping[str, int], labels: Sequence[str], file: str) -> _Said:
    if columns:
        found = {index: _probability(row[name], file) for name, index in columns.items()}
        named = next((row[name] for name in _LABEL if row.get(name)), None)
        best = max(found, key=lambda index: found[index])
        if named is None and 1 - sum(found.values()) > found[best]:
            best = _UNTOLD  # a class without a column may be the best
        return _Said(best if named is None else _class(named, labels, file), found)
    label = _class(next(row[name] for name in _LABEL if name in row), labels, file)
    score = next((row[name] for name in _SCORE if row.get(name)), None)
    found = {} if score is None else {label: _probability(score, file)}
    rank = 2
    while row.get(f"label_{rank}") and row.get(f"probability_{rank}"):
        found[_class(row[f"label_{rank}"], labels, file)] = _probability(row[f"probability_{rank}"], file)
        rank += 1
    found.pop(_UNTOLD, None)
    return _Said(label, found)


def _class(text: str | None, labels: Sequence[str], file: str) -> int:
    text = text or ""  # of a row that ends early
    if text in labels:  # of two classes of one name, as ImageNet's cranes, none is told by it
        return labels.index(text) if labels.count(text) == 1 else _UNTOLD
    if text.isascii() and text.isdigit() and int(text) < len(labels):
        return int(text)
    raise DataError(f"{file}: {text!r} is none of the model's {len(labels)} classes, such as {labels[0]!r}")


def _probability(text: str, file: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 1:
        raise DataError(f"{file}: {text!r} is no probability, 0 to 1: write them after the softmax")
    return value
