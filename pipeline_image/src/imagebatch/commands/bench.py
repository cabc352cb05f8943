"""The command `bench`: measure everything in interleaved rounds, so that all figures see the same machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from imagebatch.commands.prepared_run import PreparedRun, prepared_run, score_settings
from imagebatch.inputs.source import image_source
from imagebatch.log import get_logger
from imagebatch.measure import (
    Ceiling,
    Figure,
    Reading,
    Verdict,
    coded_as,
    measure_inprocess,
    open_inprocess,
    read_sample,
    server_ceiling,
    storage_ceiling,
    verdict,
)
from imagebatch.measure.bench_table import table
from imagebatch.measure.clock import Clock
from imagebatch.model_apis import open_backend
from imagebatch.model_apis.base import ModelApi
from imagebatch.model_apis.local.pool import LocalModel, cores
from imagebatch.settings import BenchSettings
from imagebatch.stages.score import score

log = get_logger()

Readings = dict[Ceiling, Reading]

_WARM_UP_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Bench:
    """The result.

    Attributes:
        figures: What was measured.
        verdict: What it comes to.
        missing: Why the in-process ceilings were not measured; empty if they were.
        images: Images per scored run.
        cores: Cores that this machine lets us use.
    """

    figures: dict[Ceiling, Figure]
    verdict: Verdict
    missing: str
    images: int
    cores: int

    def as_json(self) -> dict[str, Any]:
        """Return the figures for the command's last line."""
        return {
            "line": self.verdict.line,
            "ratio": round(self.verdict.ratio, 4),
            "bound_by": self.verdict.bound_by,
            "reference": self.verdict.reference.value,
            "wall_ms": self.verdict.milliseconds,
            "images": self.images,
            "cores": self.cores,
            "images_per_second": {name.value: figure.as_json() for name, figure in self.figures.items()},
        }


def bench(settings: BenchSettings) -> Bench:
    """Measure the ceilings and a real score of the input, and print the table.

    Raises:
        NothingToDoError: The input has no image that can be scored.
        ConfigurationError: `--model-archive` is not the served model.
        ModelApiUnavailableError: The model API failed while it was measured.
    """
    with prepared_run(settings) as run:
        local, missing = open_inprocess(settings, run.description.model, settings.seconds)
        with ExitStack() as opened:
            if local:
                opened.callback(local.close)
            api = open_backend(settings.backend, settings, settings.model, settings.model_version)
            opened.callback(api.close)
            measurements = _Measurements(settings, run, api, local)
            measured = _rounds(measurements, settings.rounds)
        result = Bench(measured, verdict(measured, measurements.coded), missing, len(run.rows), cores())
    print(table(result.figures, result.verdict, missing))  # noqa: T201 (what the command is for)
    return result


def _rounds(measure: _Measurements, rounds: int) -> dict[Ceiling, Figure]:
    readings: dict[Ceiling, list[Reading]] = defaultdict(list)
    for number in range(rounds + 1):
        found = measure.round(number)
        rates = {name.value: round(reading.rate, 1) for name, reading in found.items()}
        log.info("round" if number else "warm-up, does not count", number=number, **rates)
        for name, reading in found.items() if number else ():
            readings[name].append(reading)
    return {name: Figure.of(readings[name]) for name in Ceiling if name in readings}


class _Measurements:
    def __init__(
        self, settings: BenchSettings, run: PreparedRun, api: ModelApi, local: LocalModel | None
    ) -> None:
        self._settings = settings
        self._run = run
        self._api = api
        self._local = local
        self._source = image_source(settings)
        self._sample = read_sample(run.uris, self._source)
        self.coded = coded_as(self._sample)

    def round(self, number: int) -> Readings:
        """Take one reading of everything; number 0 is the warm-up."""
        seconds = self._settings.seconds if number else _WARM_UP_SECONDS
        steps: list[Callable[[int], Readings]] = [self._storage, self._inprocess, self._server]
        found: Readings = {}
        for step in steps:
            found |= step(seconds)
        return found | self._achieved(f"round-{number}")

    def _storage(self, seconds: int) -> Readings:
        readers = self._settings.in_flight + 1  # as many as the scorer reads with
        reading = storage_ceiling(self._settings, self._source, self._run.uris, readers, seconds)
        return {Ceiling.STORAGE: reading}

    def _inprocess(self, seconds: int) -> Readings:
        if self._local is None:
            return {}
        found = measure_inprocess(self._local, self._sample, seconds)
        return {Ceiling.DECODE: found.decode, Ceiling.MODEL: found.model, Ceiling.IN_PROCESS: found.both}

    def _server(self, seconds: int) -> Readings:
        if not self._api.has_server:
            return {}
        reading = server_ceiling(
            self._api,
            self._sample,
            pack_size=self._settings.pack_size,
            in_flight=self._settings.in_flight,
            top_k=self._settings.top_k,
            seconds=seconds,
        )
        return {Ceiling.SERVER: reading}

    def _achieved(self, run_id: str) -> Readings:
        """Time a real score, from files to finished shards; with the backend `local`, its start too."""
        self._run.copy(run_id)
        asked = score_settings(self._settings, self._run.folder, run_id)
        clock = Clock()
        scored = score(asked)
        reading = clock.reading(sum(shard.predicted + shard.failed for shard in scored))
        self._run.remove(run_id)
        return {Ceiling.ACHIEVED: reading}
