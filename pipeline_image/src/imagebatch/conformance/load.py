"""The checks that ask much of a server at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from imagebatch.conformance.likeness import require_alike
from imagebatch.conformance.subject import NotKeptError, SkippedError, Subject
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault

_ROUNDS = 4
_IMAGES = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class _Asking:
    """Asks about the same images from many threads, and goes on where the server asks to come later."""

    def __init__(self, subject: Subject, borne: set[Fault]) -> None:
        self._subject = subject
        self._borne = borne
        self._lock = threading.Lock()
        self.images = list(subject.images[:_IMAGES])
        self.expected = subject.answers(self.images)
        self.faults: Counter[Fault] = Counter()
        self.answered = 0
        self.exactly = True

    def ask(self, until: float) -> None:
        """Ask until there is an answer, and compare it."""
        pause = _FIRST_PAUSE
        while True:
            try:
                answers = self._subject.answers(self.images)
            except ApiFaultError as fault:
                with self._lock:
                    self.faults[fault.fault] += 1
                if fault.fault not in self._borne:
                    raise NotKeptError(f"not put off, but: {fault}") from fault
                if time.monotonic() > until:
                    raise NotKeptError(f"no answer in {self._subject.patience:g} s: {fault}") from fault
                time.sleep(max(pause, min(fault.retry_after, _LONGEST_PAUSE)))
                pause = min(_LONGEST_PAUSE, 2 * pause)
            else:
                self._compare(answers)
                return

    def _compare(self, answers: Sequence[Answer]) -> None:
        require_alike(self._subject.head, self.expected, answers, "under load")
        with self._lock:
            self.answered += 1
            self.exactly = self.exactly and tuple(answers) == tuple(self.expected)

    @property
    def told(self) -> str:
        """What has come of all requests, in words."""
        faults = ", ".join(f"{count} {fault}" for fault, count in sorted(self.faults.items()))
        same = "the same to the last digit" if self.exactly else "alike"
        return f"{self.answered} answers {same}" + (f"; on the way: {faults}" if faults else "")


def at_once(subject: Subject) -> str:
    """Send as many requests at once as were asked for, some times over."""
    if not subject.most:
        raise SkippedError("no load was asked for (--most 0)")
    asking = _Asking(subject, {Fault.OVERLOADED})
    until = time.monotonic() + subject.patience
    with ThreadPoolExecutor(subject.most) as threads:
        for done in [threads.submit(asking.ask, until) for _ in range(_ROUNDS * subject.most)]:
            done.result()
    _require_same_model(subject, "after the load")
    return f"{subject.most} at once: {asking.told}"


def restarted(subject: Subject) -> str:
    """Restart the server while requests are under way, and ask on until there is an answer again."""
    if subject.restart is None:
        raise SkippedError("nobody has said how to restart the server (--restart-command)")
    asking = _Asking(subject, set(Fault) - {Fault.TOO_LARGE})
    begun = time.monotonic()
    with _under_load(asking, max(1, min(subject.most, 2)), begun + subject.patience) as asked:
        subject.restart()
        before = asking.answered
        while asking.answered == before and not any(one.done() for one in asked):
            if time.monotonic() > begun + subject.patience:
                raise NotKeptError(f"no answer in {subject.patience:g} s after the restart")
            time.sleep(_FIRST_PAUSE)
    _require_same_model(subject, "after the restart")
    if not asking.faults:
        return f"no request met the restart: {asking.told}"
    return f"{asking.told}; all over after {time.monotonic() - begun:.1f} s"


@contextlib.contextmanager
def _under_load(asking: _Asking, threads: int, until: float) -> Iterator[list[Future[None]]]:
    """Ask from threads while the block runs; afterwards what one of them has met is raised."""
    ended = threading.Event()

    def ask_on() -> None:
        while not ended.is_set():
            asking.ask(until)

    with ThreadPoolExecutor(threads) as pool:
        asked = [pool.submit(ask_on) for _ in range(threads)]
        try:
            yield asked
        finally:
            ended.set()
        for one in asked:
            one.result()


def _require_same_model(subject: Subject, when: str) -> None:
    """Raise NotKeptError unless the model is still the same; a server that is busy is waited for."""
    until = time.monotonic() + subject.patience
    while True:
        try:
            digest = subject.api.describe().digest
        except ApiFaultError as fault:
            if time.monotonic() > until:
                raise NotKeptError(f"no description {when}: {fault}") from fault
            time.sleep(_FIRST_PAUSE)
        else:
            if digest != subject.pin.digest:
                raise NotKeptError(f"{when}, the model is {digest}, at first it was {subject.pin.digest}")
            return
