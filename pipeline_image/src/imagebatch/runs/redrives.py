"""What redrives have changed: newer manifest and score rows for single images, laid over a shard's own.

A redrive never touches the files of the stages. It adds a numbered folder, and its `_DONE.json`, created
once, makes the rows in it count.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from imagebatch.contracts.ids import sha256_hex
from imagebatch.contracts.layout import redrive_done_path
from imagebatch.contracts.records import DonePart, RedriveDone
from imagebatch.contracts.rows import MANIFEST_SCHEMA, SCORES_SCHEMA
from imagebatch.errors import NotProvenError
from imagebatch.runs.folder import RunFolder, parquet_rows

Row = dict[str, Any]


class Overlay:
    """The newest rows of all finished redrives of a run.

    Args:
        run: The run's files.

    Attributes:
        redrives: Finished redrives, oldest first.
    """

    def __init__(self, run: RunFolder) -> None:
        self.redrives = finished_redrives(run)
        self._manifest: dict[str, Row] = {}
        self._scores: dict[str, Row] = {}
        for redrive in self.redrives:
            for row in read_part(run, redrive.manifest).to_pylist():
                self._manifest[row["image_id"]] = row
                self._scores.pop(row["image_id"], None)
            self._scores |= {row["image_id"]: row for row in read_part(run, redrive.scores).to_pylist()}

    def apply(self, manifest: pa.Table, scores: pa.Table) -> tuple[pa.Table, pa.Table]:
        """A shard's manifest and scores with the redriven rows in place of the old ones."""
        redriven = self._manifest.keys() & set(manifest["image_id"].to_pylist())
        if not redriven:
            return manifest, scores
        rows = [self._manifest.get(row["image_id"], row) for row in manifest.to_pylist()]
        old = {row["image_id"]: row for row in scores.to_pylist() if row["image_id"] not in redriven}
        answers = old | {name: row for name, row in self._scores.items() if name in redriven}
        merged = [answers[row["image_id"]] for row in rows if row["image_id"] in answers]
        return (
            pa.Table.from_pylist(rows, MANIFEST_SCHEMA),
            pa.Table.from_pylist(merged, SCORES_SCHEMA),
        )


def finished_redrives(run: RunFolder) -> list[RedriveDone]:
    """Redrives whose rows count, oldest first."""
    found: list[RedriveDone] = []
    while True:
        path = redrive_done_path(len(found) + 1)
        try:
            found.append(RedriveDone.model_validate_json(run.read(path)))
        except FileNotFoundError:
            return found
        except ValueError as error:
            raise NotProvenError(f"{path} is not what redrive wrote: {error}") from error


def read_part(run: RunFolder, part: DonePart) -> pa.Table:
    """A recorded Parquet file, compared with its digest.

    Raises:
        NotProvenError: It is missing, another file, or not readable.
    """
    try:
        data = run.read(part.path)
    except FileNotFoundError as error:
        raise NotProvenError(f"{part.path} is missing") from error
    if sha256_hex(data) != part.sha256:
        raise NotProvenError(f"{part.path} is not the file that was recorded: its SHA-256 differs")
    return parquet_table(data, part.path)


def parquet_table(data: bytes, path: str) -> pa.Table:
    """A Parquet file's table.

    Raises:
        NotProvenError: The bytes are not a readable Parquet file.
    """
    try:
        return parquet_rows(data)
    except (pa.ArrowInvalid, OSError) as error:
        raise NotProvenError(f"{path} is not a readable Parquet file: {error}") from error
