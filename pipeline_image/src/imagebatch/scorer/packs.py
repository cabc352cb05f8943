"""One request's worth of images, scored whatever happens to the request.

A request that fails is sent again; one that keeps failing is halved until the image that causes it is
alone. That image is quarantined, all others are scored: if it fails more often than the server fails without
reason.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

from imagebatch.contracts.records import ModelPin, Reason
from imagebatch.errors import ModelApiUnavailableError, ModelChangedError, one_line
from imagebatch.heads import head_of
from imagebatch.log import get_logger
from imagebatch.model_apis.base import Answer, ApiFaultError, Fault, ImagePayload, ModelApi, Reply
from imagebatch.model_apis.retry import Patience
from imagebatch.observe.metrics import Metric, Telemetry
from imagebatch.scorer.pace import Pace
from imagebatch.scorer.reliability import Reliability

log = get_logger()

# A fault that the images may have caused is tried this often before the pack is halved, a single image
# quarantined.
TRIES = 3
# A connection that breaks may be the images' doing too, but is far more often the network's or a restart's.
CONNECTION_TRIES = 6
# After so many failures of one image the server fails too much else for anybody to tell.
MOST_TRIES = 100
# So many probes in a row that reach nobody: the server is away, as while it starts again.
_AWAY = 5
# Pauses between the last tries of an image alone do not grow: uniform in 0 to 0.2 s.
_SHORT = 1


class PackScorer:
    """Scores packs through one model API. Safe to use from several threads.

    Args:
        api: The model.
        model: The model whose digest every reply must carry, and whose head every answer must be of.
        top_k: Labels per image.
        pace: How many requests at once, and how large.
        patience: How long to wait for an API that does not answer.
        telemetry: Where attempts are counted.
    """

    def __init__(
        self,
        api: ModelApi,
        *,
        model: ModelPin,
        top_k: int,
        pace: Pace,
        patience: Patience,
        telemetry: Telemetry,
    ) -> None:
        self._api = api
        self._digest = model.digest
        self._head = head_of(model, top_k)
        self._top_k = top_k
        self._pace = pace
        self._patience = patience
        self._telemetry = telemetry
        self._reliability = Reliability()

    def score(self, images: Sequence[ImagePayload]) -> Iterator[list[Answer]]:
        """Ask about images until every one has its answer.

        Yields:
            Answers in order, one piece per request. A request counts as under way until the next piece is
            asked for, so a caller that stores each piece at once can lose at most the requests in flight.

        Raises:
            ModelApiUnavailableError: The API did not answer for too long.
            ModelChangedError: Another model answered.
            ConfigurationError: The API refuses this client, or does not know the model.
        """
        if not images:
            return
        if not self._pace.fits(images):
            yield from self._in_halves(images)
            return
        history: list[str] = []
        for tries in itertools.count():
            try:
                yield from self._asked(images)
            except ApiFaultError as fault:
                self._telemetry.fault(fault.fault)
                if fault.fault is Fault.TOO_LARGE:
                    self._pace.too_large(images)
                    yield from self._isolated(images, [str(fault)])
                    return
                if fault.fault is Fault.OVERLOADED:
                    self._pace.overloaded()
                else:
                    history.append(str(fault))
                if len(history) >= (CONNECTION_TRIES if fault.fault is Fault.UNREACHABLE else TRIES):
                    yield from self._isolated(images, history)
                    return
                self._patience.pause(fault, tries)
            else:
                self._reliability.failed(len(history))
                return

    def _asked(self, images: Sequence[ImagePayload]) -> Iterator[list[Answer]]:
        """Send one request, under way until its answers are taken care of."""
        with self._pace.turn():
            started = time.monotonic()
            reply = self._api.predict(images, self._top_k)
            seconds = time.monotonic() - started
            self._require_trusted(reply)
            yield list(reply.answers)
        self._patience.answered()
        self._reliability.answered()
        self._pace.answered(len(images), seconds)
        self._telemetry.add(Metric.REQUESTS)
        self._telemetry.add(Metric.REQUEST_SECONDS, seconds)
        self._telemetry.add(Metric.IMAGES, len(images))
        self._telemetry.add(Metric.BYTES, sum(len(image.data) for image in images))

    def _require_trusted(self, reply: Reply) -> None:
        if reply.digest != self._digest:
            raise ModelChangedError(
                f"the model changed during the run: {reply.digest} answered,"
                f" the run was started with {self._digest}; start a new run"
            )
        for answer in reply.answers:
            if answer.reason:
                continue
            if problem := self._head.problem(self._head.row(answer)):
                raise ApiFaultError(Fault.BAD_REPLY, problem)

    def _isolated(self, images: Sequence[ImagePayload], history: list[str]) -> Iterator[list[Answer]]:
        """Narrow down which image makes a request fail."""
        if len(images) > 1:
            log.info("pack halved", images=len(images), fault=history[-1])
            yield from self._in_halves(images)
        elif history[-1].startswith(Fault.TOO_LARGE):
            yield [Answer(reason=Reason.REQUEST_TOO_LARGE, detail=one_line(history[-1], 200))]
        else:
            yield from self._judged(images, history)

    def _judged(self, images: Sequence[ImagePayload], history: list[str]) -> Iterator[list[Answer]]:
        """Quarantine an image that fails again and again right after the server has answered without it.

        Raises:
            ModelApiUnavailableError: The server fails so many good requests that nothing can be told of one.
        """
        for tries in itertools.count():
            self._require_healthy()
            try:
                yield from self._asked(images)
            except ApiFaultError as fault:
                self._telemetry.fault(fault.fault)
                if fault.fault is Fault.OVERLOADED:
                    self._patience.pause(fault, tries)
                    continue
                history.append(str(fault))
                if self._reliability.blames(len(history)):
                    break
                self._require_a_chance(len(history), fault)
                self._telemetry.add(Metric.RETRIES)
                self._patience.sleep(fault, _SHORT)
            else:
                self._reliability.failed(len(history))
                return
        self._telemetry.add(Metric.QUARANTINED)
        log.warning("image quarantined", key=images[0].key, fault=history[-1])
        yield [Answer(reason=Reason.QUARANTINED, detail=_told(history))]

    def _require_a_chance(self, failures: int, fault: ApiFaultError) -> None:
        if failures >= MOST_TRIES:
            raise ModelApiUnavailableError(
                f"the model server fails {self._reliability.share:.0%} of the requests that it can answer; an"
                f" image failed {failures} times, and nobody can tell whether that is its own fault: {fault}"
            ) from fault

    def _in_halves(self, images: Sequence[ImagePayload]) -> Iterator[list[Answer]]:
        self._telemetry.add(Metric.HALVINGS)
        half = len(images) // 2
        yield from self.score(images[:half])
        yield from self.score(images[half:])

    def _require_healthy(self) -> None:
        """Make sure that the image is at fault and not the server: the server must answer without it.

        The first time, it must do so until it is known how often it fails. A server that is away for a while
        fails no requests of its own accord: the image may be what ends it, every time.
        """
        waits = away = 0
        while True:
            try:
                self._api.ready()
            except ApiFaultError as fault:
                self._telemetry.fault(fault.fault)
                if fault.fault is Fault.UNREACHABLE:
                    away += 1
                elif fault.fault is not Fault.OVERLOADED:
                    self._reliability.failed()
                self._patience.sleep(fault, waits)
                waits += 1
            else:
                self._reliability.failed(away if away < _AWAY else 0)
                away = 0
                self._reliability.answered()
                if self._reliability.known:
                    return


def _told(history: list[str]) -> str:
    """Tell an image's attempts as one line."""
    return one_line(f"failed alone in {len(history)} requests: {'; '.join(history)}", 400)
