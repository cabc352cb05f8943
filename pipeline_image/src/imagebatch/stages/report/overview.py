"""What the report says about all predictions, gathered in one pass."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagebatch.contracts.layout import PREDICTIONS_PARQUET
from imagebatch.contracts.records import RunDescription
from imagebatch.heads import head_of
from imagebatch.heads.base import Overview
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.output_csv import REVIEW


def overview(run: RunFolder, description: RunDescription) -> Overview:
    """Return the figures of a finished run's predictions, as its model's head has them."""
    found = head_of(description.model, description.top_k).overview()
    found.doubtful = None if description.review_below is None else 0
    with run.reading(PREDICTIONS_PARQUET) as stream:
        for batch in pq.ParquetFile(stream).iter_batches():
            table = pa.Table.from_batches([batch])
            found.add(table)
            if found.doubtful is not None:
                found.doubtful += pc.sum(table[REVIEW]).as_py() or 0
    return found
