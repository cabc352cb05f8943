"""What a run's files say about each image of a shard, joined and balanced.

A shard's listing, manifest and scores hold the same ids in the same order; anything else is an error, never
a row less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagebatch.contracts import (
    LISTING,
    PLAN,
    RUN_JSON,
    SCORES_SCHEMA,
    Plan,
    RunDescription,
    ShardDone,
    done_path,
    manifest_path,
)
from imagebatch.errors import ConfigurationError, NotProvenError
from imagebatch.overlay import Overlay, parquet_table, read_part
from imagebatch.storage.runs import RunFolder


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


def shard_count(run: RunFolder) -> int:
    """Number of shards that preprocess planned."""
    with _listing(run) as listing:
        return int(listing.num_row_groups)


def listed_count(run: RunFolder) -> int:
    """Number of images that preprocess listed."""
    with _listing(run) as listing:
        return int(listing.metadata.num_rows)


def ledgers(run: RunFolder) -> Iterator[ShardLedger]:
    """Every shard's ledger, in the order of image ids.

    Raises:
        ConfigurationError: A stage has not finished.
        NotProvenError: Files disagree about the images, or differ from what was recorded about them.
    """
    overlay = Overlay(run)
    for shard in range(shard_count(run)):
        yield _ledger(run, shard, overlay)


def manifest_of(run: RunFolder, shard: int) -> pa.Table:
    """A shard's manifest, checked against the listing."""
    with _listing(run) as listing:
        ids = listing.read_row_group(shard, columns=["image_id"])["image_id"]
    try:
        data = run.read(manifest_path(shard))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"shard {shard} has no manifest: finish imagebatch preprocess first"
        ) from error
    manifest = parquet_table(data, manifest_path(shard))
    if not manifest["image_id"].equals(ids):
        raise NotProvenError(f"{manifest_path(shard)} does not hold exactly the images that were listed")
    return manifest


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
    return pa.concat_tables([SCORES_SCHEMA.empty_table(), *parts])


def _ledger(run: RunFolder, shard: int, overlay: Overlay) -> ShardLedger:
    manifest, scores = overlay.apply(manifest_of(run, shard), scores_of(run, shard))
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


@contextlib.contextmanager
def _listing(run: RunFolder) -> Iterator[pq.ParquetFile]:
    try:
        with run.reading(LISTING) as stream:
            yield pq.ParquetFile(stream)
    except FileNotFoundError as error:
        raise ConfigurationError(f"no listing at {run.uri}: finish imagebatch preprocess first") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise NotProvenError(f"{run.uri}/{LISTING} is not a readable Parquet file: {error}") from error
