"""The retry policy for model APIs: full jitter, a retry budget, a circuit breaker that probes, a time limit.

Pauses grow as `uniform(0, FIRST_PAUSE * 2**n)` ("full jitter": Brooker, Exponential Backoff And Jitter, AWS
Architecture Blog, 2015), so that many scorers do not come back at the same moment. Every retry takes one
from a budget that good answers fill (Google SRE book, chapter 21). When it is empty, or several requests in a
row have failed, one thread probes the API until it is ready, and all others wait for that thread.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from imagebatch.errors import ModelApiUnavailableError
from imagebatch.log import get_logger
from imagebatch.model_apis.base import ApiFaultError
from imagebatch.observe.metrics import Metric, Telemetry

log = get_logger()

T = TypeVar("T")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
# The longest pause that a server may ask for.
LONGEST_RETRY_AFTER = 300.0

BUDGET = 20.0
BUDGET_PER_ANSWER = 0.2
OUTAGE_AFTER = 5
# An API that answers this many probes, but no request in between, is treated as unavailable.
RECOVERIES = 5


class Patience:
    """The pauses between tries, and the time limit without any answer; shared by all threads of a scorer.

    Args:
        ready: Asks whether the API can answer; raises ApiFaultError if not.
        seconds: Longest time without any answer.
        telemetry: Where retries, waits and probes that failed are counted.
    """

    def __init__(self, ready: Callable[[], object], seconds: float, telemetry: Telemetry) -> None:
        self._ready = ready
        self._seconds = seconds
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._probing = threading.Lock()
        self._stop = threading.Event()
        self._cause: BaseException | None = None
        self._last_answer = time.monotonic()
        self._failed_in_a_row = self._recoveries = 0
        self._budget = BUDGET
        self._outages_over = 0

    def answered(self) -> None:
        """Note that the API has answered."""
        with self._lock:
            self._last_answer = time.monotonic()
            self._failed_in_a_row = self._recoveries = 0
            self._budget = min(BUDGET, self._budget + BUDGET_PER_ANSWER)

    def give_up(self, cause: BaseException) -> None:
        """End all pauses: a thread has failed for good, and the others fail with its cause."""
        with self._lock:
            self._cause = self._cause or cause
        self._stop.set()

    def pause(self, fault: ApiFaultError, tries: int) -> None:
        """Wait before try number `tries` + 1.

        Raises:
            ModelApiUnavailableError: There was no answer for too long.
        """
        self._telemetry.add(Metric.RETRIES)
        with self._lock:
            self._failed_in_a_row += 1
            self._budget -= 1
            outage = self._failed_in_a_row >= OUTAGE_AFTER or self._budget < 0
        if outage:
            self._outlast(fault)
        else:
            self.sleep(fault, tries)

    def _outlast(self, fault: ApiFaultError) -> None:
        """Probe until the API is ready; of several threads one probes and the others wait for it."""
        with self._lock:
            before = self._outages_over
        started = time.monotonic()
        with self._probing:
            if self._outages_over > before:
                return  # another thread has waited it out meanwhile
            self._telemetry.add(Metric.OUTAGES)
            log.warning("the model API fails: waiting until it is ready", fault=str(fault))
            tries = 0
            while not self._is_ready():
                self.sleep(fault, tries)
                tries += 1
            with self._lock:
                self._budget = BUDGET
                self._outages_over += 1
        seconds = time.monotonic() - started
        self._telemetry.add(Metric.OUTAGE_SECONDS, seconds)
        log.info("the model API is ready again", seconds=round(seconds, 1))

    def _is_ready(self) -> bool:
        self._telemetry.add(Metric.PROBES)
        try:
            self._ready()
        except ApiFaultError as fault:
            self._telemetry.fault(fault.fault)
            return False
        with self._lock:
            self._failed_in_a_row = 0
            self._recoveries += 1
            if self._recoveries <= RECOVERIES:
                # A successful probe gives back half of `--retry-seconds`; only an answer gives back all.
                self._last_answer = max(self._last_answer, time.monotonic() - self._seconds / 2)
        return True

    def sleep(self, fault: ApiFaultError, tries: int) -> None:
        """Wait as `pause` does, without probing."""
        with self._lock:
            silent = time.monotonic() - self._last_answer
            cause = self._cause
        if cause is not None:
            raise cause
        if silent >= self._seconds:
            raise ModelApiUnavailableError(
                f"no answer from the model API for {silent:.0f} s: {fault}"
            ) from fault
        jitter = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**tries))  # noqa: S311 (not a secret)
        # A server that asks for a pause gets it, but never all at the same moment.
        wait = max(jitter, min(fault.retry_after, LONGEST_RETRY_AFTER) + jitter * bool(fault.retry_after))
        wait = min(wait, max(0.05, self._seconds - silent))
        self._telemetry.add(Metric.WAIT_SECONDS, wait)
        self._stop.wait(wait)


def patiently(call: Callable[[], T], seconds: float, telemetry: Telemetry | None = None) -> T:
    """Call until there is an answer, for at most `seconds`; count faults and waits."""
    telemetry = telemetry or Telemetry()
    patience = Patience(call, seconds, telemetry)
    tries = 0
    while True:
        try:
            return call()
        except ApiFaultError as fault:
            telemetry.fault(fault.fault)
            patience.sleep(fault, tries)
            tries += 1
