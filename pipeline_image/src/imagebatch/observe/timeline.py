"""When each stage of a run began and ended, and how many images it did meanwhile.

Not part of the result: times differ from run to run, so they stand in `telemetry/stages/` and no certificate
covers them. A record that cannot be written is worth a warning, never a failed stage.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from imagebatch.contracts.layout import STAGES
from imagebatch.errors import ImagebatchError
from imagebatch.log import get_logger
from imagebatch.observe.cpu import cpu_seconds
from imagebatch.runs.folder import RunFolder, open_run
from imagebatch.settings import RunSettings

log = get_logger()

S = TypeVar("S", bound=RunSettings)
R = TypeVar("R")
P = ParamSpec("P")

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
    """Notes what one stage does. `advance` may be called from several threads only under a lock."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._started = datetime.now(UTC)
        self._clock, self._cpu = time.monotonic(), cpu_seconds()
        self._width = 1.0
        self._series: list[int] = []
        self._images = self._failed = 0

    def advance(self, images: int, failed: int) -> None:
        """Notes that images are done, now."""
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
        """What was noted."""
        return StageRecord(
            stage=self._stage,
            started=self._started,
            seconds=round(time.monotonic() - self._clock, 3),
            cpu_seconds=round(cpu_seconds() - self._cpu, 3),
            outcome=outcome,
            images=self._images,
            failed=self._failed,
            bucket_seconds=self._width,
            series=self._series,
        )


_current: ContextVar[Recorder | None] = ContextVar("imagebatch_stage", default=None)


def note(images: int, failed: int) -> None:
    """Notes images of the stage that this context records, if it records one."""
    if recorder := _current.get():
        recorder.advance(images, failed)


def recorded(
    name: Callable[[S], str],
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], R]]:
    """Decorates a stage's function, so that every attempt leaves a record in the run.

    Args:
        name: Names the stage, from its settings.
    """

    def decorate(stage: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
        @functools.wraps(stage)
        def call(settings: S, /, *more: P.args, **named: P.kwargs) -> R:
            recorder = Recorder(name(settings))
            token = _current.set(recorder)
            outcome = "done"
            try:
                return stage(settings, *more, **named)
            except BaseException as error:
                outcome = type(error).__name__
                raise
            finally:
                _current.reset(token)
                _write(settings, recorder.record(outcome))

        return call

    return decorate


def read_timeline(run: RunFolder) -> list[StageRecord]:
    """Every recorded attempt, in the order of their beginnings; what cannot be read is left out."""
    records = []
    for path in run.list(STAGES):
        try:
            records.append(StageRecord.model_validate_json(run.read(path)))
        except (ValidationError, FileNotFoundError) as error:
            log.warning("a stage's record is left out", path=path, error=type(error).__name__)
    return sorted(records, key=lambda record: record.started)


def _write(settings: RunSettings, record: StageRecord) -> None:
    name = f"{record.started:%Y%m%dT%H%M%S}-{record.stage.replace(' ', '-')}-{uuid.uuid4().hex[:8]}"
    try:
        run = open_run(settings.runs_uri, settings.run_id)
        if run.exists("run.json"):  # a run that was never begun gets no folder
            run.write(f"{STAGES}/{name}.json", (record.model_dump_json() + "\n").encode())
    except ImagebatchError as error:
        log.warning("the stage's times are not recorded", error=str(error))
