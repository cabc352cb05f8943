"""A preprocessed run in a temporary folder, for commands that score the same input many times."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from imagebatch.contracts.records import RunDescription
from imagebatch.contracts.rows import AskedRow, asked_rows
from imagebatch.errors import NothingToDoError
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import open_run
from imagebatch.runs.listing import open_listing
from imagebatch.settings import MeasuringSettings, PreprocessSettings, ScoreSettings
from imagebatch.stages.preprocess import preprocess

_RUN = "prepared"


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """What preprocess made of the input.

    Attributes:
        folder: Where the run is.
        description: Its run.json.
        rows: Every accepted image.
    """

    folder: Path
    description: RunDescription
    rows: list[AskedRow]

    @property
    def uris(self) -> list[str]:
        """Where the accepted images are."""
        return [row["uri"] for row in self.rows]

    def copy(self, run_id: str) -> None:
        """Copy the planned run under another run id, to be scored from the beginning."""
        shutil.copytree(self.folder / _RUN, self.folder / run_id)

    def remove(self, run_id: str) -> None:
        """Remove a copy."""
        shutil.rmtree(self.folder / run_id)


@contextlib.contextmanager
def prepared_run(settings: MeasuringSettings) -> Iterator[PreparedRun]:
    """Preprocess the input; afterwards the folder is removed with all that is in it.

    Raises:
        NothingToDoError: No image was accepted.
    """
    with tempfile.TemporaryDirectory(prefix="imagebatch-bench-") as folder:
        # No run of a pipeline: nothing is pushed.
        own = {"run_id": _RUN, "runs_uri": folder, "metrics_url": "", "allow_empty": True}
        preprocess(settings.part(PreprocessSettings, **own))
        run = open_run(folder, _RUN)
        rows: list[AskedRow] = []
        with open_listing(run) as listing:
            for shard in range(listing.shards):
                manifest = listing.manifest(shard)
                accepted = manifest.filter(pc.is_null(manifest["reason"]))
                rows += asked_rows(accepted).to_pylist()
        if not rows:
            raise NothingToDoError("preprocess rejects every image of the input: nothing can be measured")
        yield PreparedRun(Path(folder), read_description(run), rows)


def score_settings(settings: MeasuringSettings, folder: Path, run_id: str) -> ScoreSettings:
    """Return the settings for scoring a copy.

    Without golden images and the cache, whatever the variables say: they would distort the rate.
    """
    own = {"run_id": run_id, "runs_uri": str(folder), "metrics_url": "", "golden": "", "bench": False}
    return settings.part(ScoreSettings, **own, shard=-1, cache="")
