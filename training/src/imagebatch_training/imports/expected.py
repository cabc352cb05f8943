"""What a model's own code answers, from the CSV that `--expect` names."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import numpy as np

from imagebatch_training.errors import ConfigurationError, DataError
from imagebatch_training.imports.answers import Doubles
from imagebatch_training.imports.label_sets import LabelSets
from imagebatch_training.imports.pictures import Picture
from imagebatch_training.imports.scores import Scores, spread
from imagebatch_training.imports.truth import Answers

_IMAGE: Final = ("image", "image_id", "file", "filename", "file_name", "path", "uri", "name")
_LABEL: Final = ("label", "class", "prediction", "predicted", "label_1")
_UNTOLD: Final = -1
_LABELS: Final = ("labels", "classes", "tags")
_PROBABILITY: Final = ("probability", "score", "confidence", "probability_1")
_SCORE: Final = ("score", "value", "prediction", "predicted", "output")

Rows = list[dict[str, Any]]


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
    rows, image, head = _read(path)
    columns = {name: index for index, name in enumerate(labels) if name in head and labels.count(name) == 1}
    if not (columns or any(name in head for name in _LABEL)):
        raise _lacks(path, "a column label or one a class")
    classes = np.full(len(pictures), -1, dtype=np.int64)
    probabilities = np.full((len(pictures), len(labels)), np.nan)
    for position, row in _told(rows, image, pictures, path).items():
        said = _row(row, columns, labels, path.name)
        probabilities[position, list(said.probabilities)] = list(said.probabilities.values())
        classes[position] = said.label
    if (classes < 0).all():
        raise DataError(f"{path.name} names no class that one name has: give the indices of the classes")
    return Answers(path.name, classes, probabilities, agreement)


def read_label_sets(
    path: Path, pictures: Sequence[Picture], labels: Sequence[str], thresholds: Doubles, agreement: float
) -> LabelSets:
    """Read the labels that a model's own code gives to images, or their probabilities.

    Args:
        path: CSV with a header: an image's name, and a column for each class, called as the label or
            `probability_<label>`, with probabilities or with 0 and 1; or `labels`, with `|` between
            them; also the form of imagebatch's predictions.csv.
        pictures: See `read_expected`.
        labels: Of the classes.
        agreement: Share of images whose labels must be the same.
        thresholds: Probability from which on a label is one of an image's, float32 (classes,).

    Raises:
        ConfigurationError, DataError: See `read_expected`.
    """
    rows, image, head = _read(path)
    columns = {
        index: column
        for index, label in enumerate(labels)
        for column in (f"probability_{label}", label)
        if column in head
    }
    names = next((name for name in _LABELS if name in head), None)
    if names is None and len(columns) < len(labels):
        few = ", ".join(label for index, label in enumerate(labels) if index not in columns)[:80]
        raise _lacks(path, f"a column for each class, such as {few!r}, or labels with | between them")
    probabilities = np.full((len(pictures), len(labels)), np.nan)
    members = np.zeros((len(pictures), len(labels)), np.bool_)
    known = np.zeros(len(pictures), np.bool_)
    for position, row in _told(rows, image, pictures, path).items():
        known[position] = True
        for index, column in columns.items():
            probabilities[position, index] = _probability(row[column], path.name)
        if names is not None:
            members[position] = _members(row[names] or "", labels, path.name)
    if names is None:
        members = probabilities.astype(np.float32) >= thresholds
        if np.isin(probabilities[known], (0, 1)).all():  # the labels themselves, not their probabilities
            probabilities[:] = np.nan
    return LabelSets(path.name, known, members, probabilities, thresholds=thresholds, agreement=agreement)


def read_scores(path: Path, pictures: Sequence[Picture], widest: float, agreement: float) -> Scores:
    """Read the scores that a model's own code gives to images.

    Args:
        path: CSV with a header: an image's name, and its `score`.
        pictures: See `read_expected`.
        widest: From the lowest to the highest score that there can be; infinite where nobody says.
        agreement: Share of images whose score must be the same.

    Raises:
        ConfigurationError, DataError: See `read_expected`.
    """
    rows, image, head = _read(path)
    column = next((name for name in _SCORE if name in head), None)
    if column is None:
        raise _lacks(path, "a column score")
    scores = np.full(len(pictures), np.nan)
    for position, row in _told(rows, image, pictures, path).items():
        try:
            scores[position] = float(row[column])
        except (TypeError, ValueError):
            scores[position] = math.inf
        if not math.isfinite(scores[position]):
            raise DataError(f"{path.name}: {row[column]!r} is no score: write a number")
    return Scores(path.name, scores, spread(scores, widest, path.name), agreement)


def _read(path: Path) -> tuple[Rows, str, list[str]]:
    """Read a CSV: its rows, the column with the image's name, and all columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: Rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigurationError(f"--expect {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name} is no CSV in UTF-8: {error}") from error
    head = [name for name in (rows[0] if rows else {}) if name]
    image = next((name for name in _IMAGE if name in head), None)
    if image is None:
        raise _lacks(path, "what is answered to it")
    return rows, image, head


def _lacks(path: Path, what: str) -> DataError:
    return DataError(f"{path.name} must have a column {' or '.join(_IMAGE[:3])}, and {what}")


def _told(rows: Rows, image: str, pictures: Sequence[Picture], path: Path) -> dict[int, dict[str, Any]]:
    """Find the rows of images, by their position.

    Raises:
        DataError: None is of any.
    """
    told = {row[image]: row for row in rows}
    files = Counter(picture.path.name for picture in pictures)
    found = {}
    for position, picture in enumerate(pictures):
        name = picture.path.name
        row = told.get(picture.name) or (told.get(name) if files[name] == 1 else None)
        if row is not None:
            found[position] = row
    if not found:
        raise DataError(
            f"{path.name} tells of none of the {len(pictures)} images: its {image} is {rows[0][image]!r}, "
            f"a file here is {pictures[0].name!r}"
        )
    return found


def _members(text: str, labels: Sequence[str], file: str) -> list[bool]:
    """Read which labels are named, as they are or as predictions.csv writes them."""
    named = [part.strip() for part in text.split("|") if part.strip()]
    found = {part if part in labels else unquote(part) for part in named}
    unknown = sorted(found.difference(labels))
    if unknown:
        raise DataError(
            f"{file}: {unknown[0][:80]!r} is none of the model's {len(labels)} labels, such as "
            f"{labels[0]!r}: write | between labels"
        )
    return [label in found for label in labels]


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
    score = next((row[name] for name in _PROBABILITY if row.get(name)), None)
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
        raise DataError(
            f"{file}: {text!r} is no probability, 0 to 1: write them after the softmax or sigmoid"
        )
    return value
