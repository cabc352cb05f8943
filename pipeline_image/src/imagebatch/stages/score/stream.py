"""Shards scored as one stream: the last requests of one are under way with the first of the next.

Three arrows meet here. The scorer pulls the rows to ask, its threads push each request's answers into the
journal, and the results come back in order:

                          main thread                              the scorer's threads

    ShardStream.score ◄─── 3. results, in order ──── Scorer.scored ◄───── answers ───── model API
          │                                             │                   │
          │ add: a part is written                      │ 1. pulls          │ 2. pushes: keep
          ▼ when all its rows are there                 ▼                   ▼
      OpenShards ◄─────────── begin ─────────── ShardStream._to_ask      journal of the shard
          │
          └── a shard whose parts are all written is finished: `_DONE.json`

So a shard is begun while the one before it still waits for answers, and a killed process loses at most the
requests in flight.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from imagebatch.contracts.layout import telemetry_path
from imagebatch.contracts.rows import AskedRow, ScoreRow
from imagebatch.log import get_logger
from imagebatch.observe.metrics import Metric
from imagebatch.observe.progress import Progress
from imagebatch.runs.folder import RunFolder
from imagebatch.runs.listing import Listing
from imagebatch.scorer.scorer import Scorer
from imagebatch.stages.score.cache import PredictionCache
from imagebatch.stages.score.shard import ShardInProgress
from imagebatch.stages.score.threshold import Threshold
from imagebatch.stages.score.trust import Trust

log = get_logger()

Key = tuple[int, int]  # shard, part


@dataclass(frozen=True, slots=True)
class ShardScore:
    """What scoring a shard came to; `resumed` images an earlier attempt has scored, `cached` another run."""

    shard: int
    predicted: int
    failed: int
    resumed: int
    cached: int = 0


class OpenShards:
    """The shards that are begun and not finished.

    Args:
        run: The run's files.
        scorer: Says whether the model is still the run's, and what it has counted.
        trust: Judges what earlier attempts left.
        threshold: Counts failures of all shards.
        cache: Predictions of other runs.

    Attributes:
        outcomes: Of the shards that are finished, in the order of their ends.
    """

    def __init__(
        self,
        run: RunFolder,
        scorer: Scorer,
        *,
        trust: Trust,
        threshold: Threshold,
        cache: PredictionCache | None,
    ) -> None:
        self._run = run
        self._scorer = scorer
        self._trust = trust
        self._threshold = threshold
        self._cache = cache
        self._open: dict[int, ShardInProgress] = {}
        self._reported: dict[str, float] = {}
        self.outcomes: list[ShardScore] = []

    def begin(self, shard: int, manifest: pa.Table, embed: frozenset[str]) -> ShardInProgress:
        """Claim a shard, and take over what earlier attempts left of it.

        Raises:
            RunHeldError: A newer attempt has taken a shard over that is open here. Two scorers could
                supersede each other, at two shards: whoever has lost one begins no more.
        """
        # All take the shards in one order: whoever has passed this scorer has taken its newest, too.
        if newest := next(reversed(self._open.values()), None):
            newest.require_newest()
        begun = ShardInProgress.begin(
            self._run,
            shard,
            manifest,
            trust=self._trust,
            threshold=self._threshold,
            cache=self._cache,
            embed=embed,
        )
        self._open[shard] = begun
        return begun

    def keep(self, key: Key, rows: list[ScoreRow]) -> None:
        """Keep what one request brought, whatever happens to this process; from any thread."""
        shard, part = key
        self._open[shard].keep(part, rows)

    def add(self, key: Key, rows: list[ScoreRow]) -> None:
        """Take rows of a part, and finish the shard if they were the last ones."""
        shard, part = key
        self._open[shard].add(part, rows)
        self.finish_complete()

    def finish_complete(self) -> None:
        """Finish every shard whose parts are all written."""
        for shard in [shard for shard in self._open.values() if shard.complete]:
            self._scorer.require_model()
            done = shard.finish()
            del self._open[shard.number]
            self._report(shard)
            counts = (done.predicted, done.failed, shard.resumed, shard.cached)
            self.outcomes.append(ShardScore(shard.number, *counts))

    def _report(self, shard: ShardInProgress) -> None:
        """Write what was counted since the shard before this one was finished."""
        total = self._scorer.telemetry.counts()
        counts = {name: round(value - self._reported.get(name, 0), 3) for name, value in total.items()}
        self._reported = total
        path = telemetry_path(shard.number, shard.attempt)
        self._run.write(path, (json.dumps(counts) + "\n").encode())
        log.info("shard scored", shard=shard.number, attempt=shard.attempt, **counts)


class ShardStream:
    """Scores shards one after the other, without a pause between them.

    Args:
        scorer: Asks the model.
        shards: Keeps what is begun.
        shard_size: Images per shard, as listed.
        sample: Positions in the whole listing of the images whose embeddings are wanted, rising.
        deadline: When the stage must be done, if there is such a time.
    """

    def __init__(
        self,
        scorer: Scorer,
        shards: OpenShards,
        *,
        shard_size: int,
        sample: list[int],
        deadline: datetime | None,
    ) -> None:
        self._scorer = scorer
        self._shards = shards
        self._shard_size = shard_size
        self._sample = sample
        self._deadline = deadline

    def score(self, wanted: list[int], listing: Listing) -> list[ShardScore]:
        """Finish each shard as soon as it is complete; return their outcomes.

        Args:
            wanted: Numbers of the shards.
            listing: The run's listing, open.
        """
        name = f"score shard {wanted[0]}" if len(wanted) == 1 else "score"
        with Progress(name, listing.images_in(wanted), self._deadline) as progress:
            for key, rows in self._scorer.scored(self._to_ask(wanted, listing, progress), self._shards.keep):
                progress.advance(len(rows), failed=sum(row["reason"] is not None for row in rows))
                self._shards.add(key, rows)
            self._shards.finish_complete()
        return self._shards.outcomes

    def _to_ask(
        self, wanted: list[int], listing: Listing, progress: Progress
    ) -> Iterator[tuple[Key, list[AskedRow]]]:
        for shard in wanted:
            manifest = listing.manifest(shard)
            begun = self._shards.begin(shard, manifest, self._sampled(manifest, shard * self._shard_size))
            progress.advance(begun.rejected + begun.resumed, earlier=True)
            for part, rows in begun.left():
                yield (shard, part), rows
            progress.advance(begun.cached)
            self._scorer.telemetry.add(Metric.CACHED, begun.cached)
            self._shards.finish_complete()  # nothing may have been left to ask

    def _sampled(self, manifest: pa.Table, start: int) -> frozenset[str]:
        """Name the images of a shard that are in the sample; `start` is the position of its first."""
        first, end = (bisect.bisect_left(self._sample, start + rows) for rows in (0, manifest.num_rows))
        rows = [at - start for at in self._sample[first:end]]
        return frozenset(manifest["image_id"].take(pa.array(rows, pa.int64())).to_pylist())
