"""What may be taken over from an attempt that was killed: rows of this model, of these images, that can be.

A checksum tells what a disk or a crash has changed; the rules here refuse what was wrong when it was written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import pyarrow as pa

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.records import ModelPin, Reason
from imagebatch.contracts.rows import SCORES_SCHEMA, ScoreRow
from imagebatch.heads import head_of
from imagebatch.heads.base import NO_ANSWER
from imagebatch.runs.folder import parquet_rows

_REASONS = frozenset(Reason)


class Trust:
    """Judges rows and parts that an earlier attempt left.

    Args:
        model: The model that all rows must be of.
        top_k: Labels per image.
    """

    def __init__(self, model: ModelPin, top_k: int) -> None:
        self._digest = model.digest
        self._head = head_of(model, top_k)

    def row(self, row: object, images: Mapping[str, str]) -> TypeGuard[ScoreRow]:
        """Tell whether this is a score row that the run's model can have given for one of these images.

        Args:
            row: Anything.
            images: SHA-256 by image id.
        """
        if not isinstance(row, dict) or row.keys() - {"endpoint"} != set(SCORES_SCHEMA.names):
            return False
        if not isinstance(row.get("endpoint", ""), str):
            return False
        image_id = row["image_id"]
        if not isinstance(image_id, str) or images.get(image_id) != row["sha256"]:
            return False
        if row["model_digest"] != self._digest or not _numbers_or_none(row["embedding"]):
            return False
        if row["reason"] is not None:
            told = isinstance(row["reason"], str) and row["reason"] in _REASONS
            silent = all(row[name] is None for name in NO_ANSWER)
            return told and isinstance(row["detail"], str) and silent
        return row["detail"] is None and not self._head.problem(row)

    def part(self, data: bytes, digest: str, expected: pa.Table) -> pa.Table | None:
        """Return an earlier attempt's part, or None unless it is as it was written and may be used.

        Args:
            data: The file's content.
            digest: SHA-256 (hex) that the file was published under.
            expected: The images that it must hold, in this order (ASKED_COLUMNS).
        """
        # Before it is parsed: the checksums that Parquet knows do not cover its footer and page headers.
        if sha256_hex(data) != digest:
            return None
        try:
            table = parquet_rows(data)
        except (pa.ArrowInvalid, OSError):
            return None
        ids = expected["image_id"].to_pylist()
        if not table.schema.equals(SCORES_SCHEMA) or table["image_id"].to_pylist() != ids:
            return None
        images = dict(zip(ids, expected["sha256"].to_pylist(), strict=True))
        return table if all(self.row(row, images) for row in table.to_pylist()) else None


def _numbers_or_none(values: object) -> bool:
    if values is None:
        return True
    if not isinstance(values, Sequence) or isinstance(values, str):
        return False
    return all(isinstance(value, float | int) and math.isfinite(value) for value in values)
