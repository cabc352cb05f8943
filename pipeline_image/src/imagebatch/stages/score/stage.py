"""The stage: scores shards as one stream, and finishes each once."""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from imagebatch.contracts.allowance import allowed_failures
from imagebatch.contracts.layout import done_path, telemetry_path
from imagebatch.contracts.records import Plan, RunDescription, ShardDone
from imagebatch.errors import ConfigurationError
from imagebatch.log import get_logger
from imagebatch.observe.metrics import Metric
from imagebatch.observe.progress import Progress
from imagebatch.observe.timeline import recorded
from imagebatch.runs.description import read_description, read_plan
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.runs.listing import Listing, open_listing
from imagebatch.runs.sampling import sampled_positions
from imagebatch.scorer.scorer import Engine, Row
from imagebatch.settings import ScoreSettings
from imagebatch.stages.score.cache import PredictionCache
from imagebatch.stages.score.shard import ShardInProgress
from imagebatch.stages.score.threshold import Threshold

log = get_logger()

_Key = tuple[int, int]  # shard, part


@dataclass(frozen=True, slots=True)
class ShardScore:
    """What scoring a shard came to; `resumed` images an earlier attempt has scored, `cached` another run."""

    shard: int
    predicted: int
    failed: int
    resumed: int
    cached: int = 0


def _name(settings: ScoreSettings) -> str:
    return "score" if settings.shard < 0 else f"score shard {settings.shard}"


@recorded(_name)
def score(settings: ScoreSettings) -> list[ShardScore]:
    """Scores one shard, or all of them; finished ones are left as they are.

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
    outcomes = {shard: done for shard in wanted if (done := _finished(run, shard))}
    left = [shard for shard in wanted if shard not in outcomes]
    if left:
        stage = _Stage(run, description, plan, settings)
        begun = time.monotonic()
        with open_listing(run) as listing:
            for outcome in stage.score_shards(left, listing):
                outcomes[outcome.shard] = outcome
            scored = sum(_newly(outcomes[shard]) for shard in left)
            if settings.bench and scored:
                _measure_ceilings(run, description, settings, listing, scored / (time.monotonic() - begun))
    return [outcomes[shard] for shard in wanted]


def _measure_ceilings(
    run: RunFolder, description: RunDescription, settings: ScoreSettings, listing: Listing, achieved: float
) -> None:
    from imagebatch.measure import short_bench  # noqa: PLC0415 (only where it is asked for)

    shard = max(0, settings.shard)
    name = "all" if settings.shard < 0 else f"shard-{shard:05d}"
    uris = listing.manifest(shard)["uri"].to_pylist()
    short_bench(run, description, settings, uris, achieved=achieved, name=name)


def _newly(outcome: ShardScore) -> int:
    return outcome.predicted + outcome.failed - outcome.resumed - outcome.cached


def _finished(run: RunFolder, shard: int) -> ShardScore | None:
    if not run.exists(done_path(shard)):
        return None
    done = ShardDone.model_validate_json(run.read(done_path(shard)))
    log.info("shard is finished already", shard=shard, attempt=done.attempt)
    return ShardScore(shard, done.predicted, done.failed, done.predicted + done.failed)


class _Stage:
    """Scores shards as one stream: the last requests of one are under way with the first of the next."""

    def __init__(
        self, run: RunFolder, description: RunDescription, plan: Plan, settings: ScoreSettings
    ) -> None:
        self._run = run
        self._digest = description.model.digest
        self._shard_size = description.shard_size
        self._engine = Engine(description, settings)
        self._deadline = settings.deadline
        self._threshold = Threshold(
            allowed=allowed_failures(description.max_failures, plan.listed),
            rejected=plan.rejected,
            in_a_row=settings.max_consecutive_failures,
        )
        wanted = settings.embeddings if self._engine.gives_embeddings else 0
        self._sample = sampled_positions(description.run_id, plan.listed, wanted) if wanted else []
        self._begun: dict[int, ShardInProgress] = {}
        self._reported: dict[str, float] = {}
        self._outcomes: list[ShardScore] = []
        self._cache = (
            PredictionCache(Path(settings.cache), description.model, description.top_k)
            if settings.cache
            else None
        )

    def score_shards(self, shards: list[int], listing: Listing) -> list[ShardScore]:
        """Finishes each shard as soon as it is complete; gives their outcomes."""
        name = f"score shard {shards[0]}" if len(shards) == 1 else "score"
        with Progress(name, listing.images_in(shards), self._deadline) as progress:
            pieces = self._engine.scored(self._left(shards, listing, progress), self._keep)
            for (shard, part), rows in pieces:
                progress.advance(len(rows), failed=sum(row["reason"] is not None for row in rows))
                self._begun[shard].add(part, rows)
                self._finish_complete()
            self._finish_complete()
        if self._cache:
            self._cache.close()
        return self._outcomes

    def _left(
        self, shards: list[int], listing: Listing, progress: Progress
    ) -> Iterator[tuple[_Key, list[Row]]]:
        for shard in shards:
            # Two scorers could supersede each other, at two shards: who has lost one begins no more.
            for held in self._begun.values():
                held.require_newest()
            manifest = listing.manifest(shard)
            begun = ShardInProgress(
                self._run,
                shard,
                manifest,
                digest=self._digest,
                threshold=self._threshold,
                cache=self._cache,
                embed=self._sampled(manifest, shard * self._shard_size),
            )
            self._begun[shard] = begun
            progress.advance(begun.rejected + begun.resumed, earlier=True)
            for part, rows in begun.left():
                yield (shard, part), rows
            progress.advance(begun.cached)
            self._engine.telemetry.add(Metric.CACHED, begun.cached)
            self._finish_complete()  # nothing may have been left to ask

    def _sampled(self, manifest: pa.Table, start: int) -> frozenset[str]:
        """Ids of a shard's images that are in the run's sample; `start` is the position of its first."""
        first, end = (bisect.bisect_left(self._sample, start + rows) for rows in (0, manifest.num_rows))
        rows = [at - start for at in self._sample[first:end]]
        return frozenset(manifest["image_id"].take(pa.array(rows, pa.int64())).to_pylist())

    def _keep(self, key: _Key, rows: list[Row]) -> None:
        shard, part = key
        self._begun[shard].keep(part, rows)

    def _finish_complete(self) -> None:
        for begun in [begun for begun in self._begun.values() if begun.complete]:
            self._engine.require_model()
            done = begun.finish()
            del self._begun[begun.number]
            self._report(begun)
            counts = (done.predicted, done.failed, begun.resumed, begun.cached)
            self._outcomes.append(ShardScore(begun.number, *counts))

    def _report(self, shard: ShardInProgress) -> None:
        """Writes what was counted since the shard before this one was finished."""
        total = self._engine.telemetry.counts()
        counts = {name: round(value - self._reported.get(name, 0), 3) for name, value in total.items()}
        self._reported = total
        path = telemetry_path(shard.number, shard.attempt)
        self._run.write(path, (json.dumps(counts) + "\n").encode())
        log.info("shard scored", shard=shard.number, attempt=shard.attempt, **counts)
