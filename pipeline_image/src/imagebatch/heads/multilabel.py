"""Any number of labels: each class has a probability and a threshold of its own."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import override

from imagebatch.contracts.answers import Answer
from imagebatch.contracts.ids import encode_id
from imagebatch.contracts.records import ModelPin
from imagebatch.heads.base import (
    AnswerRow,
    DriftTests,
    Floats,
    Head,
    NoProbabilitiesError,
    NotAnAnswerError,
    Overview,
    Rule,
    Shares,
    is_number,
    require_finite,
    shortest,
)

SEPARATOR = "|"
# More classes than this make the answers' vector large.
MOST_CLASSES = 64
QUEUE = 24


class Multilabel(Head):
    """The head of a model whose classes do not exclude each other."""

    drift = DriftTests(
        mixes={"mix of label sets": "label"},
        numbers={"labels per image": "label_count"},
        vectors={"answers": "answer"},
    )
    shares = Shares("label_set", "of one set of labels")
    certain_by = "the least distance of a label's probability to its threshold"

    def __init__(self, model: ModelPin, top_k: int) -> None:
        super().__init__(model, top_k)
        self._names = model.labels
        # As float32, as probabilities are kept: whoever compares finds the same labels.
        self._thresholds = np.array(model.thresholds, np.float32)

    @override
    def row(self, answer: Answer) -> AnswerRow:
        # No label is an answer, too.
        return {**super().row(answer), "labels": list(answer.labels)}

    @override
    def problem(self, row: Mapping[str, Any]) -> str:
        labels, probabilities = row["labels"], row["probabilities"]
        if row["score"] is not None or row["classes"] is not None:
            return "a score or classes in place of labels"
        if not isinstance(labels, list | tuple) or not isinstance(probabilities, list | tuple):
            return "no labels"
        if len(probabilities) != len(self._names):
            return f"{len(probabilities)} probabilities for {len(self._names)} labels"
        if not all(is_number(value) and 0 <= value <= 1 for value in probabilities):  # false for NaN, too
            return f"probabilities that cannot be: {list(probabilities[:5])}"
        if list(labels) != self._above(np.array(probabilities, np.float32)):
            return f"labels whose probabilities do not reach their thresholds, or not all: {list(labels[:3])}"
        return ""

    def _above(self, probabilities: Floats) -> list[str]:
        return [self._names[index] for index in np.flatnonzero(probabilities >= self._thresholds)]

    @override
    def answer(self, values: Floats, *, logits: bool) -> Answer:
        require_finite(values, len(self._names), f"{len(self._names)} labels")
        if logits:
            values = np.exp(-np.logaddexp(0, -values.astype(np.float64))).astype(np.float32)
        elif values.min() < 0 or values.max() > 1:
            least, most = float(values.min()), float(values.max())
            raise NoProbabilitiesError(f"numbers that are no probabilities, {least:.4g} to {most:.4g}")
        values = values.astype(np.float32)
        return Answer(labels=tuple(self._above(values)), probabilities=shortest(values))

    @override
    def named(self, answer: Answer) -> Answer:
        by_label = dict(zip(answer.labels, answer.probabilities, strict=False))
        missing = [label for label in self._names if label not in by_label]
        if missing or not len(by_label) == len(answer.labels) == len(answer.probabilities) == len(
            self._names
        ):
            raise NotAnAnswerError(
                f"{len(answer.labels)} labels with probabilities in place of all {len(self._names)}"
            )
        return self.answer(np.array([by_label[label] for label in self._names], np.float32), logits=False)

    @override
    def known_by(self, answer: Answer) -> Floats:
        if len(answer.probabilities) != len(self._names):
            raise NotAnAnswerError(f"{len(answer.probabilities)} probabilities for {len(self._names)} labels")
        return np.array(answer.probabilities, np.float32)

    @override
    def off(self, expected: Answer, found: Answer) -> float:
        pair = expected.probabilities, found.probabilities
        if len(pair[0]) != len(pair[1]) or not pair[0]:
            return 1.0
        return float(np.abs(np.subtract(*pair)).max())

    @override
    def words(self, answer: Answer) -> str:
        return (
            f"{set_words(answer.labels)} ({', '.join(f'{value:.4f}' for value in answer.probabilities[:8])})"
        )

    @override
    def fields(self) -> list[pa.Field]:
        named = [pa.field(name, pa.float32()) for name in self._columns]
        return [pa.field("labels", pa.list_(pa.string())), *named]

    @property
    def _columns(self) -> list[str]:
        return [f"probability_{label}" for label in self._names]

    @override
    def values(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        wide = _matrix(rows["probabilities"], len(self._names))
        return [rows["labels"], *(pa.chunked_array([pa.array(column)]) for column in wide.T)]

    @override
    def frame(self, rows: pa.Table) -> dict[str, pa.ChunkedArray | pa.Array]:
        lengths = pc.list_value_length(rows["probabilities"])
        wide, whole = self._wide(rows)
        labels = rows["labels"].to_pylist()
        fits = [
            None if found is None else bool(there) and found == self._above(row)
            for found, row, there in zip(labels, wide, whole, strict=True)
        ]
        unknown = np.where(np.isnan(wide), -1, wide)  # whatever is no number is below every probability
        gone = ~lengths.is_valid().to_numpy()
        return {
            "label_set": pa.array([None if found is None else label_text(found) for found in labels]),
            "probabilities": lengths,
            "least_probability": pa.array(unknown.min(axis=1), mask=gone),
            "most_probability": pa.array(wide.max(axis=1), mask=gone),
            "labels_reach_thresholds": pa.array(fits, pa.bool_()),
        }

    def _wide(self, rows: pa.Table) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return probabilities (rows, classes), NaN where a row does not have one per class, and where so."""
        lengths = pc.list_value_length(rows["probabilities"])
        whole = pc.equal(pc.fill_null(lengths, 0), len(self._names)).to_numpy(zero_copy_only=False)
        wide = np.full((rows.num_rows, len(self._names)), np.nan, np.float32)
        wide[whole] = _matrix(rows["probabilities"].filter(pa.array(whole)), len(self._names))
        return wide, whole

    @override
    def certainty(self, rows: pa.Table) -> pa.Array:
        wide, whole = self._wide(rows)
        return pa.array(np.abs(wide - self._thresholds).min(axis=1), pa.float32(), mask=~whole)

    @override
    def rules(self) -> list[Rule]:
        return [
            Rule("probabilities", within=[len(self._names)]),
            Rule("least_probability", least=0, most=1),
            Rule("most_probability", least=0, most=1),
            Rule("labels_reach_thresholds", within=[True]),
        ]

    @override
    def alike(self, text: str) -> str:
        return f"have the labels {text}" if text else "have no label"

    @override
    def observed(self, table: pa.Table) -> list[dict[str, Any]]:
        wide = self._probabilities(table)
        answers = wide.tolist() if len(self._names) <= MOST_CLASSES else [None] * len(wide)
        return [
            {"label": set_words(labels), "label_count": len(labels), "answer": answer}
            for labels, answer in zip(table["labels"].to_pylist(), answers, strict=True)
        ]

    def _probabilities(self, table: pa.Table) -> npt.NDArray[np.float64]:
        columns = [table[name].to_numpy() for name in self._columns]
        return np.stack(columns, axis=1).astype(np.float64)

    @override
    def labels_in(self, table: pa.Table) -> list[str]:
        found: list[str] = pc.list_flatten(table["labels"]).to_pylist()
        return found

    @override
    def overview(self) -> MultilabelOverview:
        return MultilabelOverview(self, self._names, self._thresholds, self._columns)


class MultilabelOverview(Overview):
    """Figures of predictions that are sets of labels.

    Attributes:
        sizes: Predictions by number of labels.
    """

    template = "answers_multilabel.html.j2"
    queue_says = "the predictions in which a label is nearest to its threshold"

    def __init__(self, head: Multilabel, names: list[str], thresholds: Floats, columns: list[str]) -> None:
        super().__init__(dict.fromkeys(head.model.labels, 0))
        self.sizes: Counter[int] = Counter()
        self._names, self._thresholds, self._columns = names, thresholds, columns

    @override
    def figures(self) -> dict[str, Any]:
        if not self.rows:
            return {"labels_per_image": None, "unlabelled": None}
        labels = sum(size * images for size, images in self.sizes.items())
        return {
            "labels_per_image": round(labels / self.rows, 6),
            "unlabelled": round(self.sizes[0] / self.rows, 6),
        }

    @override
    def share_of(self, classes: Mapping[str, int], predictions: int) -> float:
        return predictions  # an image counts for each of its labels

    def bars(self) -> list[dict[str, Any]]:
        """Return a bar for each number of labels, those above seven together: `says`, `count`, `share`."""
        most = min(max(self.sizes, default=0), 8)
        bars = []
        for size in range(most + 1):
            images = self.sizes[size] if size < 8 else sum(n for s, n in self.sizes.items() if s >= 8)  # noqa: PLR2004 (bars)
            says = "no label" if not size else "1 label" if size == 1 else f"{size} labels"
            share = images / self.rows * 100 if self.rows else 0.0
            bars.append({"says": says if size < 8 else "8 or more", "count": images, "share": share})  # noqa: PLR2004 (bars)
        return bars

    @override
    def add(self, table: pa.Table) -> None:
        sets = table["labels"].to_pylist()
        self.rows += table.num_rows
        self.sizes.update(map(len, sets))
        for label, images in Counter(label for labels in sets for label in labels).items():
            self.classes[label] += images
        wide = np.stack([table[name].to_numpy() for name in self._columns], axis=1).astype(np.float64)
        margins = np.abs(wide - self._thresholds)
        nearest = margins.argmin(axis=1)
        least = margins[np.arange(len(wide)), nearest]
        ids = table["image_id"].to_pylist()
        found = [
            {
                "image_id": ids[at],
                "title": set_words(sets[at]),
                "figure": float(wide[at, nearest[at]]),
                "note": f"for {self._names[nearest[at]]}, threshold {self._thresholds[nearest[at]]:g}",
                "margin": float(least[at]),
            }
            for at in np.argsort(least, kind="stable")[:QUEUE]
        ]
        self.queue = heapq.nsmallest(
            QUEUE, self.queue + found, key=lambda one: (one["margin"], one["image_id"])
        )


def label_text(labels: list[str]) -> str:
    """Return a set of labels as a cell of a CSV file: joined by `|`, so that it can be taken apart again.

    `%`, `|`, control characters and a first character that begins a formula are written as `%XX`;
    `urllib.parse.unquote` gives each label back.
    """
    return SEPARATOR.join(encode_id(label.encode()).replace(SEPARATOR, "%7C") for label in labels)


def set_words(labels: list[str] | tuple[str, ...]) -> str:
    """Return a set of labels in words."""
    return ", ".join(labels) if labels else "no label"


def _matrix(lists: pa.ChunkedArray, width: int) -> Floats:
    """Return lists of one length as a matrix: shape (rows, width)."""
    flat: Floats = pc.list_flatten(lists).to_numpy()
    return flat.reshape(-1, width)
