"""The tables that the suites look at, as pandas frames."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from imagebatch.ledger import manifest_of, scores_of, shard_count
from imagebatch.product import ranked
from imagebatch.storage.runs import RunFolder


def manifest_frame(run: RunFolder) -> pd.DataFrame:
    """Every listed image; adds `pixels`, `without_result` (0 or 1), `complete` (a header or a reason)."""
    tables = [manifest_of(run, shard).drop_columns(["detail"]) for shard in range(shard_count(run))]
    frame = pa.concat_tables(tables).to_pandas()
    frame["pixels"] = frame["width"] * frame["height"]
    has_header = frame[["size", "sha256", "format", "width", "height"]].notna().all(axis="columns")
    return _judged(frame, has_header)


def scores_frame(run: RunFolder, top_k: int) -> pd.DataFrame:
    """Every scored image: labels and probabilities by rank; adds their sum and the same two columns."""
    table = pa.concat_tables([scores_of(run, shard) for shard in range(shard_count(run))])
    frame = table.select(["image_id", "sha256", "model_digest", "reason"]).to_pandas()
    for rank in range(top_k):
        for name in ("labels", "probabilities"):
            frame[f"{_SINGULAR[name]}_{rank + 1}"] = ranked(table[name], rank).to_pandas()
    probabilities = [f"probability_{rank + 1}" for rank in range(top_k)]
    frame["probability_sum"] = frame[probabilities].sum(axis="columns")
    answered = [*probabilities, *(f"label_{rank + 1}" for rank in range(top_k))]
    return _judged(frame, frame[answered].notna().all(axis="columns"))


def class_shares(scores: pd.DataFrame) -> pd.DataFrame:
    """Share of each class among the predicted images: columns `label` and `share`."""
    shares = scores["label_1"].dropna().value_counts(normalize=True)
    return pd.DataFrame({"label": shares.index.astype(object), "share": shares.to_numpy()})


_SINGULAR = {"labels": "label", "probabilities": "probability"}


def _judged(frame: pd.DataFrame, has_result: pd.Series[bool]) -> pd.DataFrame:
    has_reason = frame["reason"].notna()
    frame["without_result"] = has_reason.astype(int)
    frame["complete"] = has_result ^ has_reason
    return frame
