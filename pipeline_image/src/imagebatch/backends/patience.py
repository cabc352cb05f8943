"""Waiting for a model API: full jitter between tries, and an end to it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from imagebatch.backends.base import ApiFaultError
from imagebatch.errors import ModelApiUnavailableError
from imagebatch.log import get_logger

log = get_logger()

T = TypeVar("T")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0


class Patience:
    """How long the API may go without an answer; shared by all threads that ask it.

    Pauses grow as `uniform(0, FIRST_PAUSE * 2**n)` ("full jitter": Brooker, Exponential Backoff And Jitter,
    AWS Architecture Blog, 2015), so that many scorers do not come back at the same moment.

    Args:
        seconds: Longest time without any answer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last_answer = time.monotonic()
        self._stop = threading.Event()

    def answered(self) -> None:
        """Notes that the API has answered."""
        with self._lock:
            self._last_answer = time.monotonic()

    def give_up(self) -> None:
        """Ends all pauses: another thread has failed for good."""
        self._stop.set()

    def pause(self, fault: ApiFaultError, tries: int) -> None:
        """Waits before try number `tries` + 1.

        Raises:
            ModelApiUnavailableError: There was no answer for too long.
        """
        with self._lock:
            silent = time.monotonic() - self._last_answer
        if silent >= self._seconds or self._stop.is_set():
            raise ModelApiUnavailableError(
                f"no answer from the model API for {silent:.0f} s: {fault}"
            ) from fault
        jitter = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**tries))  # noqa: S311 (not a secret)
        wait = max(fault.retry_after, jitter)
        log.debug("waiting for the model API", fault=str(fault), tries=tries, seconds=round(wait, 2))
        self._stop.wait(min(wait, max(0.05, self._seconds - silent)))


def patiently(call: Callable[[], T], seconds: float) -> T:
    """Calls until there is an answer, for at most `seconds`."""
    patience = Patience(seconds)
    tries = 0
    while True:
        try:
            return call()
        except ApiFaultError as fault:
            patience.pause(fault, tries)
            tries += 1
