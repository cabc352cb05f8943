"""The stage: read ahead, many images per request, few requests in flight, parts in order."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from imagebatch.backends import open_backend
from imagebatch.backends.base import Answer, ImagePayload
from imagebatch.backends.patience import Patience, patiently
from imagebatch.contracts import (
    SCORES_SCHEMA,
    DonePart,
    Reason,
    RunDescription,
    ShardDone,
    done_path,
    manifest_path,
    sha256_hex,
)
from imagebatch.errors import ConfigurationError, ModelChangedError
from imagebatch.ledger import read_description, shard_count
from imagebatch.log import get_logger
from imagebatch.metrics import Telemetry
from imagebatch.progress import Progress
from imagebatch.score.attempts import Attempt
from imagebatch.score.pace import Pace
from imagebatch.score.packs import PackScorer
from imagebatch.settings import ScoreSettings
from imagebatch.storage.inputs import ImageUnavailableError, image_source
from imagebatch.storage.runs import RunFolder, open_run

log = get_logger()

# What a crash costs at most, beside the requests in flight. Fixed: an attempt can adopt the parts of an
# earlier one only if both cut a shard alike.
PART_ROWS = 256

Row = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")


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
        RunHeldError: A newer attempt works on the shard.
    """
    run = open_run(settings.runs_uri, settings.run_id)
    description = read_description(run)
    shards = shard_count(run)
    if settings.shard >= shards:
        raise ConfigurationError(f"run {settings.run_id} has shards 0 to {shards - 1}, not {settings.shard}")
    wanted = range(shards) if settings.shard < 0 else [settings.shard]
    stage = _Stage(run, description, settings)
    return [stage.score_shard(shard) for shard in wanted]


class _Stage:
    def __init__(self, run: RunFolder, description: RunDescription, settings: ScoreSettings) -> None:
        self._run = run
        self._description = description
        self._settings = settings
        self._source = image_source(description)
        self._telemetry = Telemetry()
        pin = description.model
        api = open_backend(description.backend, settings, pin.name, pin.version)
        found = patiently(api.describe, settings.retry_seconds)
        if found.digest != pin.digest:
            raise ModelChangedError(
                f"{pin.name} {pin.version} is now {found.digest},"
                f" the run was started with {pin.digest}; start a new run"
            )
        self._patience = Patience(api.ready, settings.retry_seconds, self._telemetry)
        self._pace = Pace(settings.in_flight, settings.pack_size, settings.request_timeout)
        self._packs = PackScorer(
            api,
            digest=pin.digest,
            top_k=description.top_k,
            pace=self._pace,
            patience=self._patience,
            telemetry=self._telemetry,
        )

    def score_shard(self, shard: int) -> ShardScore:
        if self._run.exists(done_path(shard)):
            done = ShardDone.model_validate_json(self._run.read(done_path(shard)))
            log.info("shard is finished already", shard=shard, attempt=done.attempt)
            return ShardScore(shard, done.predicted, done.failed, done.predicted + done.failed)
        attempt = Attempt(self._run, shard)
        manifest = self._run.read_table(manifest_path(shard))
        accepted = manifest.filter(pc.is_null(manifest["reason"])).select(["image_id", "uri", "sha256"])
        parts = [accepted.slice(start, PART_ROWS) for start in range(0, accepted.num_rows, PART_ROWS)]
        adopted = self._adopt(attempt, parts)
        resumed = sum(part.rows for part, _ in adopted.values())
        if resumed:
            log.info(
                "parts of an earlier attempt adopted", shard=shard, attempt=attempt.number, images=resumed
            )
        with Progress(f"score shard {shard}", accepted.num_rows) as progress:
            progress.advance(resumed)
            fresh = {
                number: (attempt.write_part(number, table), failures_in(table))
                for number, table in self._scored(parts, adopted.keys(), progress)
            }
        result = [part for _, part in sorted((adopted | fresh).items())]
        failed = sum(failures for _, failures in result)
        predicted = accepted.num_rows - failed
        attempt.finish(
            ShardDone(
                attempt=attempt.number, parts=[part for part, _ in result], predicted=predicted, failed=failed
            )
        )
        return ShardScore(shard, predicted, failed, resumed)

    def _adopt(self, attempt: Attempt, parts: list[pa.Table]) -> dict[int, tuple[DonePart, int]]:
        """Parts that earlier attempts finished, where they hold the rows and the model that they must."""
        adopted: dict[int, tuple[DonePart, int]] = {}
        for number, paths in attempt.earlier_parts().items():
            for path in paths if number < len(parts) else []:
                data = self._run.read(path)
                table = trusted_part(data, parts[number], self._description.model.digest)
                if table is not None:
                    part = DonePart(path=path, sha256=sha256_hex(data), rows=table.num_rows)
                    adopted[number] = (part, failures_in(table))
        return adopted

    def _scored(
        self, parts: list[pa.Table], adopted: Iterable[int], progress: Progress
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yields (number, scores) of the parts that are left, in order, while later packs are under way."""
        left = ((number, part) for number, part in enumerate(parts) if number not in adopted)
        packs = ((number, rows) for number, part in left for rows in self._packs_of(part))
        done = bounded_map(self._score_pack, packs, threads=self._settings.in_flight + 1)
        for number, group in itertools.groupby(done, key=lambda item: item[0]):
            rows: list[Row] = []
            for _, pack in group:
                progress.advance(len(pack), failed=sum(row["reason"] is not None for row in pack))
                rows += pack
            yield number, pa.Table.from_pylist(rows, SCORES_SCHEMA)

    def _packs_of(self, part: pa.Table) -> Iterator[list[Row]]:
        """Cuts a part into packs of the size that suits the server when each is begun."""
        start = 0
        while start < part.num_rows:
            size = self._pace.limits.pack_size
            yield part.slice(start, size).to_pylist()
            start += size

    def _score_pack(self, item: tuple[int, list[Row]]) -> tuple[int, list[Row]]:
        number, rows = item
        try:
            return number, self._answered(rows)
        except BaseException:
            self._patience.give_up()  # the other threads' waiting is in vain
            raise

    def _answered(self, rows: list[Row]) -> list[Row]:
        answers: dict[int, Answer] = {}
        images: list[ImagePayload] = []
        positions: list[int] = []
        for position, row in enumerate(rows):
            try:
                data = self._read(row)
            except ImageUnavailableError as refused:
                answers[position] = Answer(reason=refused.reason, detail=refused.detail)
            else:
                images.append(ImagePayload(f"{position}-{row['sha256'][:16]}", data))
                positions.append(position)
        answers |= zip(positions, self._packs.score(images), strict=True)
        digest = self._description.model.digest
        return [score_row(row, answers[position], digest) for position, row in enumerate(rows)]

    def _read(self, row: Row) -> bytes:
        data = self._source.read(row["uri"])
        if sha256_hex(data) != row["sha256"]:
            raise ImageUnavailableError(Reason.CONTENT_CHANGED, "the file is not the one that preprocess saw")
        return data


def score_row(row: Row, answer: Answer, digest: str) -> Row:
    """One row of SCORES_SCHEMA."""
    known = {reason.value for reason in Reason}
    reason = answer.reason if answer.reason in known else Reason.DECODE_FAILED.value
    return {
        "image_id": row["image_id"],
        "sha256": row["sha256"],
        "model_digest": digest,
        "labels": list(answer.labels) or None,
        "probabilities": list(answer.probabilities) or None,
        "reason": str(reason) if answer.reason else None,
        "detail": answer.detail if answer.reason else None,
    }


def failures_in(table: pa.Table) -> int:
    """Rows without a prediction."""
    return int(table.num_rows - table["reason"].null_count)


def trusted_part(data: bytes, expected: pa.Table, digest: str) -> pa.Table | None:
    """An earlier attempt's part, if it is whole, holds the expected images and is of this model."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError):
        return None
    same = table.schema.equals(SCORES_SCHEMA) and all(
        table[column].equals(expected[column]) for column in ("image_id", "sha256")
    )
    return table if same and set(table["model_digest"].unique().to_pylist()) <= {digest} else None


def bounded_map(call: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[R]:
    """Like `Executor.map`, in order, but never more than a few items ahead of the consumer."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(call, item))
                if len(waiting) >= threads + 2:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
