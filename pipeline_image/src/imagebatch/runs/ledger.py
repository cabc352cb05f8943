"""What a run's files say about each image of a shard, joined and balanced.

A shard's listing, manifest and scores hold the same ids in the same order; anything else is an error, never
a row less.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from imagebatch.errors import NotProvenError


@dataclass(frozen=True, slots=True)
class ShardLedger:
    """One shard's images, each in exactly one of three tables, all sorted by id.

    Attributes:
        number: Of the shard.
        manifest: Every listed image (MANIFEST_SCHEMA).
        rejected: The manifest's rows with a reason.
        predicted: Score rows without a reason (SCORES_SCHEMA).
        failed: Score rows with a reason.
        carried: What the list says about every listed image, by the list's columns; none were asked for
            where it has no column.
    """

    number: int
    manifest: pa.Table
    rejected: pa.Table
    predicted: pa.Table
    failed: pa.Table
    carried: pa.Table


def balanced_ledger(shard: int, manifest: pa.Table, scores: pa.Table, carried: pa.Table) -> ShardLedger:
    """Join a shard's manifest (MANIFEST_SCHEMA), scores (SCORES_SCHEMA) and carried columns.

    Raises:
        NotProvenError: The scores do not hold exactly the accepted images of the manifest.
    """
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
        carried=carried,
    )
