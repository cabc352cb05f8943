"""The server ceiling: ready-made requests from memory, as many at once as the scorer may have under way."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from imagebatch.errors import ModelApiUnavailableError
from imagebatch.measure.clock import Clock, Reading
from imagebatch.model_apis.base import ApiFaultError, ImagePayload, ModelApi


def server_ceiling(
    api: ModelApi,
    images: Sequence[ImagePayload],
    *,
    pack_size: int,
    in_flight: int,
    top_k: int,
    seconds: float,
) -> Reading:
    """Send the same images again and again, without reading, hashing or writing anything.

    The rate is taken between the first and the last answer within the time, while every place is taken: the
    way up and the way down are the server's latency, not its throughput.

    Args:
        api: The server; one that can prepare requests does so before the clock starts.
        images: At least one.
        pack_size: Images per request.
        in_flight: Requests under way at once.
        top_k: Labels per image.
        seconds: How long to ask; requests under way are waited for.

    Raises:
        ModelApiUnavailableError: A request failed: this is no moment to measure.
    """
    api.describe()  # a client finds out by it how images may be handed over, as the scorer's does
    packs = [images[start : start + pack_size] for start in range(0, len(images), pack_size)]
    asks = itertools.cycle([(len(pack), api.prepared(pack, top_k)) for pack in packs])
    answered: list[tuple[float, int]] = []
    lock = threading.Lock()
    clock = Clock()

    def ask_on(_: int) -> None:
        while clock.seconds < seconds:
            with lock:
                size, ask = next(asks)
            ask()
            with lock:
                answered.append((time.perf_counter(), size))

    with ThreadPoolExecutor(in_flight) as threads:
        try:
            list(threads.map(ask_on, range(in_flight)))
        except ApiFaultError as fault:
            raise ModelApiUnavailableError(
                f"the model API failed while it was measured: {fault}; measure when it is well"
            ) from fault
    return clock.reading(sum(size for _, size in answered), rate=_steady(answered, seconds, clock))


def _steady(answered: list[tuple[float, int]], seconds: float, clock: Clock) -> float:
    """Return images per second between the first and the last answer that came in time."""
    over = time.perf_counter() - clock.seconds + seconds
    in_time = [one for one in answered if one[0] <= over]
    if len(in_time) < 3:  # noqa: PLR2004 (fewer make no interval worth the name)
        return sum(size for _, size in answered) / clock.seconds
    return sum(size for _, size in in_time[1:]) / (in_time[-1][0] - in_time[0][0])
