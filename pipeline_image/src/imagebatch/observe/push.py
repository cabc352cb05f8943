"""Push what a stage shows to a Pushgateway: when it begins, every few seconds, and when it ends.

Off unless an address is set. A push never fails or delays a stage: all of them are made in a thread of their
own, the stage's end waits for the last one for `LONGEST_WAIT` at most, and a gateway that does not take them
is complained about once.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Iterator
from urllib.error import URLError

from prometheus_client import CollectorRegistry, push_to_gateway, pushadd_to_gateway
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from imagebatch.errors import one_line
from imagebatch.log import get_logger
from imagebatch.observe import metrics
from imagebatch.observe.metrics import Family
from imagebatch.observe.stage_metrics import Sample, StageMetrics
from imagebatch.settings import RunSettings

log = get_logger()

JOB = "imagebatch"
TIMEOUT = 3.0  # seconds for one answer of the gateway
LONGEST_WAIT = 4.0  # seconds that the end of a stage may wait for the last push


class Pushing:
    """A thread that pushes what a stage shows, until the stage ends.

    Args:
        stage: Name of the stage.
        settings: Address of the gateway, name of the pipeline, seconds between pushes.
        shown: What is pushed.
    """

    def __init__(self, stage: str, settings: RunSettings, shown: StageMetrics) -> None:
        self._settings = settings
        self._shown = shown
        suite, shard = getattr(settings, "suite", ""), getattr(settings, "shard", -1)
        self._pipeline = {"pipeline": settings.pipeline}
        self._stage = {**self._pipeline, "stage": f"{stage}_{suite}" if suite else stage}
        if shard >= 0:
            self._stage["shard"] = str(shard)
        self._ending = threading.Event()
        self._complained = False
        self._thread = threading.Thread(target=self._push_until_the_end, name="metrics", daemon=True)
        self._thread.start()

    def expect(self, images: int) -> None:
        """Leave it to the values that are pushed."""

    def advance(self, images: int, failed: int, *, earlier: bool) -> None:
        """Leave it to the values that are pushed."""

    def end(self, error: BaseException | None) -> None:  # noqa: ARG002 (the values that are pushed tell of it)
        """Push for the last time, and wait for that a little."""
        self._ending.set()
        self._thread.join(LONGEST_WAIT)
        if self._thread.is_alive():
            self._complain(f"no answer in {LONGEST_WAIT:g} s")

    def _push_until_the_end(self) -> None:
        while True:
            last = self._ending.is_set()
            try:
                self._push()
            except (OSError, URLError, ValueError) as error:
                self._complain(str(error))
            if last:
                return
            self._ending.wait(self._settings.metrics_interval)

    def _push(self) -> None:
        samples = [*self._shown.samples(), *_disk(self._settings.runs_uri)]
        url = self._settings.metrics_url
        of_run = [sample for sample in samples if sample[0] in metrics.RUN_FAMILIES]
        of_stage = [sample for sample in samples if sample[0] not in metrics.RUN_FAMILIES]
        if of_run:
            # Added to what earlier stages have pushed: a family that this stage does not know stays.
            pushadd_to_gateway(url, JOB, _registry(of_run), self._pipeline, TIMEOUT)
        push_to_gateway(url, JOB, _registry(of_stage), self._stage, TIMEOUT)

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "metrics are not pushed; the stage goes on without",
                url=self._settings.metrics_url,
                reason=one_line(reason, 200),
            )


def push_of_run(settings: RunSettings, samples: list[Sample]) -> None:
    """Push values of a pipeline's run that no stage shows, if a Pushgateway is set; it may fail.

    Args:
        settings: Address of the gateway, name of the pipeline.
        samples: Of RUN_FAMILIES; each replaces all that was pushed of its family.
    """
    if not settings.metrics_url or not samples:
        return
    try:
        group = {"pipeline": settings.pipeline}
        pushadd_to_gateway(settings.metrics_url, JOB, _registry(samples), group, TIMEOUT)
    except (OSError, URLError, ValueError) as error:
        log.warning("metrics are not pushed", url=settings.metrics_url, reason=one_line(error, 200))


class _Samples(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    def collect(self) -> Iterator[Metric]:
        families: dict[Family, CounterMetricFamily | GaugeMetricFamily] = {}
        for family, labels, value in self._samples:
            if family not in families:
                kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
                families[family] = kind(family.name, family.meaning, labels=family.labels)
            families[family].add_metric(labels, value)
        yield from families.values()


def _registry(samples: Iterable[Sample]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(samples))
    return registry


def _disk(runs_uri: str) -> Iterator[Sample]:
    """Yield size and free bytes of the runs' disk; nothing for a bucket, or a folder still to be made."""
    try:
        usage = shutil.disk_usage(runs_uri.removeprefix("file://"))
    except OSError:
        return
    yield metrics.DISK_FREE, (), usage.free
    yield metrics.DISK_SIZE, (), usage.total
