"""One number per image, with a name, a unit and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from imagebatch.contracts.answers import Answer
from imagebatch.contracts.records import ModelPin, Quantity, Reason
from imagebatch.heads.base import (
    DriftTests,
    Floats,
    Head,
    NotAnAnswerError,
    Overview,
    Rule,
    Shares,
    is_number,
    require_finite,
    shortest,
)

SCORE = "score"
BINS = 20
_EACH_END = 12
# Of a score without both limits: a thousandth of it, or of a unit, is what matters.
_FINEST = 1e-3
_GREATEST = float(np.finfo(np.float32).max)


class Regression(Head):
    """The head of a model that measures."""

    drift = DriftTests(numbers={"score": "score"})
    shares = Shares("score_text", "of one score")

    def __init__(self, model: ModelPin, top_k: int) -> None:
        super().__init__(model, top_k)
        if model.quantity is None:
            msg = "a regression needs a quantity"
            raise ValueError(msg)
        self.quantity: Quantity = model.quantity
        # As float32, as scores are kept: whoever compares finds the same.
        lowest, highest = self.quantity.lowest, self.quantity.highest
        self._lowest = np.float32(-math.inf if lowest is None else lowest)
        self._highest = np.float32(math.inf if highest is None else highest)

    @override
    def problem(self, row: Mapping[str, Any]) -> str:
        score = row["score"]
        if any(row[name] is not None for name in ("labels", "probabilities", "classes")):
            return "labels in place of a score"
        if not is_number(score):
            return "no score"
        if not abs(score) <= _GREATEST:  # true for NaN, too
            return f"a score that is not finite: {str(score)[:40]}"
        value = np.float32(score)
        return "" if self._lowest <= value <= self._highest else f"a score that {self._outside(score)}"

    def _outside(self, score: float) -> str:
        ends = ["-" if end is None else f"{end:g}" for end in (self.quantity.lowest, self.quantity.highest)]
        return f"cannot be: {self.quantity.name} {score:g} is not within {ends[0]} to {ends[1]}"

    @override
    def answer(self, values: Floats, *, logits: bool) -> Answer:
        del logits  # the number is what it is
        require_finite(values, 1, "one score")
        (score,) = shortest(values.astype(np.float32))
        if not self._lowest <= values[0] <= self._highest:
            return Answer(reason=Reason.OUT_OF_RANGE, detail=self._outside(score))
        return Answer(score=score)

    @override
    def named(self, answer: Answer) -> Answer:
        raise NotAnAnswerError("labels in place of a score")

    @override
    def known_by(self, answer: Answer) -> Floats:
        # Logarithmic, whatever the unit: 0.01 is one per cent of the score, or 1e-5 near zero.
        return np.array([math.asinh((answer.score or 0.0) / _FINEST)], np.float32)

    @override
    def off(self, expected: Answer, found: Answer) -> float:
        if expected.score is None or found.score is None:
            return math.inf
        lowest, highest = self.quantity.lowest, self.quantity.highest
        whole = None if lowest is None or highest is None else highest - lowest
        return abs(found.score - expected.score) / (whole or max(1.0, abs(expected.score)))

    @override
    def words(self, answer: Answer) -> str:
        return "no score" if answer.score is None else self.text(answer.score)

    def text(self, score: float) -> str:
        """Return a score with its unit, four digits of it."""
        return f"{score:.4g} {self.quantity.unit}".rstrip()

    @override
    def fields(self) -> list[pa.Field]:
        return [pa.field(SCORE, pa.float32())]

    @override
    def values(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        return [rows[SCORE]]

    @override
    def frame(self, rows: pa.Table) -> dict[str, pa.ChunkedArray | pa.Array]:
        return {SCORE: rows[SCORE], "score_text": rows[SCORE].cast(pa.string())}

    @override
    def rules(self) -> list[Rule]:
        # Without limits, whatever is finite.
        ends = max(float(self._lowest), -_GREATEST), min(float(self._highest), _GREATEST)
        return [Rule(SCORE, least=ends[0], most=ends[1])]

    @override
    def alike(self, text: str) -> str:
        return f"have the score {text} {self.quantity.unit}".rstrip()

    @override
    def observed(self, table: pa.Table) -> list[dict[str, Any]]:
        return [{"score": score} for score in table[SCORE].to_pylist()]

    @override
    def labels_in(self, table: pa.Table) -> list[str]:
        return []

    @override
    def overview(self) -> RegressionOverview:
        return RegressionOverview(self)


class RegressionOverview(Overview):
    """Figures of scores. Holds four bytes for each."""

    template = "answers_regression.html.j2"
    queue_says = "the lowest and the highest scores"

    def __init__(self, head: Regression) -> None:
        super().__init__({})
        self.head = head
        self._pieces: list[Floats] = []

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """All scores."""
        return np.concatenate([np.zeros(0, np.float32), *self._pieces]).astype(np.float64)

    @override
    def figures(self) -> dict[str, Any]:
        names = ("score_mean", "score_low", "score_median", "score_high", "score_least", "score_most")
        if not self.rows:
            return dict.fromkeys(names)
        scores = self.scores
        found = [scores.mean(), *np.percentile(scores, (5, 50, 95)), scores.min(), scores.max()]
        return dict(zip(names, (float(f"{value:.6g}") for value in found), strict=True))

    def bars(self) -> list[dict[str, float]]:
        """Return a histogram from the least score to the most: `low`, `high`, `count`, `height` in %."""
        scores = self.scores
        if not len(scores):
            return []
        least, most = float(scores.min()), float(scores.max())
        counts, edges = np.histogram(scores, BINS if most > least else 1)
        highest = max(int(counts.max()), 1)
        return [
            {"low": float(low), "high": float(high), "count": int(count), "height": count / highest * 100}
            for low, high, count in zip(edges, edges[1:], counts, strict=False)
        ]

    @override
    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        scores = table[SCORE].to_numpy()
        self._pieces.append(scores.astype(np.float32))
        ends = np.argsort(scores, kind="stable")
        chosen = dict.fromkeys([*ends[:_EACH_END].tolist(), *ends[-_EACH_END:].tolist()])
        rows = table.select(["image_id", SCORE]).take(pa.array(list(chosen), pa.int64())).to_pylist()
        found = [
            {"image_id": row["image_id"], "title": self.head.text(row[SCORE]), "figure": None, "note": ""}
            | {"score": row[SCORE]}
            for row in rows
        ]
        both = sorted(self.queue + found, key=lambda one: (one["score"], one["image_id"]))
        self.queue = both if len(both) <= 2 * _EACH_END else both[:_EACH_END] + both[-_EACH_END:]


def score_text(scores: pa.Array) -> pa.Array:
    """Return float32 scores as text: the shortest that gives each back."""
    return pc.cast(scores, pa.string())
