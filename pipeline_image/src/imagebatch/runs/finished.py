"""A run whose every shard is scored, read once: what postprocess, verify and redrive look at.

In a bucket every look at a file is a round trip, and a large run has thousands of them. The listing stays
open, records are kept, and a file that is read whole is proven by the way (`ProvenFiles`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from imagebatch.contracts.layout import (
    FAILURES_CSV,
    LEFT_OUT_CSV,
    LISTING,
    PLAN,
    PREDICTIONS_CSV,
    PREDICTIONS_PARQUET,
    RUN_JSON,
    done_path,
    manifest_path,
    redrive_done_path,
    rejects_path,
)
from imagebatch.contracts.records import RunDescription, ShardDone
from imagebatch.contracts.rows import SCORES_SCHEMA
from imagebatch.errors import ConfigurationError, NotProvenError
from imagebatch.runs.description import read_description
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.ledger import ShardLedger, balanced_ledger
from imagebatch.runs.listing import Listing, open_listing
from imagebatch.runs.parts import Files, read_part
from imagebatch.runs.proofs import ProvenFiles
from imagebatch.runs.redrives import Overlay, finished_redrives


class FinishedRun:
    """The files of a run whose every shard is scored.

    Args:
        files: The run's files.
        listing: Its listing, open.
        description: Its run.json.
        overlay: What its redrives have changed.

    Attributes:
        files: The run's files, each read once.
        listed: Number of images that preprocess listed.
        carried: The list's columns that are carried into the predictions.
        description: run.json.
        left_out: Files of the input that were not listed; None in runs of a version that did not say.
        redrives: Finished redrives, oldest first.
    """

    def __init__(
        self, files: ProvenFiles, listing: Listing, description: RunDescription, overlay: Overlay
    ) -> None:
        self.files = files
        self.listed = listing.images
        self.carried = listing.carried
        self.description = description
        self.left_out = listing.left_out
        self.redrives = overlay.redrives
        self._listing = listing
        self._overlay = overlay
        self._done: dict[int, ShardDone] = {}

    def ledgers(self) -> Iterator[ShardLedger]:
        """Read every shard's ledger, in the order of image ids.

        Raises:
            ConfigurationError: A stage has not finished.
            NotProvenError: Files disagree about the images, or differ from what was recorded about them.
        """
        for shard, manifest in enumerate(self._listing.manifests()):
            newest = self._overlay.apply(manifest, self.scores_of(shard))
            yield balanced_ledger(shard, *newest, self._listing.carried_by(shard))

    def scores(self) -> Iterator[pa.Table]:
        """Read every shard's score rows as its scorer wrote them, in the order of image ids."""
        return map(self.scores_of, range(self._listing.shards))

    def scores_of(self, shard: int) -> pa.Table:
        """Read a shard's score rows, from the parts that count, each compared with its recorded digest."""
        parts = [read_part(self.files, part) for part in self.done_of(shard).parts]
        # Parts of an older version lack the newest column: it is filled with nulls.
        return pa.concat_tables([SCORES_SCHEMA.empty_table(), *parts], promote_options="default")

    def done_of(self, shard: int) -> ShardDone:
        """Tell which score parts of a shard count.

        Raises:
            ConfigurationError: The shard is not scored.
            NotProvenError: Its record is not what score wrote.
        """
        if shard not in self._done:
            self._done[shard] = read_done(self.files, shard)
        return self._done[shard]

    @property
    def cached(self) -> int:
        """Number of predictions that came out of the cache."""
        return sum(self.done_of(shard).cached for shard in range(self._listing.shards))

    @property
    def endpoints(self) -> dict[str, int]:
        """Number of images that each of several endpoints has answered, by its address."""
        found: Counter[str] = Counter()
        for shard in range(self._listing.shards):
            found.update(self.done_of(shard).endpoints)
        return dict(sorted(found.items()))

    def certified_paths(self) -> list[str]:
        """Name every file that a certificate covers, in a fixed order."""
        shards = range(self._listing.shards)
        parts = [part.path for shard in shards for part in self.done_of(shard).parts]
        redriven = [
            path
            for redrive in self.redrives
            for path in (redrive_done_path(redrive.number), redrive.manifest.path, redrive.scores.path)
        ]
        left_out = self.left_out.names if self.left_out else None
        return [
            RUN_JSON,
            LISTING,
            *([left_out.path, LEFT_OUT_CSV] if left_out else []),
            PLAN,
            *(path(shard) for path in (manifest_path, rejects_path, done_path) for shard in shards),
            *parts,
            *redriven,
            PREDICTIONS_CSV,
            PREDICTIONS_PARQUET,
            FAILURES_CSV,
        ]


@contextlib.contextmanager
def open_finished(run: RunFolder) -> Iterator[FinishedRun]:
    """Open a run whose every shard is scored; what is not is found where it is read.

    Raises:
        ConfigurationError: There is no such run, or preprocess has not finished.
        NotProvenError: Its records are not what the stages wrote.
    """
    files = ProvenFiles(run)
    description = read_description(files)
    with open_listing(run, files) as listing:
        yield FinishedRun(files, listing, description, Overlay(files, finished_redrives(files)))


def read_done(files: Files, shard: int) -> ShardDone:
    """Read which score parts of a shard count.

    Raises:
        ConfigurationError: The shard is not scored.
        NotProvenError: Its record is not what score wrote.
    """
    try:
        return ShardDone.model_validate_json(files.read(done_path(shard)))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"shard {shard} is not scored: finish imagebatch score --shard {shard} first"
        ) from error
    except ValueError as error:
        raise NotProvenError(f"{done_path(shard)} is not what score wrote: {error}") from error
