"""One request's worth of images, scored whatever happens to the request.

A request that fails is sent again; one that keeps failing is halved until the image that causes it is
alone. That image is quarantined, all others are scored.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from imagebatch.backends.base import Answer, ApiFaultError, Fault, ImagePayload, ModelApi, Reply
from imagebatch.backends.patience import Patience
from imagebatch.contracts import Reason
from imagebatch.errors import ModelChangedError
from imagebatch.log import get_logger

log = get_logger()

# A fault that the images may have caused is tried this often before the pack is halved, a single image
# quarantined.
TRIES = 3
# A fault that the images cannot have caused is waited out, but not for ever while other packs are answered.
WAITS = 20

_NOT_THE_IMAGES = frozenset({Fault.UNREACHABLE, Fault.OVERLOADED})


class PackScorer:
    """Scores packs through one model API. Safe to use from several threads.

    Args:
        api: The model.
        digest: The model digest that every reply must carry.
        top_k: Labels per image.
        in_flight: Requests under way at once.
        patience: How long to wait for an API that does not answer.
    """

    def __init__(self, api: ModelApi, *, digest: str, top_k: int, in_flight: int, patience: Patience) -> None:
        self._api = api
        self._digest = digest
        self._top_k = top_k
        self._gate = threading.BoundedSemaphore(in_flight)
        self._patience = patience

    def score(self, images: Sequence[ImagePayload]) -> list[Answer]:
        """Answers for every image, in order.

        Raises:
            ModelApiUnavailableError: The API did not answer for too long.
            ModelChangedError: Another model answered.
            ConfigurationError: The API refuses this client, or does not know the model.
        """
        if not images:
            return []
        tries = waits = 0
        while True:
            try:
                return list(self._ask(images).answers)
            except ApiFaultError as fault:
                if fault.fault in _NOT_THE_IMAGES and waits < WAITS:
                    self._patience.pause(fault, waits)
                    waits += 1
                elif fault.fault is not Fault.TOO_LARGE and tries + 1 < TRIES:
                    self._patience.pause(fault, tries)
                    tries += 1
                else:
                    return self._halved(images, fault)

    def _ask(self, images: Sequence[ImagePayload]) -> Reply:
        with self._gate:
            reply = self._api.predict(images, self._top_k)
        self._patience.answered()
        if reply.digest != self._digest:
            raise ModelChangedError(
                f"the model changed during the run: {reply.digest} answered,"
                f" the run was started with {self._digest};"
                " start a new run"
            )
        return reply

    def _halved(self, images: Sequence[ImagePayload], fault: ApiFaultError) -> list[Answer]:
        if len(images) == 1:
            return [self._quarantined(images[0], fault)]
        half = len(images) // 2
        log.info("pack halved", images=len(images), fault=str(fault))
        return self.score(images[:half]) + self.score(images[half:])

    def _quarantined(self, image: ImagePayload, fault: ApiFaultError) -> Answer:
        if fault.fault is Fault.TOO_LARGE:
            return Answer(reason=Reason.REQUEST_TOO_LARGE, detail=str(fault))
        self._require_healthy()
        log.warning("image quarantined", key=image.key, fault=str(fault))
        return Answer(
            reason=Reason.QUARANTINED, detail=f"{TRIES} requests with this image alone failed: {fault}"
        )

    def _require_healthy(self) -> None:
        """Makes sure that the image is at fault and not the server: the server must answer without it."""
        waits = 0
        while True:
            try:
                self._api.describe()
            except ApiFaultError as fault:
                self._patience.pause(fault, waits)
                waits += 1
            else:
                self._patience.answered()
                return
