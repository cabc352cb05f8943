"""The values that one attempt at a stage shows to Prometheus; `push` sends them.

A process works at one stage at a time. Report a value with `current().metrics.show(...)`, see
`observe/stage.py`. Without a Pushgateway the values are collected and thrown away.
"""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from imagebatch.contracts.records import LeftOut, LeftOutCounts, ModelPin, Plan, Reason
from imagebatch.errors import ExitCode, ImagebatchError
from imagebatch.observe import metrics
from imagebatch.observe.cpu import tree_cpu_seconds
from imagebatch.observe.metrics import Family, Telemetry

Sample = tuple[Family, tuple[str, ...], float]


class StageMetrics:
    """Values of one attempt at a stage. Safe to use from several threads.

    Attributes:
        started: When the attempt began, in seconds since 1970.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[Family, tuple[str, ...]], float] = {}
        self._sources: list[Callable[[], Iterator[Sample]]] = []
        self._cpu_before = tree_cpu_seconds()
        self.started = time.time()
        self.show(metrics.STAGE_START, self.started)

    def show(self, family: Family, value: float, *labels: str) -> None:
        """Set a value; `labels` are those of the family, in its order."""
        with self._lock:
            self._values[family, labels] = value

    def add(self, family: Family, amount: float, *labels: str) -> None:
        """Add to a value that begins at 0."""
        with self._lock:
            self._values[family, labels] = self._values.get((family, labels), 0.0) + amount

    def expect(self, images: int) -> None:
        """Note that the stage has `images` more to do with."""
        self.add(metrics.STAGE_EXPECTED, images)
        for outcome in ("ok", "failed", "earlier"):
            self.add(metrics.STAGE_IMAGES, 0, outcome)

    def watch_scoring(
        self, telemetry: Telemetry, limits: Callable[[], tuple[int, int]], faults: Iterable[str]
    ) -> None:
        """Show what scoring counts, and its limits: requests in flight, images per request.

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
        """Show what preprocess found."""
        for outcome in ("listed", "accepted", "rejected"):
            self.show(metrics.RUN_IMAGES, getattr(plan, outcome), outcome)
        self._left_out(plan.left_out)
        self.show(metrics.RUN_MODEL, 1, model.name, model.version, model.digest, backend, model.engine)

    def certified(self, counts: dict[str, int], reasons: dict[str, int], left_out: LeftOutCounts) -> None:
        """Show that the run has its certificate.

        Args:
            counts: Images by outcome.
            reasons: Images without a prediction, by reason.
            left_out: Files that were not listed, by reason and suffix.
        """
        for outcome, images in {**counts, "accepted": counts["listed"] - counts["rejected"]}.items():
            self.show(metrics.RUN_IMAGES, images, outcome)
        for reason in Reason:  # all of them, so that a reason of the run before goes back to 0
            self.show(metrics.RUN_UNPREDICTED, reasons.get(reason.value, 0), reason.value)
        self._left_out(left_out)
        self.show(metrics.LAST_SUCCESS, time.time())

    def _left_out(self, counts: LeftOutCounts) -> None:
        for reason in LeftOut:
            self.show(metrics.RUN_LEFT_OUT, sum(counts.get(reason.value, {}).values()), reason.value)

    def due(self, family: Family, when: datetime | None) -> None:
        """Show a time to come, if there is one."""
        if when is not None:
            self.show(family, when.timestamp())

    def advance(self, images: int, failed: int, *, earlier: bool) -> None:
        """Note that `images` more are done; those of an `earlier` attempt are counted apart."""
        self.add(metrics.STAGE_IMAGES, images - failed, "earlier" if earlier else "ok")
        self.add(metrics.STAGE_IMAGES, failed, "failed")

    def end(self, error: BaseException | None) -> None:
        """Show the end of the stage, and the exit code that its error has."""
        known = int(error.exit_code) if isinstance(error, ImagebatchError) else int(ExitCode.UNFORESEEN)
        self.show(metrics.STAGE_END, time.time())
        self.show(metrics.STAGE_EXIT_CODE, known if error else 0)

    def samples(self) -> list[Sample]:
        """Return everything to show at this moment."""
        with self._lock:
            values, sources = dict(self._values), list(self._sources)
        found = {(family, labels): value for source in sources for family, labels, value in source()}
        found |= values
        found[metrics.STAGE_CPU, ()] = tree_cpu_seconds() - self._cpu_before
        found[metrics.STAGE_MEMORY, ()] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return [(family, labels, value) for (family, labels), value in found.items()]
