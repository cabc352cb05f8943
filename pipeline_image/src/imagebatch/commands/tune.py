"""The command `tune`: measure real scoring with many settings and write the best to a file."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebatch.commands.prepared_run import PreparedRun, prepared_run, score_settings
from imagebatch.contracts.records import ModelPin
from imagebatch.errors import ModelApiUnavailableError, StorageError
from imagebatch.local_file import replace_text
from imagebatch.log import get_logger
from imagebatch.measure.search import Candidate, Search, decide, grid
from imagebatch.measure.tune_table import table
from imagebatch.measure.workers import Workers, counts, reachable_workers
from imagebatch.model_apis.local.pool import cores
from imagebatch.scorer.scorer import Scorer
from imagebatch.settings import TuneSettings

log = get_logger()


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result.

    Attributes:
        best: The settings chosen.
        rate: Images per second with them, median.
        spread: Half the range of their measurements, as a share of the rate.
        workers: TorchServe workers chosen; 0 if their number was not tried.
        tried: How many settings were measured.
        output: The file written.
    """

    best: Candidate
    rate: float
    spread: float
    workers: int
    tried: int
    output: str

    def as_json(self) -> dict[str, Any]:
        """Return the result for the command's last line."""
        return {
            "pack_size": self.best.pack_size,
            "in_flight": self.best.in_flight,
            "workers": self.workers,
            "images_per_second": round(self.rate, 1),
            "spread": round(self.spread, 4),
            "tried": self.tried,
            "settings_file": self.output,
        }


def tune(settings: TuneSettings) -> Tuned:
    """Try settings on a real input, write the settings file and print the table.

    Raises:
        NothingToDoError: The input has no image that can be scored.
        ModelApiUnavailableError: The model API failed while it was measured.
        StorageError: The settings file cannot be written.
    """
    _require_writable(Path(settings.output))
    with prepared_run(settings) as run:
        pin = run.description.model
        workers, unknown = reachable_workers(settings, pin)
        trial = _Trial(settings, run)
        trial.rate(Candidate(settings.in_flight, settings.pack_size))  # warms the server up
        with _restored(workers):
            search = Search(trial.rate, settings.rounds)
            best = search.run(grid(len(run.rows)))
            by_workers = _by_workers(workers, trial, best, settings.rounds)
            chosen = 0
            if workers:
                chosen = decide(by_workers, workers.change)
                workers.found = chosen  # this is how it stays
    rate, spread = search.rate(best), search.spread(best)
    if chosen:
        rate = statistics.median(sweep[chosen] for sweep in by_workers)
    result = Tuned(best.for_workers(chosen), rate, spread, chosen, len(search.rates), settings.output)
    replace_text(Path(settings.output), _content(result, pin), "--output")
    print(table(search, best, by_workers, chosen, unknown))  # noqa: T201 (what the command is for)
    return result


class _Trial:
    def __init__(self, settings: TuneSettings, run: PreparedRun) -> None:
        self._settings = settings
        self._run = run

    def rate(self, candidate: Candidate) -> float:
        """Score the whole input and return images per second, from files to answers."""
        asked = score_settings(self._settings, self._run.folder, "none").model_copy(
            update={"pack_size": candidate.pack_size, "in_flight": candidate.in_flight}
        )
        scorer = Scorer.connect(self._run.description, asked)
        begun = time.perf_counter()
        done = sum(len(rows) for _, rows in scorer.scored([(0, self._run.rows)]))
        rate = done / (time.perf_counter() - begun)
        failed = {
            name: count for name, count in scorer.telemetry.counts().items() if name.startswith("fault")
        }
        if failed and sum(failed.values()) > done / candidate.pack_size:
            raise ModelApiUnavailableError(f"more requests failed than were answered: {failed}; see its log")
        log.info(
            "measured", pack_size=candidate.pack_size, in_flight=candidate.in_flight, rate=round(rate, 1)
        )
        return rate


@contextlib.contextmanager
def _restored(workers: Workers | None) -> Iterator[None]:
    """Set the number of workers back if the search fails or is interrupted."""
    try:
        yield
    finally:
        if workers:
            workers.scale(workers.found)


def _by_workers(
    workers: Workers | None, trial: _Trial, best: Candidate, rounds: int
) -> list[dict[int, float]]:
    """Measure the rate for each number of workers, in sweeps; empty if the number cannot be changed."""
    sweeps: list[dict[int, float]] = []
    if workers is None:
        return sweeps
    for _ in range(rounds):
        sweep: dict[int, float] = {}
        for count in counts(cores(), workers.found):
            workers.scale(count)
            sweep[count] = trial.rate(best.for_workers(count))
        sweeps.append(sweep)
    return sweeps


def _content(result: Tuned, pin: ModelPin) -> str:
    machine = f"{platform.node()}, {platform.machine()}, {cores()} cores"
    lines = [
        f"# Written by imagebatch tune on {machine}, for {pin.name} {pin.version} {pin.digest}:",
        f"# {result.rate:.0f} images/s, the best of {result.tried} settings tried.",
        f"IMAGEBATCH_PACK_SIZE={result.best.pack_size}",
        f"IMAGEBATCH_IN_FLIGHT={result.best.in_flight}",
    ]
    if result.workers:
        lines += [
            "# TorchServe's: `imagebatch models scale` sets it.",
            f"IMAGEBATCH_WORKERS={result.workers}",
        ]
    return "\n".join(lines) + "\n"


def _require_writable(path: Path) -> None:
    """Raise now rather than after minutes of measuring."""
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise StorageError(f"--output {path}: not a file in a folder that can be written")
