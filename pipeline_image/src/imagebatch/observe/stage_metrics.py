"""What the stage at work shows to Prometheus; `push` sends it.

There is one such stage per process and moment. Who has something to show asks for it with `current()`; where
nothing is pushed, what they show is kept and forgotten.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from imagebatch.contracts.records import ModelPin, Plan, Reason
from imagebatch.observe import metrics
from imagebatch.observe.cpu import cpu_seconds
from imagebatch.observe.metrics import Family, Telemetry

Sample = tuple[Family, tuple[str, ...], float]


class StageMetrics:
    """Values of one attempt at a stage. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[Family, tuple[str, ...]], float] = {}
        self._sources: list[Callable[[], Iterator[Sample]]] = []
        self._cpu_before = cpu_seconds()
        self.show(metrics.STAGE_START, time.time())

    def show(self, family: Family, value: float, *labels: str) -> None:
        """Sets a value; `labels` are those of the family, in its order."""
        with self._lock:
            self._values[family, labels] = value

    def add(self, family: Family, amount: float, *labels: str) -> None:
        """Adds to a value that begins at 0."""
        with self._lock:
            self._values[family, labels] = self._values.get((family, labels), 0.0) + amount

    def expect(self, images: int) -> None:
        """Notes that the stage has `images` more to do with."""
        self.add(metrics.STAGE_EXPECTED, images)
        for outcome in ("ok", "failed", "earlier"):
            self.add(metrics.STAGE_IMAGES, 0, outcome)

    def watch_scoring(
        self, telemetry: Telemetry, limits: Callable[[], tuple[int, int]], faults: Iterable[str]
    ) -> None:
        """Shows what scoring counts, and its limits: requests in flight, images per request.

        Each kind of fault is shown from the beginning: Prometheus sees no increase in a count whose first
        value is not 0.
        """

        def samples() -> Iterator[Sample]:
            in_flight, pack = limits()
            yield metrics.IN_FLIGHT, (), in_flight
            yield metrics.PACK_SIZE, (), pack
            counts = telemetry.counts()
            for metric, family in metrics.SCORING.items():
                yield family, (), counts.get(metric.value, 0.0)
            for fault in faults:
                yield metrics.FAULTS, (str(fault),), counts.get(f"fault_{fault}", 0.0)

        with self._lock:
            self._sources.append(samples)

    def planned(self, plan: Plan, model: ModelPin, backend: str) -> None:
        """Shows what preprocess found."""
        for outcome in ("listed", "accepted", "rejected"):
            self.show(metrics.RUN_IMAGES, getattr(plan, outcome), outcome)
        self.show(metrics.RUN_MODEL, 1, model.name, model.version, model.digest, backend, model.engine)

    def certified(self, counts: dict[str, int], reasons: dict[str, int]) -> None:
        """Shows that the run has its certificate: images by outcome, and by reason where there is none."""
        for outcome, images in {**counts, "accepted": counts["listed"] - counts["rejected"]}.items():
            self.show(metrics.RUN_IMAGES, images, outcome)
        for reason in Reason:  # all of them, so that a reason of the run before goes back to 0
            self.show(metrics.RUN_UNPREDICTED, reasons.get(reason.value, 0), reason.value)
        self.show(metrics.LAST_SUCCESS, time.time())

    def due(self, family: Family, when: datetime | None) -> None:
        """Shows a time to come, if there is one."""
        if when is not None:
            self.show(family, when.timestamp())

    def ended(self, exit_code: int) -> None:
        """Shows the end of the stage."""
        self.show(metrics.STAGE_END, time.time())
        self.show(metrics.STAGE_EXIT_CODE, exit_code)

    def samples(self) -> list[Sample]:
        """Everything to show at this moment."""
        with self._lock:
            values, sources = dict(self._values), list(self._sources)
        found = {(family, labels): value for source in sources for family, labels, value in source()}
        found |= values
        found[metrics.STAGE_CPU, ()] = cpu_seconds() - self._cpu_before
        found[metrics.STAGE_MEMORY, ()] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return [(family, labels, value) for (family, labels), value in found.items()]


def current() -> StageMetrics:
    """The stage at work in this process."""
    return _current


def begin() -> StageMetrics:
    """Begins a stage: from now on it is the current one."""
    global _current  # noqa: PLW0603 - a process works at one stage at a time
    _current = StageMetrics()
    return _current


_current = StageMetrics()
