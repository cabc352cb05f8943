"""When each stage of a run began and ended, and how many images it did meanwhile.

Not part of the result: times differ from run to run, so they stand in `telemetry/stages/` and no certificate
covers them. A record that cannot be written is worth a warning, never a failed stage.
"""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from imagebatch.contracts.layout import STAGES
from imagebatch.errors import ImagebatchError
from imagebatch.log import get_logger
from imagebatch.observe.cpu import tree_cpu_seconds
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.settings import RunSettings

log = get_logger()

# A stage's series never grows beyond this: then its buckets are made twice as wide.
MOST_BUCKETS = 240


class StageRecord(BaseModel):
    """One attempt at a stage.

    Attributes:
        stage: `preprocess`, `check manifest`, `score shard 3`, …
        started: UTC.
        seconds: Wall clock.
        cpu_seconds: User and system time of this process and of all that it started.
        outcome: `done`, or the name of the error that ended it.
        images: Images done.
        failed: Those of them without a result.
        bucket_seconds: Width of a bucket of `series`.
        series: Images done in each bucket since `started`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    started: datetime
    seconds: float
    cpu_seconds: float
    outcome: str
    images: int
    failed: int
    bucket_seconds: float
    series: list[int]


class Recorder:
    """Notes what one stage does. One call at a time."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._started = datetime.now(UTC)
        self._clock, self._cpu = time.monotonic(), tree_cpu_seconds()
        self._width = 1.0
        self._series: list[int] = []
        self._images = self._failed = 0

    def expect(self, images: int) -> None:
        """Note nothing: a record tells what was done, not what was to come."""

    def advance(self, images: int, failed: int, *, earlier: bool = False) -> None:  # noqa: ARG002 (done is done)
        """Note that images are done, now."""
        self._images += images
        self._failed += failed
        elapsed = time.monotonic() - self._clock
        while elapsed >= self._width * MOST_BUCKETS:
            pairs = range(0, len(self._series), 2)
            self._series = [sum(self._series[at : at + 2]) for at in pairs]
            self._width *= 2
        bucket = int(elapsed / self._width)
        self._series += [0] * (bucket + 1 - len(self._series))
        self._series[bucket] += images

    def record(self, outcome: str) -> StageRecord:
        """Return what was noted."""
        return StageRecord(
            stage=self._stage,
            started=self._started,
            seconds=round(time.monotonic() - self._clock, 3),
            cpu_seconds=round(tree_cpu_seconds() - self._cpu, 3),
            outcome=outcome,
            images=self._images,
            failed=self._failed,
            bucket_seconds=self._width,
            series=self._series,
        )


class Recording(Recorder):
    """Records one attempt at a stage, and writes the record into its run.

    Args:
        stage: Names the attempt.
        settings: Where the run is.
    """

    def __init__(self, stage: str, settings: RunSettings) -> None:
        super().__init__(stage)
        self._settings = settings

    def end(self, error: BaseException | None) -> None:
        """Write the record; the outcome is `done` or the name of the error."""
        _write(self._settings, self.record(type(error).__name__ if error else "done"))


def read_timeline(run: RunFolder) -> list[StageRecord]:
    """Read every recorded attempt, in the order of their beginnings; what cannot be read is left out."""
    records = []
    for path in run.list(STAGES):
        try:
            records.append(StageRecord.model_validate_json(run.read(path)))
        except (ValidationError, FileNotFoundError) as error:
            log.warning("a stage's record is left out", path=path, error=type(error).__name__)
    return sorted(records, key=lambda record: record.started)


def busy_seconds(records: list[StageRecord]) -> float:
    """Return the wall clock during which at least one of these stages was at work, in seconds."""
    total, end = 0.0, float("-inf")
    for record in sorted(records, key=lambda one: one.started):
        begun = record.started.timestamp()
        finished = begun + record.seconds
        total += max(0.0, finished - max(begun, end))
        end = max(end, finished)
    return total


def _write(settings: RunSettings, record: StageRecord) -> None:
    name = f"{record.started:%Y%m%dT%H%M%S}-{record.stage.replace(' ', '-')}-{uuid.uuid4().hex[:8]}"
    try:
        run = open_run(settings.runs_uri, settings.run_id)
        if run.exists("run.json"):  # a run that was never begun gets no folder
            run.write(f"{STAGES}/{name}.json", (record.model_dump_json() + "\n").encode())
    except ImagebatchError as error:
        log.warning("the stage's times are not recorded", error=str(error))
