"""Pixels left in shared memory: the same bytes as through a socket, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from imagebatch.model_apis.base import ApiFaultError, ImagePayload
from imagebatch.model_apis.pixels import pool
from imagebatch.model_apis.pixels.declared import Pixels
from imagebatch.model_apis.pixels.memory import PixelMemory
from imagebatch.model_apis.pixels.pool import PixelMaker

from tests.support.images import jpeg

PIXELS = Pixels(version="1", resize=72, crop=64)
IMAGES = [ImagePayload(str(number), jpeg(number)) for number in range(4)]
EACH = 3 * 64 * 64


@pytest.fixture(scope="module")
def maker() -> Iterator[PixelMaker]:
    made = PixelMaker(PIXELS, "UINT8", "NCHW", workers=1, timeout=120)
    yield made
    made.close()


def _through_the_socket(maker: PixelMaker, images: list[ImagePayload]) -> bytes:
    with maker._pool.worker() as worker:  # noqa: SLF001 (how they come is not visible from outside)
        return worker.ask("pixels", images, {"form": "raw"}).partition(b"\n")[2]


def test_pixels_are_left_in_memory_that_grows(maker: PixelMaker) -> None:
    """Nothing but the refusals comes through the socket; a larger request gets a larger memory."""
    for images in (IMAGES[:1], IMAGES, IMAGES[1:3]):
        assert maker.make(images, "raw").contents == _through_the_socket(maker, images)
    (memory,) = maker._memories.values()  # noqa: SLF001 (how they come is not visible from outside)
    assert memory.size == len(IMAGES) * EACH
    with maker._pool.worker() as worker:  # noqa: SLF001 (how they come is not visible from outside)
        told = worker.ask("pixels", IMAGES, {"form": "raw"} | memory.place)
    assert told == b"[null, null, null, null]\n"


def test_what_a_request_returned_stays_as_it_was(maker: PixelMaker) -> None:
    """The next request fills the same memory; nobody who holds the pixels of the last sees that."""
    first = maker.make(IMAGES[:1], "raw").contents
    kept = bytes(bytearray(first))
    assert maker.make(IMAGES[1:2], "raw").contents != kept
    assert first == kept


def test_the_next_worker_fills_the_memory_of_one_that_was_killed(maker: PixelMaker) -> None:
    """Nothing of what the killed one left is taken for an answer."""
    expected = maker.make(IMAGES, "raw")
    with maker._pool.worker() as worker:  # noqa: SLF001 (a process is not visible from outside)
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ApiFaultError, match="worker died"):
        maker.make(IMAGES[::-1], "raw")
    assert maker.make(IMAGES, "raw") == expected


def test_a_worker_that_cannot_open_the_memory_answers_through_its_socket(maker: PixelMaker) -> None:
    """As where /proc is hidden."""
    memory = PixelMemory(EACH)
    with maker._pool.worker() as worker:  # noqa: SLF001 (a process is not visible from outside)
        hidden = {"form": "raw"} | memory.place | {"pid": 0}
        told, _, contents = worker.ask("pixels", IMAGES[:1], hidden).partition(b"\n")
    assert told == b"[null]"
    assert contents == _through_the_socket(maker, IMAGES[:1])


def test_without_shared_memory_pixels_come_through_the_socket(
    maker: PixelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another system than Linux, or with too many open files."""
    expected = maker.make(IMAGES, "raw")

    def refused(_: int) -> PixelMemory:
        raise OSError("too many open files")

    monkeypatch.setattr(pool, "PixelMemory", refused)
    monkeypatch.setattr(maker, "_memories", {})
    assert maker.make(IMAGES, "raw") == expected


def test_memory_cannot_become_shorter() -> None:
    """Whoever reads it would be ended by a signal."""
    memory = PixelMemory(4096)
    with pytest.raises(PermissionError):
        os.ftruncate(memory.place["fd"], 1)
    assert memory.read(4096) == bytes(4096)
