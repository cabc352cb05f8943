"""What the report says about all predictions, gathered in one pass of bounded memory."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagebatch.contracts.layout import PREDICTIONS_PARQUET
from imagebatch.contracts.records import RunDescription
from imagebatch.drift.observations import entropy, ranked_probabilities
from imagebatch.runs.folder import RunFolder

BINS = 20
_QUEUE = 24
_UNSURE = 0.5


class Predictions:
    """Figures of a run's predictions.

    Args:
        run: Finished.
        description: Its run.json.

    Attributes:
        classes: Predictions by label.
        histogram: Predictions by confidence, in 20 bins of equal width from 0 to 1.
        least_confident: The 24 least confident: `image_id`, `label`, `confidence`, `second`.
        rows: Predictions.
    """

    def __init__(self, run: RunFolder, description: RunDescription) -> None:
        self._top_k = description.top_k
        self.rows = 0
        self.classes: Counter[str] = Counter(dict.fromkeys(description.model.labels, 0))
        self.histogram = np.zeros(BINS, int)
        self.least_confident: list[dict[str, Any]] = []
        self._confidence = self._entropy = self._unsure = 0.0
        with run.reading(PREDICTIONS_PARQUET) as stream:
            for batch in pq.ParquetFile(stream).iter_batches():
                self._add(pa.Table.from_batches([batch]))

    def mean(self, figure: str) -> float | None:
        """Return mean `confidence`, mean `entropy` in nats, or share `unsure`; None without a prediction."""
        total = {"confidence": self._confidence, "entropy": self._entropy, "unsure": self._unsure}[figure]
        return round(float(total / self.rows), 6) if self.rows else None

    def _add(self, table: pa.Table) -> None:
        probabilities = ranked_probabilities(table, self._top_k)
        confidence = probabilities[:, 0]
        self.rows += table.num_rows
        self.classes.update(table["label_1"].to_pylist())
        self.histogram += np.histogram(confidence, BINS, (0.0, 1.0))[0]
        self._confidence += confidence.sum()
        self._entropy += entropy(probabilities).sum()
        self._unsure += (confidence < _UNSURE).sum()
        lowest = np.argsort(confidence, kind="stable")[:_QUEUE]
        rows = table.select(["image_id", "label_1"]).take(lowest).to_pylist()
        second = table["label_2"].take(lowest).to_pylist() if self._top_k > 1 else [None] * len(rows)
        found = [
            {"image_id": row["image_id"], "label": row["label_1"], "second": other, "confidence": float(p)}
            for row, other, p in zip(rows, second, confidence[lowest], strict=True)
        ]
        self.least_confident = heapq.nsmallest(
            _QUEUE, self.least_confident + found, key=lambda one: (one["confidence"], one["image_id"])
        )
