"""The stage: scores a shard part by part, adopts what earlier attempts finished, and finishes it once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from imagebatch.contracts import (
    SCORES_SCHEMA,
    DonePart,
    Plan,
    RunDescription,
    ShardDone,
    allowed_failures,
    done_path,
    sha256_hex,
    telemetry_path,
)
from imagebatch.errors import ConfigurationError
from imagebatch.ledger import Listing, open_listing, read_description, read_plan
from imagebatch.log import get_logger
from imagebatch.progress import Progress
from imagebatch.score.attempts import Attempt
from imagebatch.score.threshold import Threshold
from imagebatch.scoring.engine import Engine, Row
from imagebatch.settings import ScoreSettings
from imagebatch.storage.runs import RunFolder, open_run, parquet_rows

log = get_logger()

# What a crash costs at most, beside the requests in flight. Fixed: an attempt can adopt the parts of an
# earlier one only if both cut a shard alike.
PART_ROWS = 256


@dataclass(frozen=True, slots=True)
class ShardScore:
    """What scoring a shard came to; `resumed` images were scored by an earlier attempt."""

    shard: int
    predicted: int
    failed: int
    resumed: int


def score(settings: ScoreSettings) -> list[ShardScore]:
    """Scores one shard, or all of them one after the other; finished ones are left as they are.

    Raises:
        ConfigurationError: There is no such run or shard, or preprocess has not finished it.
        ModelChangedError: The served model is not the one that the run was started with.
        ModelApiUnavailableError: The model API did not answer.
        DataRefusedError: More failures than allowed; what is scored is kept.
        RunHeldError: A newer attempt works on the shard.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    description = read_description(run)
    plan = read_plan(run)
    if settings.shard >= plan.shards:
        raise ConfigurationError(
            f"run {settings.run_id} has shards 0 to {plan.shards - 1}, not {settings.shard}"
        )
    wanted = list(range(plan.shards)) if settings.shard < 0 else [settings.shard]
    finished = {shard: done for shard in wanted if (done := _finished(run, shard))}
    if len(finished) == len(wanted):
        return [finished[shard] for shard in wanted]
    stage = _Stage(run, description, plan, settings)
    with open_listing(run) as listing:
        return [finished.get(shard) or stage.score_shard(shard, listing) for shard in wanted]


def _finished(run: RunFolder, shard: int) -> ShardScore | None:
    if not run.exists(done_path(shard)):
        return None
    done = ShardDone.model_validate_json(run.read(done_path(shard)))
    log.info("shard is finished already", shard=shard, attempt=done.attempt)
    return ShardScore(shard, done.predicted, done.failed, done.predicted + done.failed)


class _Stage:
    def __init__(
        self, run: RunFolder, description: RunDescription, plan: Plan, settings: ScoreSettings
    ) -> None:
        self._run = run
        self._digest = description.model.digest
        self._engine = Engine(description, settings)
        self._deadline = settings.deadline
        self._threshold = Threshold(
            allowed=allowed_failures(description.max_failures, plan.listed),
            rejected=plan.rejected,
            in_a_row=settings.max_consecutive_failures,
        )

    def score_shard(self, shard: int, listing: Listing) -> ShardScore:
        attempt = Attempt(self._run, shard)
        manifest = listing.manifest(shard)
        accepted = manifest.filter(pc.is_null(manifest["reason"])).select(["image_id", "uri", "sha256"])
        parts = [accepted.slice(start, PART_ROWS) for start in range(0, accepted.num_rows, PART_ROWS)]
        result = self._adopt(attempt, parts)
        resumed = sum(part.rows for part, _ in result.values())
        if resumed:
            log.info(
                "parts of an earlier attempt adopted", shard=shard, attempt=attempt.number, images=resumed
            )
        left = {number: part for number, part in enumerate(parts) if number not in result}
        with Progress(f"score shard {shard}", accepted.num_rows, self._deadline) as progress:
            progress.advance(resumed)
            for number, table in self._scored(left, progress):
                result[number] = (attempt.write_part(number, table), _failures_in(table))
                self._threshold.add(table["reason"].to_pylist())
        self._engine.require_model()
        ordered = [result[number] for number in sorted(result)]
        failed = sum(failures for _, failures in ordered)
        predicted = accepted.num_rows - failed
        attempt.finish(
            ShardDone(
                attempt=attempt.number,
                parts=[part for part, _ in ordered],
                predicted=predicted,
                failed=failed,
            )
        )
        self._report(shard, attempt.number)
        return ShardScore(shard, predicted, failed, resumed)

    def _adopt(self, attempt: Attempt, parts: list[pa.Table]) -> dict[int, tuple[DonePart, int]]:
        """Parts that earlier attempts finished, where they hold the rows and the model that they must."""
        found: dict[int, tuple[DonePart, list[str | None]]] = {}
        for number, paths in attempt.earlier_parts().items():
            for path in paths if number < len(parts) else []:
                data = self._run.read(path)
                table = _trusted_part(data, parts[number], self._digest)
                if table is not None:
                    part = DonePart(path=path, sha256=sha256_hex(data), rows=table.num_rows)
                    found[number] = (part, table["reason"].to_pylist())
        if not self._threshold.tolerates(itertools.chain(*(reasons for _, reasons in found.values()))):
            # The attempt before was stopped for these failures; their cause may be gone by now.
            log.info("parts with failures are scored again", attempt=attempt.number)
            found = {number: kept for number, kept in found.items() if not any(kept[1])}
        for _, reasons in found.values():
            self._threshold.add(reasons)
        return {number: (part, sum(map(bool, reasons))) for number, (part, reasons) in found.items()}

    def _scored(self, left: dict[int, pa.Table], progress: Progress) -> Iterator[tuple[int, pa.Table]]:
        """Yields (number, scores) of the parts that are left, each as soon as its last row is there."""
        pieces = self._engine.scored((number, part.to_pylist()) for number, part in left.items())
        rows: list[Row] = []
        for number, piece in pieces:
            progress.advance(len(piece), failed=sum(row["reason"] is not None for row in piece))
            rows += piece
            if len(rows) == left[number].num_rows:
                yield number, pa.Table.from_pylist(rows, SCORES_SCHEMA)
                rows = []

    def _report(self, shard: int, attempt: int) -> None:
        counts = self._engine.telemetry.counts()
        self._run.write(telemetry_path(shard, attempt), (json.dumps(counts) + "\n").encode())
        log.info("shard scored", shard=shard, attempt=attempt, **counts)


def _failures_in(table: pa.Table) -> int:
    return int(table.num_rows - table["reason"].null_count)


def _trusted_part(data: bytes, expected: pa.Table, digest: str) -> pa.Table | None:
    """An earlier attempt's part, if it is whole, holds the expected images and is of this model."""
    try:
        table = parquet_rows(data)
    except (pa.ArrowInvalid, OSError):
        return None
    same = table.schema.equals(SCORES_SCHEMA) and all(
        table[column].equals(expected[column]) for column in ("image_id", "sha256")
    )
    return table if same and set(table["model_digest"].unique().to_pylist()) <= {digest} else None
