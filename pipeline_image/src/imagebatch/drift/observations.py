"""A run's sampled images together with what the model answered about them: what drift is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagebatch.contracts.layout import EMBEDDINGS, PREDICTIONS_PARQUET
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import NotProvenError
from imagebatch.images.sample import SAMPLE_SCHEMA, STATISTICS
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.parts import parquet_table

Floats = npt.NDArray[np.float64]

# More classes than this make the answers' vector mostly zeros, and the file large.
MOST_CLASSES = 64
OBSERVATION_SCHEMA = pa.schema(
    [
        *(SAMPLE_SCHEMA.field(name) for name in ("image_id", "format", "width", "height", "size")),
        *(SAMPLE_SCHEMA.field(name) for name in (*STATISTICS, "layout")),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        ("entropy", pa.float32()),
        ("answer", pa.list_(pa.float32())),
        ("embedding", pa.list_(pa.float32())),
    ]
)


def observe(run: RunFolder, description: RunDescription, sample: pa.Table) -> pa.Table:
    """Join a sample with the run's predictions.

    Args:
        run: Finished.
        description: Its run.json.
        sample: SAMPLE_SCHEMA.

    Returns:
        OBSERVATION_SCHEMA: images that could be looked at and have a prediction. `confidence` is the largest
        probability, `entropy` is in nats over the labels that were kept, `answer` the probabilities by class
        index (what is below the top k is spread evenly), null for more than 64 classes; `embedding` is null
        for images that the model API was not asked to embed.
    """
    looked_at = sample.filter(pc.is_null(sample["problem"]))
    answers = _answers(run, description, set(looked_at["image_id"].to_pylist()))
    embeddings = _embeddings(run)
    rows = [
        row | answers[row["image_id"]] | {"embedding": embeddings.get(row["image_id"])}
        for row in looked_at.to_pylist()
        if row["image_id"] in answers
    ]
    return pa.Table.from_pylist(rows, OBSERVATION_SCHEMA)


def ranked_probabilities(table: pa.Table, top_k: int) -> Floats:
    """Return `probability_1` to `probability_k` of predictions: shape (rows, k)."""
    columns = [table[f"probability_{rank + 1}"].to_numpy() for rank in range(top_k)]
    return np.nan_to_num(np.stack(columns, axis=1).astype(np.float64))


def entropy(probabilities: Floats) -> Floats:
    """Return the entropy in nats of rows of probabilities: shape (rows,)."""
    found: Floats = -(probabilities * np.log(np.clip(probabilities, 1e-12, 1))).sum(axis=1)
    return found


def _answers(run: RunFolder, description: RunDescription, wanted: set[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    names = pa.array(sorted(wanted), pa.string())
    try:
        with run.reading(PREDICTIONS_PARQUET) as stream:
            for batch in pq.ParquetFile(stream).iter_batches():
                table = pa.Table.from_batches([batch.filter(pc.is_in(batch["image_id"], names))])
                found |= _of(table, description.model.labels, description.top_k)
    except FileNotFoundError as error:
        raise NotProvenError(f"{run.uri}/{PREDICTIONS_PARQUET} is missing") from error
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise NotProvenError(
            f"{run.uri}/{PREDICTIONS_PARQUET} is not what postprocess wrote: {error}"
        ) from error
    return found


def _embeddings(run: RunFolder) -> dict[str, list[float]]:
    try:
        table = parquet_table(run.read(EMBEDDINGS), EMBEDDINGS)
    except FileNotFoundError:
        return {}
    return dict(zip(*(table[name].to_pylist() for name in ("image_id", "embedding")), strict=True))


def _of(table: pa.Table, classes: Sequence[str], top_k: int) -> dict[str, dict[str, Any]]:
    probabilities = ranked_probabilities(table, top_k)
    labels = [table[f"label_{rank + 1}"].to_pylist() for rank in range(top_k)]
    entropies = entropy(probabilities)
    return {
        name: {
            "label": labels[0][row],
            "confidence": float(probabilities[row, 0]),
            "entropy": float(entropies[row]),
            "answer": _by_class([column[row] for column in labels], probabilities[row], classes),
        }
        for row, name in enumerate(table["image_id"].to_pylist())
    }


def _by_class(
    labels: Sequence[str | None], probabilities: Floats, classes: Sequence[str]
) -> list[float] | None:
    if len(classes) > MOST_CLASSES:
        return None
    known = {label: float(p) for label, p in zip(labels, probabilities, strict=True) if label}
    rest = len(classes) - len(known)
    share = max(0.0, 1 - sum(known.values())) / rest if rest else 0.0
    return [known.get(name, share) for name in classes]
