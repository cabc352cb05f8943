"""Requests in flight and their size, found while scoring."""

from __future__ import annotations

import threading
import time

from imagebatch.model_apis.base import ImagePayload
from imagebatch.scorer.pace import Pace


def test_good_answers_open_up_to_the_limit() -> None:
    """A server that keeps its speed gets as many requests at once as is allowed."""
    pace = Pace(6, 32, 60)
    assert pace.limits.in_flight == 2
    for _ in range(100):
        pace.answered(32, 0.1)
    assert pace.limits.in_flight == 6


def test_overload_halves_once_per_round() -> None:
    """Several requests of one round that are refused together cut once, and never below one."""
    pace = Pace(8, 32, 60)
    for _ in range(100):
        pace.answered(32, 0.1)
    for _ in range(8):
        pace.overloaded()
    assert pace.limits.in_flight == 4


def test_queueing_shrinks_and_a_slower_server_is_a_new_normal() -> None:
    """Images that take much longer than at best mean a queue; if it stays so, it is the server's speed."""
    pace = Pace(6, 32, 600)
    for _ in range(100):
        pace.answered(32, 0.1)
    pace.answered(32, 1.0)
    assert pace.limits.in_flight == 5
    for _ in range(400):
        pace.answered(32, 1.0)
    assert pace.limits.in_flight == 6


def test_slow_requests_carry_fewer_images() -> None:
    """A request must stay far from its time-out; when the server recovers, packs grow again."""
    pace = Pace(2, 32, 10)
    for _ in range(3):
        pace.answered(32, 5.0)
    assert pace.limits.pack_size == 4
    for _ in range(30):
        pace.answered(4, 0.1)
    assert pace.limits.pack_size == 32


def test_a_refused_size_is_learned() -> None:
    """After 413 no request of that size is sent again; a single image always is."""
    pace = Pace(2, 32, 10)
    pack = [ImagePayload(str(number), b"x" * 100) for number in range(8)]
    pace.too_large(pack)
    assert not pace.fits(pack)
    assert pace.fits(pack[:4])
    assert pace.fits([ImagePayload("large", b"x" * 10_000)])


def test_turns_never_exceed_the_limit() -> None:
    """However many threads ask, no more requests are under way than allowed."""
    pace = Pace(1, 1, 10)
    at_once: list[int] = []
    under_way = 0
    lock = threading.Lock()

    def ask() -> None:
        nonlocal under_way
        with pace.turn():
            with lock:
                under_way += 1
                at_once.append(under_way)
            with lock:
                under_way -= 1

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(at_once) == 1
    assert len(at_once) == 20


def test_first_come_first_served() -> None:
    """A large request that waits is not overtaken by the small ones that were made after it."""
    pace = Pace(1, 32, 60)
    served: list[int] = []

    def wait(number: int) -> None:
        with pace.turn():
            served.append(number)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(12)]
    with pace.turn():
        for thread in threads:
            thread.start()
            time.sleep(0.1)  # so that they wait in this order
    for thread in threads:
        thread.join(10)
    assert served == list(range(12))
