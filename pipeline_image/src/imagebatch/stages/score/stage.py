"""The stage: score one shard or all of them, and finish each once."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from imagebatch.contracts.allowance import allowed_failures
from imagebatch.contracts.layout import done_path
from imagebatch.contracts.records import Plan, RunDescription
from imagebatch.errors import ConfigurationError, DataRefusedError
from imagebatch.log import get_logger
from imagebatch.observe.stage import observed
from imagebatch.runs.description import read_description, read_plan
from imagebatch.runs.finished import read_done
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.runs.listing import Listing, open_listing
from imagebatch.runs.sampling import sampled_positions
from imagebatch.runs.unfinished import write_failures_so_far
from imagebatch.scorer.scorer import Scorer
from imagebatch.settings import ScoreSettings
from imagebatch.stages.score.cache import PredictionCache
from imagebatch.stages.score.stream import OpenShards, ShardScore, ShardStream
from imagebatch.stages.score.threshold import Threshold
from imagebatch.stages.score.trust import Trust

log = get_logger()


def _title(settings: ScoreSettings) -> str:
    return "score" if settings.shard < 0 else f"score shard {settings.shard}"


@observed("score", title=_title)
def score(settings: ScoreSettings) -> list[ShardScore]:
    """Score one shard, or all of them; finished ones are left as they are.

    Raises:
        ConfigurationError: There is no such run or shard, or preprocess has not finished it.
        ModelChangedError: The served model is not the one that the run was started with.
        ModelApiUnavailableError: The model API did not answer.
        DataRefusedError: More failures than allowed; what is scored is kept.
        RunHeldError: A newer attempt works on the shard.
        NotProvenError: A record of the run is not what a stage wrote.
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
        with contextlib.ExitStack() as stack:
            stream = _stream(run, description, plan, settings, stack)
            begun = time.monotonic()
            listing = stack.enter_context(open_listing(run))
            try:
                for outcome in stream.score(left, listing):
                    outcomes[outcome.shard] = outcome
            except DataRefusedError as refused:
                raise DataRefusedError(f"{refused}; failures: {write_failures_so_far(run)}") from refused
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
    done = read_done(run, shard)
    log.info("shard is finished already", shard=shard, attempt=done.attempt)
    return ShardScore(shard, done.predicted, done.failed, done.predicted + done.failed)


def _stream(
    run: RunFolder,
    description: RunDescription,
    plan: Plan,
    settings: ScoreSettings,
    stack: contextlib.ExitStack,
) -> ShardStream:
    """Connect to the model API; what is opened is closed with `stack`."""
    scorer = Scorer.connect(description, settings)
    cache = None
    if settings.cache:
        cache = PredictionCache(Path(settings.cache), description.model, description.top_k)
        stack.callback(cache.close)
    threshold = Threshold(
        allowed=allowed_failures(description.max_failures, plan.listed),
        rejected=plan.rejected,
        in_a_row=settings.max_consecutive_failures,
    )
    wanted = settings.embeddings if scorer.gives_embeddings else 0
    trust = Trust(description.model, description.top_k)
    return ShardStream(
        scorer,
        OpenShards(run, scorer, trust=trust, threshold=threshold, cache=cache),
        shard_size=description.shard_size,
        sample=sampled_positions(description.run_id, plan.listed, wanted) if wanted else [],
        deadline=settings.deadline,
    )
