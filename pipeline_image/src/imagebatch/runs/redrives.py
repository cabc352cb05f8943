"""What redrives have changed: newer manifest and score rows for single images, laid over a shard's own.

A redrive never touches the files of the stages. It adds a numbered folder, and its `_DONE.json`, created
once, makes the rows in it count.
"""

from __future__ import annotations

import pyarrow as pa

from imagebatch.contracts.layout import redrive_done_path
from imagebatch.contracts.records import RedriveDone
from imagebatch.contracts.rows import SCORES_SCHEMA, ManifestRow, ScoreRow
from imagebatch.errors import NotProvenError
from imagebatch.runs.parts import Files, read_part


class Overlay:
    """The newest rows of all finished redrives of a run.

    Args:
        files: The run's files.
        redrives: Its finished redrives, oldest first.

    Attributes:
        redrives: The same.
    """

    def __init__(self, files: Files, redrives: list[RedriveDone]) -> None:
        self.redrives = redrives
        self._manifest: dict[str, ManifestRow] = {}
        self._scores: dict[str, ScoreRow] = {}
        for redrive in redrives:
            for row in read_part(files, redrive.manifest).to_pylist():
                self._manifest[row["image_id"]] = row
                self._scores.pop(row["image_id"], None)
            self._scores |= {row["image_id"]: row for row in read_part(files, redrive.scores).to_pylist()}

    def apply(self, manifest: pa.Table, scores: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return a shard's manifest and scores with the redriven rows in place of the old ones."""
        redriven = self._manifest.keys() & set(manifest["image_id"].to_pylist())
        if not redriven:
            return manifest, scores
        rows = [self._manifest.get(row["image_id"], row) for row in manifest.to_pylist()]
        old = {row["image_id"]: row for row in scores.to_pylist() if row["image_id"] not in redriven}
        answers = old | {name: row for name, row in self._scores.items() if name in redriven}
        merged = [answers[row["image_id"]] for row in rows if row["image_id"] in answers]
        return (
            pa.Table.from_pylist(rows, manifest.schema),
            pa.Table.from_pylist(merged, SCORES_SCHEMA),
        )


def finished_redrives(files: Files) -> list[RedriveDone]:
    """Read the redrives whose rows count, oldest first."""
    found: list[RedriveDone] = []
    while True:
        path = redrive_done_path(len(found) + 1)
        try:
            found.append(RedriveDone.model_validate_json(files.read(path)))
        except FileNotFoundError:
            return found
        except ValueError as error:
            raise NotProvenError(f"{path} is not what redrive wrote: {error}") from error
