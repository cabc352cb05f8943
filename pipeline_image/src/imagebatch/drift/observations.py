"""A run's sampled images together with what the model answered about them: what drift is judged on."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagebatch.contracts.layout import EMBEDDINGS, PREDICTIONS_PARQUET
from imagebatch.contracts.records import RunDescription
from imagebatch.errors import NotProvenError
from imagebatch.heads import head_of
from imagebatch.heads.base import Head
from imagebatch.images.sample import SAMPLE_SCHEMA, STATISTICS
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.parts import parquet_table

OBSERVATION_SCHEMA = pa.schema(
    [
        *(SAMPLE_SCHEMA.field(name) for name in ("image_id", "format", "width", "height", "size")),
        *(SAMPLE_SCHEMA.field(name) for name in (*STATISTICS, "layout")),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        ("entropy", pa.float32()),
        ("answer", pa.list_(pa.float32())),
        ("embedding", pa.list_(pa.float32())),
        ("label_count", pa.int32()),
        ("score", pa.float32()),
    ]
)


def observe(run: RunFolder, description: RunDescription, sample: pa.Table) -> pa.Table:
    """Join a sample with the run's predictions.

    Args:
        run: Finished.
        description: Its run.json.
        sample: SAMPLE_SCHEMA.

    Returns:
        OBSERVATION_SCHEMA: images that could be looked at and have a prediction. `embedding` is null for
        images that the model API was not asked to embed. Of a softmax, `label` is the most probable class,
        `confidence` the largest probability, `entropy` is in nats over the labels that were kept, `answer`
        the probabilities by class index (what is below the top k is spread evenly), null for more than 64
        classes. Of a multilabel head, `label` is the set of labels, `label_count` their number, `answer` the
        probabilities as before. Of a regression there is `score` alone. The others are null.
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


def _answers(run: RunFolder, description: RunDescription, wanted: set[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    names = pa.array(sorted(wanted), pa.string())
    head: Head = head_of(description.model, description.top_k)
    try:
        with run.reading(PREDICTIONS_PARQUET) as stream:
            for batch in pq.ParquetFile(stream).iter_batches():
                table = pa.Table.from_batches([batch.filter(pc.is_in(batch["image_id"], names))])
                found |= dict(zip(table["image_id"].to_pylist(), head.observed(table), strict=True))
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
