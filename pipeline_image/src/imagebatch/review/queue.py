"""Which predictions of a finished run people are asked about: the least certain, and a random sample."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imagebatch.contracts.layout import PREDICTIONS_PARQUET
from imagebatch.contracts.records import HeadKind, RunDescription
from imagebatch.errors import ConfigurationError, NotProvenError
from imagebatch.runs.folder import RunFolder

_COLUMNS = ["image_id", "sha256", "label_1", "probability_1"]


@dataclass(frozen=True, slots=True)
class Predicted:
    """A prediction that people are asked about.

    Attributes:
        image_id: The image.
        sha256: Of the file that was scored.
        label: The most probable label.
        probability: Its probability.
        queued: It is one of the least certain.
        sampled: It is of the random sample.
    """

    image_id: str
    sha256: str
    label: str
    probability: float
    queued: bool = False
    sampled: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """What people are asked about.

    Attributes:
        items: The least certain first, then what only the sample holds, in random order.
        doubtful: Predictions below the threshold, those beyond the limit among them.
        predicted: Predictions of the run.
    """

    items: list[Predicted]
    doubtful: int
    predicted: int


def require_one_class(description: RunDescription) -> None:
    """Refuse a run whose answers are no single class.

    Raises:
        ConfigurationError: They are not.
    """
    model = description.model
    if model.head is not HeadKind.SOFTMAX:
        raise ConfigurationError(
            f"review and labels are for models that name one class; the head of {model.name} is a"
            f" {model.head}"
        )


def choose(run: RunFolder, run_id: str, *, below: float | None, limit: int, sample: int) -> Queue:
    """Choose what people are asked about.

    Args:
        run: Finished, of a softmax.
        run_id: Seeds the sample.
        below: Probability below which a prediction belongs to the queue; None: none does.
        limit: Most of the queue, the least certain.
        sample: Predictions drawn at random from all of the run, whatever their probability.

    Raises:
        NotProvenError: The predictions are not what postprocess wrote.
    """
    least: list[tuple[float, str, Predicted]] = []
    drawn: list[tuple[bytes, str, Predicted]] = []
    doubtful = predicted = 0
    threshold = np.float32(-1 if below is None else below)
    for rows in predictions(run):
        predicted += len(rows)
        unsure = [row for row in rows if np.float32(row.probability) < threshold]
        doubtful += len(unsure)
        ranked = [(row.probability, row.image_id, replace(row, queued=True)) for row in unsure]
        least = heapq.nsmallest(limit, [*least, *ranked], key=lambda one: one[:2])
        lots = [(_lot(run_id, row.image_id), row.image_id, row) for row in rows] if sample else []
        drawn = heapq.nsmallest(sample, [*drawn, *lots], key=lambda one: one[:2])
    sampled = {name for _, name, _ in drawn}
    queued = {name for _, name, _ in least}
    items = [replace(row, sampled=name in sampled) for _, name, row in least]
    items += [replace(row, sampled=True) for _, name, row in drawn if name not in queued]
    return Queue(items, doubtful, predicted)


def sampled_ids(run: RunFolder, run_id: str, sample: int) -> set[str]:
    """Return the ids of a run's sample of this size: a smaller one is part of every larger one."""
    lots = ((_lot(run_id, row.image_id), row.image_id) for rows in predictions(run) for row in rows)
    return {name for _, name in heapq.nsmallest(sample, lots)}


def predictions(run: RunFolder) -> Iterator[list[Predicted]]:
    """Yield the predictions of a softmax's run, some at a time, in the order of their ids.

    Raises:
        NotProvenError: They are not what postprocess wrote.
    """
    try:
        with run.reading(PREDICTIONS_PARQUET) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(columns=_COLUMNS):
                columns = [batch.column(name).to_pylist() for name in _COLUMNS]
                yield [Predicted(*row) for row in zip(*columns, strict=True)]
    except (FileNotFoundError, pa.ArrowInvalid, KeyError) as error:
        raise NotProvenError(
            f"{run.uri}/{PREDICTIONS_PARQUET} is not what postprocess wrote: {error}"
        ) from error


def _lot(run_id: str, image_id: str) -> bytes:
    """Return an image's lot in the draw: it does not change when a redrive adds other images."""
    return hashlib.sha256(f"review {run_id}\0{image_id}".encode()).digest()
