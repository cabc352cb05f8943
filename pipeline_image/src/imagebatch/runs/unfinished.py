"""The failures of a run that a gate has stopped: what is known of them, for people."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from imagebatch.contracts.layout import FAILURES_CSV, scores_folder
from imagebatch.contracts.rows import SCORES_SCHEMA, ScoreRow
from imagebatch.runs import output_csv
from imagebatch.runs.folder import RunFolder, parquet_rows
from imagebatch.runs.ledger import ShardLedger
from imagebatch.runs.listing import open_listing


def write_failures_so_far(run: RunFolder) -> str:
    """Write failures.csv of all images that were rejected or have failed up to now.

    Postprocess writes it again, from what counts then.

    Returns:
        The file's path or URI.
    """
    with open_listing(run) as listing, run.publishing(FAILURES_CSV) as stream:
        stream.write(output_csv.csv_header(output_csv.FAILURE_COLUMNS))
        for shard, manifest in enumerate(listing.manifests()):
            ledger = ShardLedger(
                number=shard,
                manifest=manifest,
                rejected=manifest.filter(pc.is_valid(manifest["reason"])),
                predicted=SCORES_SCHEMA.empty_table(),
                failed=_failed(run, shard, set(manifest["image_id"].to_pylist())),
                carried=pa.table({}),  # predictions alone carry it
            )
            stream.write(output_csv.csv_lines(output_csv.failures(ledger)))
    return f"{run.uri}/{FAILURES_CSV}"


def _failed(run: RunFolder, shard: int, listed: set[str]) -> pa.Table:
    newest: dict[str, ScoreRow] = {}
    for table in _parts(run, shard):
        newest |= {row["image_id"]: row for row in table.to_pylist() if row["image_id"] in listed}
    failed = [row for row in newest.values() if row["reason"]]
    return pa.Table.from_pylist(failed, SCORES_SCHEMA)


def _parts(run: RunFolder, shard: int) -> Iterator[pa.Table]:
    """Read a shard's score parts, those of later attempts last."""
    parts = [path for path in run.list(scores_folder(shard)) if path.endswith(".parquet")]
    for path in sorted(parts, key=lambda path: path.rpartition("-attempt-")[2]):
        try:
            yield parquet_rows(run.read(path)).select(["image_id", "reason", "detail"])
        except (pa.ArrowInvalid, OSError, KeyError):
            continue  # whoever goes on with the run judges it; here it names nobody
