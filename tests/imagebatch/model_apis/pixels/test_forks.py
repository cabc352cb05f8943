"""Workers that are copies of one process: loaded once, ended and replaced one by one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from imagebatch.errors import ConfigurationError
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload
from imagebatch.model_apis.pixels.declared import Pixels
from imagebatch.model_apis.pixels.pool import PixelMaker

from tests.support.images import jpeg

PIXELS = Pixels(version="1", resize=72, crop=64)
IMAGE = [ImagePayload("x", jpeg(1))]


@pytest.fixture
def maker() -> Iterator[PixelMaker]:
    made = PixelMaker(PIXELS, "UINT8", "NCHW", workers=2, timeout=120)
    yield made
    made.close()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[1])


def _gone(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


def test_workers_are_copies_of_one_process_and_all_end_together(maker: PixelMaker) -> None:
    """torch is loaded once, by a process that makes no pixels; nothing is left of any of them."""
    with maker._pool.worker() as one, maker._pool.worker() as other:  # noqa: SLF001 (a process is not visible from outside)
        bodies = [worker.ask("pixels", IMAGE, {"form": "raw"}) for worker in (one, other)]
        pids = {one.pid, other.pid}
    assert bodies[0] == bodies[1]
    assert len(pids) == 2
    (original,) = {_parent(pid) for pid in pids}
    assert _parent(original) == os.getpid()
    assert original not in pids
    maker.close()
    assert all(_gone(pid) for pid in {original, *pids})


def test_a_worker_that_is_killed_is_told_and_replaced(maker: PixelMaker) -> None:
    """By a copy of the same original: its signal is known, and the next request is answered at once."""
    expected = maker.make(IMAGE, "raw")
    with maker._pool.worker() as worker:  # noqa: SLF001 (a process is not visible from outside)
        first = worker.pid
        original = _parent(first)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ApiFaultError, match="worker died, signal 9") as caught:
            worker.ask("pixels", IMAGE, {"form": "raw"})
    assert caught.value.fault is Fault.WORKER_DIED
    assert maker.make(IMAGE, "raw") == expected
    assert worker.pid != first
    assert _parent(worker.pid) == original


def test_an_original_that_is_killed_is_started_again(maker: PixelMaker) -> None:
    """Its copies go on; the next one that is needed is of a new original, for whichever threads ask."""
    expected = maker.make(IMAGE, "raw")
    with maker._pool.worker() as worker:  # noqa: SLF001 (a process is not visible from outside)
        copied, original = worker.pid, _parent(worker.pid)
    os.kill(original, signal.SIGKILL)
    assert maker.make(IMAGE, "raw") == expected
    assert worker.pid == copied
    os.kill(copied, signal.SIGKILL)

    def made() -> bool:
        for _ in range(4):
            with suppress(ApiFaultError):
                return maker.make(IMAGE, "raw") == expected
        return False

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(lambda _: made(), range(2)))
    assert _parent(worker.pid) not in {original, 0}


def test_what_cannot_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the worker's own words."""
    broken = tmp_path / "worker.py"
    source = Path(PixelMaker.__init__.__code__.co_filename).with_name("worker.py").read_text("utf-8")
    broken.write_text(source.replace("import imagebatch_pixels", "raise ImportError('no torch')  #"), "utf-8")
    monkeypatch.setattr("imagebatch.model_apis.pixels.pool._SCRIPT", broken)
    maker = PixelMaker(PIXELS, "UINT8", "NCHW", workers=2, timeout=120)
    with pytest.raises(ConfigurationError, match="cannot be made: ImportError: no torch"):
        maker.make(IMAGE, "raw")
    maker.close()
