"""What every head can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from imagebatch.contracts.answers import Answer
from imagebatch.contracts.records import ModelPin

Floats = npt.NDArray[np.float32]


class NotAnAnswerError(ValueError):
    """Numbers that this model cannot have given for an image."""


class NoProbabilitiesError(NotAnAnswerError):
    """Numbers that are no probabilities: logits, perhaps."""


class AnswerRow(TypedDict):
    """The columns of SCORES_SCHEMA that hold an answer."""

    labels: list[str] | None
    probabilities: list[float] | None
    classes: list[int] | None
    score: float | None


NO_ANSWER: AnswerRow = {"labels": None, "probabilities": None, "classes": None, "score": None}
"""What a failed image has in their place."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What must be true of each value of a column.

    Attributes:
        column: Of the frame that `Head.frame` gives.
        within: Values that there may be; None: see `least` and `most`.
        least: Smallest value; None: any.
        most: Largest value; None: any.
        at_most: A column whose value in the same row is not smaller; empty: none.
    """

    column: str
    within: Sequence[object] | None = None
    least: float | None = None
    most: float | None = None
    at_most: str = ""


@dataclass(frozen=True, slots=True)
class DriftTests:
    """What of a head's answers is compared with the baseline: names of tests, by column of an observation.

    Attributes:
        mixes: Of categories.
        numbers: Of numbers.
        vectors: Of lists of numbers.
    """

    mixes: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    vectors: dict[str, str] = field(default_factory=dict)


class Shares(NamedTuple):
    """What is counted to find out that all images got one answer.

    Attributes:
        column: Of the frame: what is counted, as text.
        alike: What predictions with one value have in common, as in `at most 98 % may be of one class`.
    """

    column: str
    alike: str


class Overview(ABC):
    """What the report says about all predictions; tables with the columns of `Head.fields` are added.

    Attributes:
        template: The part of the page that shows it.
        queue: Predictions to look at: `image_id`, `title`, `figure`, `note`.
        queue_says: What they are.
        rows: Predictions.
        classes: Predictions by label.
        doubtful: Predictions marked for a person; None: the run marks none.
    """

    template: ClassVar[str]
    queue_says: ClassVar[str]

    def __init__(self, classes: Mapping[str, int]) -> None:
        self.rows = 0
        self.classes = dict(classes)
        self.doubtful: int | None = None
        self.queue: list[dict[str, Any]] = []

    @abstractmethod
    def add(self, table: pa.Table) -> None:
        """Take some of the predictions."""

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """Return the fields of a run's summary that the head has figures for."""

    def share_of(self, classes: Mapping[str, int], predictions: int) -> float:
        """Return what number of predictions counts by label are shares of."""
        del predictions
        return sum(classes.values())


class Head(ABC):
    """One kind of head, of one model.

    Args:
        model: What it declares.
        top_k: Labels per image, where their number can be chosen.
    """

    drift: ClassVar[DriftTests]
    shares: ClassVar[Shares]
    chooses_labels: ClassVar[bool] = False  # whether --top-k and --class-index say something
    certain_by: ClassVar[str] = ""  # what its `certainty` is, in words; empty: it has none

    def __init__(self, model: ModelPin, top_k: int) -> None:
        self.model = model
        self.top_k = top_k

    # Answers.

    def row(self, answer: Answer) -> AnswerRow:
        """Return an answer without a reason as it is kept: null for what the head does not give."""
        return {
            "labels": list(answer.labels) or None,
            "probabilities": list(answer.probabilities) or None,
            "classes": list(answer.classes) or None,
            "score": answer.score,
        }

    @abstractmethod
    def problem(self, row: Mapping[str, Any]) -> str:
        """Say what is impossible about an answer; empty if nothing is.

        The one rule for replies, for answers kept, and for what attempts left.

        Args:
            row: Keys of `AnswerRow`, with anything in them.
        """

    @abstractmethod
    def answer(self, values: Floats, *, logits: bool) -> Answer:
        """Make the answer of one image's numbers, as a server that knows no labels gives them.

        Args:
            values: Shape (outputs,).
            logits: Whether they are what the head is yet to be applied to.

        Raises:
            NotAnAnswerError: They cannot be.
        """

    @abstractmethod
    def named(self, answer: Answer) -> Answer:
        """Make the answer of one that names labels itself, as a server that knows them gives it.

        Raises:
            NotAnAnswerError: It cannot be.
        """

    @abstractmethod
    def known_by(self, answer: Answer) -> Floats:
        """Return an answer as numbers in which a difference of 0.01 is the least that matters."""

    @abstractmethod
    def off(self, expected: Answer, found: Answer) -> float:
        """Return how far an answer is from the one expected, in the unit of a golden set's tolerance."""

    @abstractmethod
    def words(self, answer: Answer) -> str:
        """Return an answer in a few words."""

    # Columns of predictions.

    @abstractmethod
    def fields(self) -> list[pa.Field]:
        """Return the columns of predictions that hold the answer."""

    @abstractmethod
    def values(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        """Return the values of `fields` of score rows with an answer."""

    def class_fields(self) -> list[pa.Field]:
        """Return the columns of --class-index."""
        return []

    def class_values(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        """Return the values of `class_fields` of score rows with an answer."""
        del rows
        return []

    def certainty(self, rows: pa.Table) -> pa.Array:
        """Return how sure the model is of each of some score rows: float32, 0 to 1, null without an answer.

        Raises:
            NotImplementedError: The head has no such figure: `certain_by` is empty.
        """
        raise NotImplementedError(f"{type(self).__name__} of {rows.num_rows} rows")

    def doubtful(self, rows: pa.Table, below: float) -> pa.Array:
        """Return whether a person should look at each of some score rows; null without an answer.

        Args:
            rows: Of SCORES_SCHEMA.
            below: The certainty below which one should; compared as float32, as probabilities are kept.
        """
        return pc.less(self.certainty(rows), pa.scalar(below, pa.float32()))

    # Checks.

    @abstractmethod
    def frame(self, rows: pa.Table) -> dict[str, pa.ChunkedArray | pa.Array]:
        """Return what the checks look at, by column, of score rows; null where there is no answer."""

    @abstractmethod
    def rules(self) -> list[Rule]:
        """Return what must be true of `frame`."""

    def share_rules(self) -> list[Rule]:
        """Return what must be true of the texts that are counted (`shares`), in the column `label`."""
        return []

    def alike(self, text: str) -> str:
        """Return in words what predictions with this text in the column of `shares` are."""
        return f"are {text}"

    # Drift, history, report.

    @abstractmethod
    def observed(self, table: pa.Table) -> list[dict[str, Any]]:
        """Return the answer's part of an observation for each prediction."""

    @abstractmethod
    def labels_in(self, table: pa.Table) -> list[str]:
        """Return every label of predictions, as often as it was predicted."""

    @abstractmethod
    def overview(self) -> Overview:
        """Return an overview with nothing in it yet."""


def ranked(lists: pa.ChunkedArray, rank: int) -> pa.ChunkedArray:
    """Return element `rank` (from 0) of each list; null where a list is null or shorter."""
    # Flattening drops null lists, so they are made empty first: every row must keep its place.
    whole = pc.coalesce(lists, pa.scalar([], lists.type))
    return pc.list_flatten(pc.list_slice(whole, rank, rank + 1, return_fixed_size_list=True))


def is_number(value: object) -> bool:
    """Tell whether a value is a number; to Python, True is one."""
    return isinstance(value, float | int) and not isinstance(value, bool)


def shortest(values: Floats) -> tuple[float, ...]:
    """Return float32 numbers as the numbers that are written shortest, as the handler writes them."""
    return tuple(float(str(value)) for value in values)


def require_finite(values: Floats, outputs: int, wanted: str) -> None:
    """Raise NotAnAnswerError unless there are as many finite numbers as the model gives."""
    if values.shape != (outputs,):
        raise NotAnAnswerError(f"{values.shape} numbers for {wanted}")
    if not np.isfinite(values).all():
        raise NotAnAnswerError(f"numbers that are not finite: {values[:5].tolist()}")
