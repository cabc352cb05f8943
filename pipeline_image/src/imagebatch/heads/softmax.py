"""One class of several: the k most probable ones, with probabilities that add up to one."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from imagebatch.contracts.answers import Answer
from imagebatch.contracts.records import ModelPin
from imagebatch.heads.base import (
    DriftTests,
    Floats,
    Head,
    NoProbabilitiesError,
    NotAnAnswerError,
    Overview,
    Rule,
    Shares,
    ranked,
    require_finite,
    shortest,
)

# Half precision carries three digits, and a thousand classes add their errors up.
_SUM_TOLERANCE = 0.01
# float32 probabilities may add up to a little more than 1.
_SUM_CHECKED = 1e-4
# More classes than this make the answers' vector mostly zeros, and the file large.
MOST_CLASSES = 64

BINS = 20
QUEUE = 24
_UNSURE = 0.5


class Softmax(Head):
    """The head of a classification."""

    drift = DriftTests(
        mixes={"class mix": "label"},
        numbers={"confidence": "confidence", "entropy": "entropy"},
        vectors={"answers": "answer"},
    )
    shares = Shares("label_1", "of one class")
    chooses_labels = True
    certain_by = "the largest probability"

    def __init__(self, model: ModelPin, top_k: int) -> None:
        super().__init__(model, top_k)
        self._names = model.labels
        self._times = Counter(model.labels)
        self._ranks = range(1, top_k + 1)

    @property
    def need_classes(self) -> bool:
        """Whether two classes have one name, so that a label does not tell which of them it is."""
        return len(self._times) < len(self._names)

    @override
    def problem(self, row: Mapping[str, Any]) -> str:
        labels, probabilities, classes = row["labels"], row["probabilities"], row["classes"]
        if row["score"] is not None:
            return "a score in place of labels"
        if not isinstance(labels, list | tuple) or not isinstance(probabilities, list | tuple):
            return "no labels"
        if not len(labels) == len(probabilities) == self.top_k:
            return f"{len(labels)} labels and {len(probabilities)} probabilities in place of {self.top_k}"
        return (
            _problem_of(probabilities)
            or self._unknown(labels)
            or (
                f"classes that are not those of the labels: {classes}" if self._wrong(classes, labels) else ""
            )
        )

    def _unknown(self, labels: Sequence[object]) -> str:
        unknown = [label for label in labels if not isinstance(label, str) or label not in self._times]
        if unknown:
            return f"labels that the model does not have: {unknown[:3]}"
        if len(set(labels)) == len(labels):
            return ""
        often = [label for label, count in Counter(map(str, labels)).items() if count > self._times[label]]
        return f"labels more often than the model has them: {often[:3]}" if often else ""

    def _wrong(self, classes: object, labels: Sequence[object]) -> bool:
        if classes is None:
            return False
        if not isinstance(classes, list | tuple) or len(classes) != len(labels):
            return True
        if not all(type(index) is int and 0 <= index < len(self._names) for index in classes):
            return True
        return len(set(classes)) < len(classes) or [self._names[index] for index in classes] != list(labels)

    @override
    def answer(self, values: Floats, *, logits: bool) -> Answer:
        values = self._probabilities(values, logits=logits)
        best = np.argsort(-values, kind="stable")[: self.top_k]
        return Answer(
            labels=tuple(self._names[index] for index in best),
            probabilities=shortest(values[best]),
            classes=tuple(map(int, best)) if self.need_classes else (),
        )

    def _probabilities(self, values: Floats, *, logits: bool) -> Floats:
        require_finite(values, len(self._names), f"{len(self._names)} labels")
        if logits:
            exponents = np.exp(values.astype(np.float64) - values.max())
            softmax: npt.NDArray[np.float64] = exponents / exponents.sum()
            return softmax.astype(np.float32)
        total = float(values.sum(dtype=np.float64))
        if values.min() < 0 or values.max() > 1 or abs(total - 1) > _SUM_TOLERANCE:
            raise NoProbabilitiesError(f"numbers that are no probabilities, their sum is {total:.4g}")
        return values.astype(np.float32)

    @override
    def named(self, answer: Answer) -> Answer:
        labels, values = answer.labels[: self.top_k], answer.probabilities[: self.top_k]
        if not len(values) == len(labels) == self.top_k or _problem_of(values):
            raise NotAnAnswerError(f"labels and probabilities that cannot be: {values[:5]}")
        return Answer(labels=labels, probabilities=values)

    @override
    def known_by(self, answer: Answer) -> Floats:
        known = np.zeros(len(self._names), np.float32)
        indices = answer.classes or map(self._names.index, answer.labels)
        pairs = zip(indices, answer.probabilities, strict=False)
        for index, value in pairs:
            known[index] = value
        return known

    @override
    def off(self, expected: Answer, found: Answer) -> float:
        if not found.labels or found.labels[:1] != expected.labels[:1]:
            return 1.0
        if len(expected.labels) != len(expected.probabilities):
            return 1.0
        wanted = dict(zip(expected.labels, expected.probabilities, strict=True))
        now = dict(zip(found.labels, found.probabilities, strict=True))
        return max(abs(now[label] - wanted[label]) for label in now.keys() & wanted.keys())

    @override
    def words(self, answer: Answer) -> str:
        return f"{answer.labels[0]} {answer.probabilities[0]:.4f}" if answer.labels else "no label"

    @override
    def fields(self) -> list[pa.Field]:
        labels = [pa.field(f"label_{k}", pa.string()) for k in self._ranks]
        return labels + [pa.field(f"probability_{k}", pa.float32()) for k in self._ranks]

    @override
    def values(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        return [ranked(rows[name], k - 1) for name in ("labels", "probabilities") for k in self._ranks]

    @override
    def class_fields(self) -> list[pa.Field]:
        return [pa.field(f"class_index_{k}", pa.int32()) for k in self._ranks]

    @override
    def class_values(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        if self.need_classes:
            return [ranked(rows["classes"], k - 1) for k in self._ranks]
        names = pa.array(self._names, pa.string())
        return [pc.index_in(ranked(rows["labels"], k - 1), value_set=names) for k in self._ranks]

    @override
    def certainty(self, rows: pa.Table) -> pa.Array:
        return ranked(rows["probabilities"], 0).combine_chunks()

    @override
    def frame(self, rows: pa.Table) -> dict[str, pa.ChunkedArray | pa.Array]:
        columns = dict(zip((field.name for field in self.fields()), self.values(rows), strict=True))
        probabilities = np.stack([columns[f"probability_{k}"].to_numpy() for k in self._ranks])
        return columns | {"probability_sum": pa.array(np.nansum(probabilities, axis=0))}

    @override
    def rules(self) -> list[Rule]:
        names = [f"probability_{k}" for k in self._ranks]
        return [
            *(Rule(f"label_{k}", within=self._names) for k in self._ranks),
            *(Rule(name, least=0, most=1) for name in names),
            *(Rule(lower, at_most=higher) for higher, lower in itertools.pairwise(names)),
            Rule("probability_sum", least=0, most=1 + _SUM_CHECKED),
        ]

    @override
    def share_rules(self) -> list[Rule]:
        return [Rule("label", within=self._names)]

    @override
    def observed(self, table: pa.Table) -> list[dict[str, Any]]:
        probabilities = ranked_probabilities(table, self.top_k)
        labels = [table[f"label_{k}"].to_pylist() for k in self._ranks]
        entropies = entropy(probabilities)
        return [
            {
                "label": labels[0][row],
                "confidence": float(probabilities[row, 0]),
                "entropy": float(entropies[row]),
                "answer": self._by_class([column[row] for column in labels], probabilities[row]),
            }
            for row in range(table.num_rows)
        ]

    def _by_class(
        self, labels: Sequence[str | None], probabilities: npt.NDArray[np.float64]
    ) -> list[float] | None:
        if len(self._names) > MOST_CLASSES:
            return None
        known = {label: float(p) for label, p in zip(labels, probabilities, strict=True) if label}
        rest = len(self._names) - len(known)
        share = max(0.0, 1 - sum(known.values())) / rest if rest else 0.0
        return [known.get(name, share) for name in self._names]

    @override
    def labels_in(self, table: pa.Table) -> list[str]:
        found: list[str] = table["label_1"].to_pylist()
        return found

    @override
    def overview(self) -> SoftmaxOverview:
        return SoftmaxOverview(self)


class SoftmaxOverview(Overview):
    """Figures of a classification's predictions.

    Attributes:
        histogram: Predictions by confidence, in 20 bins of equal width from 0 to 1.
    """

    template = "answers_softmax.html.j2"
    queue_says = "the least confident predictions"

    def __init__(self, head: Softmax) -> None:
        super().__init__(dict.fromkeys(head.model.labels, 0))
        self._top_k = head.top_k
        self.histogram = np.zeros(BINS, int)
        self._confidence = self._entropy = self._unsure = 0.0

    @override
    def figures(self) -> dict[str, Any]:
        sums = {"confidence": self._confidence, "entropy": self._entropy, "unsure": self._unsure}
        return {name: round(float(sums[name] / self.rows), 6) if self.rows else None for name in sums}

    def bars(self) -> list[dict[str, float]]:
        """Return the histogram's bars: `low`, `high`, `count`, `height` in % of the highest."""
        counts = [int(count) for count in self.histogram]
        highest = max(*counts, 1)
        return [
            {"low": at / BINS, "high": (at + 1) / BINS, "count": count, "height": count / highest * 100}
            for at, count in enumerate(counts)
        ]

    @override
    def add(self, table: pa.Table) -> None:
        probabilities = ranked_probabilities(table, self._top_k)
        confidence = probabilities[:, 0]
        self.rows += table.num_rows
        for label, images in Counter(table["label_1"].to_pylist()).items():
            self.classes[label] = self.classes.get(label, 0) + images
        self.histogram += np.histogram(confidence, BINS, (0.0, 1.0))[0]
        self._confidence += confidence.sum()
        self._entropy += entropy(probabilities).sum()
        self._unsure += (confidence < _UNSURE).sum()
        lowest = np.argsort(confidence, kind="stable")[:QUEUE]
        rows = table.select(["image_id", "label_1"]).take(lowest).to_pylist()
        second = table["label_2"].take(lowest).to_pylist() if self._top_k > 1 else [None] * len(rows)
        found = [
            {"image_id": row["image_id"], "title": row["label_1"], "figure": float(p)}
            | {"note": f"or {other}" if other else ""}
            for row, other, p in zip(rows, second, confidence[lowest], strict=True)
        ]
        self.queue = heapq.nsmallest(
            QUEUE, self.queue + found, key=lambda one: (one["figure"], one["image_id"])
        )


def ranked_probabilities(table: pa.Table, top_k: int) -> npt.NDArray[np.float64]:
    """Return `probability_1` to `probability_k` of predictions: shape (rows, k)."""
    columns = [table[f"probability_{rank + 1}"].to_numpy() for rank in range(top_k)]
    return np.nan_to_num(np.stack(columns, axis=1).astype(np.float64))


def entropy(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the entropy in nats of rows of probabilities: shape (rows,)."""
    found: npt.NDArray[np.float64] = -(probabilities * np.log(np.clip(probabilities, 1e-12, 1))).sum(axis=1)
    return found


def _problem_of(probabilities: Sequence[object]) -> str:
    values = [value for value in probabilities if isinstance(value, float | int) and 0.0 <= value <= 1.0]
    if len(values) < len(probabilities):  # NaN among them
        return f"probabilities that cannot be: {list(probabilities[:5])}"
    if any(a < b for a, b in itertools.pairwise(values)):
        return f"probabilities that rise: {list(probabilities[:5])}"
    return ""
