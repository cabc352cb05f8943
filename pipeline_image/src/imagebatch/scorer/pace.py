"""How hard to drive the server: requests in flight, images and bytes per request, found while scoring.

In flight grows by one per round of good answers and is halved by "come back later" (additive increase,
multiplicative decrease: Chiu and Jain, 1989). It also shrinks when an image takes much longer than it did
at best: then requests only wait in the server's queue. Nothing here changes a result, only how soon it is
there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imagebatch.model_apis.base import ImagePayload

# An image that takes longer than this many times the best has waited in a queue.
QUEUEING = 3.0
# The best time forgets by this factor per answer, so that a server that has become slower is a new normal.
FORGETTING = 1.02
# A request that takes more than this share of the time-out carries too many images to be lost lightly.
LONGEST = 0.125


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds at the moment.

    Attributes:
        in_flight: Requests under way at once.
        pack_size: Images per request.
        request_bytes: Bytes per request; 0 while the server has refused none.
    """

    in_flight: int
    pack_size: int
    request_bytes: int


class Pace:
    """Adapts to one server. Safe to use from several threads.

    Args:
        most_in_flight: Never more requests at once.
        most_images: Never more images per request.
        timeout: Seconds after which a request is given up.
    """

    def __init__(self, most_in_flight: int, most_images: int, timeout: float) -> None:
        self._most_in_flight = most_in_flight
        self._most_images = most_images
        self._timeout = timeout
        self._in_flight = float(min(2, most_in_flight))
        self._pack_size = most_images
        self._request_bytes = 0
        self._under_way = 0
        self._best = float("inf")
        self._cut_until = 0.0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @property
    def limits(self) -> Limits:
        """The limits that hold now."""
        with self._changed:
            return Limits(int(self._in_flight), self._pack_size, self._request_bytes)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until one more request may be under way, and hold its place; first come, first served.

        A large request that small ones overtake would be the last of all, with one worker busy.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._under_way >= int(self._in_flight):
                    self._changed.wait()
                self._under_way += 1
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def answered(self, images: int, seconds: float) -> None:
        """Note a good answer to `images` that took `seconds`."""
        each = seconds / images
        with self._changed:
            self._best = min(each, self._best * FORGETTING)
            if each > QUEUEING * self._best and self._in_flight > 1:
                self._cut(0.9)
            else:
                self._in_flight = min(self._most_in_flight, self._in_flight + 1 / self._in_flight)
            if seconds > LONGEST * self._timeout:
                self._pack_size = max(1, self._pack_size // 2)
            else:
                self._pack_size = min(self._most_images, self._pack_size + max(1, self._pack_size // 4))
            self._changed.notify_all()

    def overloaded(self) -> None:
        """Note that the server asked to come back later."""
        with self._changed:
            self._cut(0.5)

    def too_large(self, images: Sequence[ImagePayload]) -> None:
        """Note that a request was refused for its size: from now on requests stay below half of it."""
        size = sum(len(image.data) for image in images)
        with self._changed:
            self._request_bytes = max(1, size // 2)

    def fits(self, images: Sequence[ImagePayload]) -> bool:
        """Tell whether a request of these images is not known to be too large."""
        limit = self.limits.request_bytes
        return len(images) == 1 or not limit or sum(len(image.data) for image in images) <= limit

    def _cut(self, factor: float) -> None:
        # One cut per round trip: the other requests under way were sent at the old rate.
        now = time.monotonic()
        if now >= self._cut_until:
            self._in_flight = max(1.0, self._in_flight * factor)
            self._cut_until = now + min(1.0, max(0.05, self._best if self._best < 1 else 1.0))
