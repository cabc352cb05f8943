"""Worker processes that decode images. If a file crashes a worker, the worker is replaced."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from imagebatch_header import View

from imagebatch.images.worker import read_frame, write_frame

T = TypeVar("T")

PLAIN = View()

_MOST_WORKERS = 4


class Decoders:
    """A pool of decoding processes. Use as a context manager; `measure` and `thumbnail` from any thread.

    Args:
        spared: Cores that are busy with other work; so many fewer processes are started.
    """

    def __init__(self, spared: int = 0) -> None:
        self.size = max(1, min(len(os.sched_getaffinity(0)) - spared, _MOST_WORKERS))
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all = [_Worker() for _ in range(self.size)]
        for worker in self._all:
            self._idle.put(worker)

    def measure(self, data: bytes, view: View = PLAIN) -> dict[str, Any]:
        """Return `images.measure.measure` of one file; a file that crashes its worker gets a `problem`."""
        kind, content = self._ask(b"m", data, view)
        return dict(json.loads(content)) if kind else {"problem": "crashed the decoder, or took too long"}

    def thumbnail(self, data: bytes, view: View = PLAIN) -> bytes:
        """Return a JPEG of at most 112 x 112 pixels; empty if the image cannot be shown."""
        return self._ask(b"t", data, view)[1]

    def preview(self, data: bytes, view: View = PLAIN) -> bytes:
        """Return a JPEG of at most 1,024 x 1,024 pixels; empty if the image cannot be shown."""
        return self._ask(b"p", data, view)[1]

    def map(self, call: Callable[[T], Any], items: Iterable[T]) -> Iterator[Any]:
        """Yield `call` of every item in order, running as many at once as there are workers."""
        with ThreadPoolExecutor(self.size) as threads:
            yield from threads.map(call, items)

    def _ask(self, kind: bytes, data: bytes, view: View) -> tuple[bytes, bytes]:
        worker = self._idle.get()
        try:
            return worker.ask(kind, data, view)
        finally:
            self._idle.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._all:
            worker.stop()


class _Worker:
    """One process, started at once: it imports while its parent has other things to do."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = _start()
        self._view = PLAIN

    def ask(self, kind: bytes, data: bytes, view: View) -> tuple[bytes, bytes]:
        """Return the reply, or (b"", b"") if the process died while answering."""
        if self._process is None:
            self._process, self._view = _start(), PLAIN
        process = self._process
        assert process.stdin  # noqa: S101 (for mypy: it is a pipe, made below)
        assert process.stdout  # noqa: S101 (for mypy: it is a pipe, made below)
        try:
            if view != self._view:
                write_frame(process.stdin, b"v", json.dumps(view.declared()).encode())
                self._view = view
            write_frame(process.stdin, kind, data)
            reply = read_frame(process.stdout)
        except BrokenPipeError:
            reply = b"", b""
        if not reply[0]:
            self.stop()
        return reply

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin  # noqa: S101 (for mypy: _start has made it a pipe)
        assert process.stdout  # noqa: S101 (for mypy: _start has made it a pipe)
        process.kill()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()


def _start() -> subprocess.Popen[bytes]:
    # One thread: several workers run side by side, and each thread costs address space, which is bounded.
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "imagebatch.images.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | threads,
    )
