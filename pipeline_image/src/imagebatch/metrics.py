"""What a stage counts while it works: every attempt, wait and fallback. All names stand here."""

from __future__ import annotations

import threading
from collections import Counter
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


class Telemetry:
    """Counts by name, and faults by kind. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, metric: Metric, amount: float = 1) -> None:
        """Adds to a count."""
        with self._lock:
            self._counts[metric.value] += amount  # type: ignore[assignment]  # typeshed: Counter holds int only

    def fault(self, kind: str) -> None:
        """Counts a request that failed, by kind of fault."""
        with self._lock:
            self._counts[f"fault_{kind}"] += 1

    def counts(self) -> dict[str, float]:
        """Everything counted so far, rounded to milliseconds."""
        with self._lock:
            return {name: round(value, 3) for name, value in sorted(self._counts.items())}
