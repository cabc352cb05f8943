"""What a run's files say about each image of a shard, joined and balanced.

A shard's listing, manifest and scores hold the same ids in the same order; anything else is an error, never
a row less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagebatch.contracts.layout import LISTING, PLAN, RUN_JSON, done_path, manifest_path
from imagebatch.contracts.records import Plan, RunDescription, ShardDone
from imagebatch.contracts.rows import SCORES_SCHEMA
from imagebatch.errors import ConfigurationError, NotProvenError
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.redrives import Overlay, parquet_table, read_part


@dataclass(frozen=True, slots=True)
class ShardLedger:
    """One shard's images, each in exactly one of three tables, all sorted by id.

    Attributes:
        number: Of the shard.
        manifest: Every listed image (MANIFEST_SCHEMA).
        rejected: The manifest's rows with a reason.
        predicted: Score rows without a reason (SCORES_SCHEMA).
        failed: Score rows with a reason.
    """

    number: int
    manifest: pa.Table
    rejected: pa.Table
    predicted: pa.Table
    failed: pa.Table


def read_description(run: RunFolder) -> RunDescription:
    """run.json.

    Raises:
        ConfigurationError: There is no such run.
    """
    try:
        return RunDescription.model_validate_json(run.read(RUN_JSON))
    except FileNotFoundError as error:
        raise ConfigurationError(f"no run at {run.uri}: start it with imagebatch preprocess") from error
    except ValueError as error:
        raise NotProvenError(f"{run.uri}/{RUN_JSON} is not what preprocess wrote: {error}") from error


def read_plan(run: RunFolder) -> Plan:
    """What preprocess found.

    Raises:
        ConfigurationError: Preprocess has not finished.
    """
    try:
        return Plan.model_validate_json(run.read(PLAN))
    except FileNotFoundError as error:
        raise ConfigurationError(f"{run.uri} is not planned: finish imagebatch preprocess first") from error
    except ValueError as error:
        raise NotProvenError(f"{run.uri}/{PLAN} is not what preprocess wrote: {error}") from error


class Listing:
    """What preprocess listed, shard by shard.

    Args:
        run: The run's files.
        file: Its listing, open. Its footer names every shard, so it is read once and not for each of them.

    Attributes:
        shards: Number of shards that preprocess planned.
        images: Number of images that it listed.
    """

    def __init__(self, run: RunFolder, file: pq.ParquetFile) -> None:
        self._run = run
        self._file = file
        self.shards = int(file.num_row_groups)
        self.images = int(file.metadata.num_rows)

    def images_in(self, shards: Iterable[int]) -> int:
        """Number of images listed in some shards."""
        return sum(self._file.metadata.row_group(shard).num_rows for shard in shards)

    def manifest(self, shard: int) -> pa.Table:
        """A shard's manifest, checked against the listing.

        Raises:
            ConfigurationError: Preprocess has not finished it.
            NotProvenError: It does not hold the images that were listed.
        """
        path = manifest_path(shard)
        try:
            data = self._run.read(path)
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"shard {shard} has no manifest: finish imagebatch preprocess first"
            ) from error
        manifest = parquet_table(data, path)
        if not manifest["image_id"].equals(self._ids(shard)):
            raise NotProvenError(f"{path} does not hold exactly the images that were listed")
        return manifest

    def _ids(self, shard: int) -> pa.ChunkedArray:
        try:
            return self._file.read_row_group(shard, columns=["image_id"])["image_id"]
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(self._run, error) from error


def _unreadable(run: RunFolder, error: Exception) -> NotProvenError:
    return NotProvenError(f"{run.uri}/{LISTING} is not a readable Parquet file: {error}")


@contextlib.contextmanager
def open_listing(run: RunFolder) -> Iterator[Listing]:
    """The run's listing.

    Raises:
        ConfigurationError: Preprocess has not written it.
        NotProvenError: It is not a readable file.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = pq.ParquetFile(stack.enter_context(run.reading(LISTING)))
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"no listing at {run.uri}: finish imagebatch preprocess first"
            ) from error
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(run, error) from error
        yield Listing(run, file)


def shard_count(run: RunFolder) -> int:
    """Number of shards that preprocess planned."""
    with open_listing(run) as listing:
        return listing.shards


def listed_count(run: RunFolder) -> int:
    """Number of images that preprocess listed."""
    with open_listing(run) as listing:
        return listing.images


def manifests(run: RunFolder) -> Iterator[pa.Table]:
    """Every shard's manifest, in the order of image ids."""
    with open_listing(run) as listing:
        yield from map(listing.manifest, range(listing.shards))


def ledgers(run: RunFolder) -> Iterator[ShardLedger]:
    """Every shard's ledger, in the order of image ids.

    Raises:
        ConfigurationError: A stage has not finished.
        NotProvenError: Files disagree about the images, or differ from what was recorded about them.
    """
    overlay = Overlay(run)
    for shard, manifest in enumerate(manifests(run)):
        yield _ledger(shard, *overlay.apply(manifest, scores_of(run, shard)))


def done_of(run: RunFolder, shard: int) -> ShardDone:
    """Which score parts of a shard count."""
    try:
        return ShardDone.model_validate_json(run.read(done_path(shard)))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"shard {shard} is not scored: finish imagebatch score --shard {shard} first"
        ) from error
    except ValueError as error:
        raise NotProvenError(f"{done_path(shard)} is not what score wrote: {error}") from error


def scores_of(run: RunFolder, shard: int) -> pa.Table:
    """A shard's score rows, from the parts that count, each compared with its recorded digest."""
    parts = [read_part(run, part) for part in done_of(run, shard).parts]
    # Parts of an older version lack the newest column: it is filled with nulls.
    return pa.concat_tables([SCORES_SCHEMA.empty_table(), *parts], promote_options="default")


def _ledger(shard: int, manifest: pa.Table, scores: pa.Table) -> ShardLedger:
    refused = pc.is_valid(manifest["reason"])
    accepted = manifest.filter(pc.invert(refused))
    for column in ("image_id", "sha256"):
        if not scores[column].combine_chunks().equals(accepted[column].combine_chunks()):
            raise NotProvenError(
                f"the scores of shard {shard} do not hold exactly the images of its manifest"
            )
    unscored = pc.is_valid(scores["reason"])
    return ShardLedger(
        number=shard,
        manifest=manifest,
        rejected=manifest.filter(refused),
        predicted=scores.filter(pc.invert(unscored)),
        failed=scores.filter(unscored),
    )
