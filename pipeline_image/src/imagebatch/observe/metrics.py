"""What imagebatch measures: the names in a run's `telemetry/`, and those that Prometheus sees.

Prometheus' conventions: base units, `_total` for what only grows, no run id as a label. A batch job is gone
when it would be scraped, so what it shows is pushed and stays: it is about the newest run of a pipeline, and
its counts begin at 0 with each attempt at a stage. `docs/reference/metrics.md` lists the same names.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum


class Metric(StrEnum):
    """Names of the counts of scoring."""

    REQUESTS = "requests"
    IMAGES = "images"
    BYTES = "bytes"
    REQUEST_SECONDS = "request_seconds"
    RETRIES = "retries"
    WAIT_SECONDS = "wait_seconds"
    HALVINGS = "halvings"
    QUARANTINED = "quarantined"
    OUTAGES = "outages"
    OUTAGE_SECONDS = "outage_seconds"
    PROBES = "probes"
    CACHED = "cached"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as Prometheus sees it.

    Attributes:
        name: Full name.
        kind: `gauge` or `counter`.
        meaning: One sentence.
        labels: Names of its labels beside those of its group.
    """

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


def _gauge(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"imagebatch_{name}", "gauge", meaning, labels)


def _counter(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"imagebatch_{name}_total", "counter", meaning, labels)


# Of the newest run of a pipeline; their group is the pipeline.
RUN_START = _gauge("run_start_timestamp_seconds", "When its first stage began.")
RUN_DEADLINE = _gauge("run_deadline_timestamp_seconds", "When it must be done.")
RUN_IMAGES = _gauge(
    "run_images", "Images by outcome: listed, accepted, rejected, predicted, failed.", "outcome"
)
RUN_UNPREDICTED = _gauge("run_images_without_prediction", "Images rejected or failed, by reason.", "reason")
RUN_LEFT_OUT = _gauge("run_files_left_out", "Files of the input that are not listed, by reason.", "reason")
RUN_REVIEW = _gauge("run_images_to_review", "Predictions that are marked for a person.")
ACCURACY = _gauge(
    "labelled_accuracy",
    "Accuracy of the newest run whose random sample people have labelled: estimate, low and high (95 %); "
    "former_low: of up to ten such runs before, together.",
    "bound",
)
RUN_MODEL = _gauge(
    "run_model_info",
    "1; its labels say which model answers.",
    "model",
    "version",
    "digest",
    "backend",
    "engine",
)
LAST_SUCCESS = _gauge("last_success_timestamp_seconds", "When a certificate was last written.")
NEXT_RUN = _gauge("next_run_timestamp_seconds", "When the next run is expected to begin.")

# Of the newest attempt at a stage. Their group: the pipeline, the stage and, for one shard, the shard.
STAGE_START = _gauge("stage_start_timestamp_seconds", "When it began.")
STAGE_END = _gauge("stage_end_timestamp_seconds", "When it ended; absent while it works.")
STAGE_EXIT_CODE = _gauge("stage_exit_code", "How it ended; absent while it works.")
STAGE_EXPECTED = _gauge("stage_images_expected", "Images that it has to do with.")
STAGE_IMAGES = _counter(
    "stage_images", "Images done: ok, failed, or earlier (by an attempt before this one).", "outcome"
)
STAGE_CPU = _counter(
    "stage_cpu_seconds", "Processor time of the stage and its children, without the model server."
)
STAGE_MEMORY = _gauge("stage_memory_max_bytes", "Most memory that it has held.")
DISK_FREE = _gauge("runs_disk_free_bytes", "Free on the disk of the runs, where that is a folder.")
DISK_SIZE = _gauge("runs_disk_size_bytes", "Size of the disk of the runs, where that is a folder.")
IN_FLIGHT = _gauge(
    "scoring_in_flight_limit", "Requests that may be under way at once, as found while scoring."
)
PACK_SIZE = _gauge("scoring_pack_images", "Images per request, as found while scoring.")
FAULTS = _counter("scoring_faults", "Requests and probes that brought no answers, by kind of fault.", "fault")
SCORING = {
    Metric.REQUESTS: _counter("scoring_requests", "Requests answered."),
    Metric.IMAGES: _counter("scoring_images", "Images in answered requests."),
    Metric.BYTES: _counter("scoring_bytes", "Bytes of image files in answered requests."),
    Metric.REQUEST_SECONDS: _counter(
        "scoring_request_seconds", "Time that answered requests took, all added up."
    ),
    Metric.RETRIES: _counter("scoring_retries", "Requests made again."),
    Metric.WAIT_SECONDS: _counter("scoring_wait_seconds", "Pauses before requests, all threads added up."),
    Metric.HALVINGS: _counter("scoring_halvings", "Requests cut in two to find the image at fault."),
    Metric.QUARANTINED: _counter(
        "scoring_quarantined", "Images given up because requests with them alone fail."
    ),
    Metric.OUTAGES: _counter("scoring_outages", "Times that the model API was away."),
    Metric.OUTAGE_SECONDS: _counter("scoring_outage_seconds", "Time until it was back."),
    Metric.PROBES: _counter("scoring_probes", "Times that it was asked whether it is ready."),
    Metric.CACHED: _counter("scoring_cached_images", "Images answered out of the cache."),
}

RUN_FAMILIES = (
    RUN_START,
    RUN_DEADLINE,
    RUN_IMAGES,
    RUN_UNPREDICTED,
    RUN_LEFT_OUT,
    RUN_REVIEW,
    ACCURACY,
    RUN_MODEL,
    LAST_SUCCESS,
    NEXT_RUN,
)
STAGE_FAMILIES = (
    STAGE_START,
    STAGE_END,
    STAGE_EXIT_CODE,
    STAGE_EXPECTED,
    STAGE_IMAGES,
    STAGE_CPU,
    STAGE_MEMORY,
    DISK_FREE,
    DISK_SIZE,
    IN_FLIGHT,
    PACK_SIZE,
    FAULTS,
    *SCORING.values(),
)


class Telemetry:
    """Counts by name, and faults by kind. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, metric: Metric, amount: float = 1) -> None:
        """Add to a count."""
        with self._lock:
            self._counts[metric.value] += amount  # type: ignore[assignment]  # typeshed: Counter holds int only

    def fault(self, kind: str) -> None:
        """Count a request that failed, by kind of fault."""
        with self._lock:
            self._counts[f"fault_{kind}"] += 1

    def counts(self) -> dict[str, float]:
        """Everything counted so far, rounded to milliseconds."""
        with self._lock:
            return {name: round(value, 3) for name, value in sorted(self._counts.items())}
