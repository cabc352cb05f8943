"""Worker processes of one kind, lent to threads one at a time."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator

from imagebatch.model_apis.base import ApiFaultError, Fault
from imagebatch.model_apis.local.process import Launch, Program, WorkerProcess, launched


class WorkerPool:
    """Workers, none of which is started before it is needed. Safe to use from several threads.

    Args:
        program: What each runs.
        workers: How many.
        timeout: Seconds before a request is given up, or a thread stops waiting for an idle worker.
        launch: How each is started.

    Attributes:
        all: The workers.
    """

    def __init__(self, program: Program, workers: int, timeout: float, launch: Launch = launched) -> None:
        self._timeout = timeout
        self.all = [WorkerProcess(program, timeout, launch) for _ in range(workers)]
        # Last in, first out: a process that has loaded is preferred to one that has not.
        self._idle: queue.LifoQueue[WorkerProcess] = queue.LifoQueue()
        for worker in self.all:
            self._idle.put(worker)

    @contextlib.contextmanager
    def worker(self) -> Iterator[WorkerProcess]:
        """Lend a worker for the length of the block.

        Raises:
            ApiFaultError: None became idle in time.
        """
        try:
            worker = self._idle.get(timeout=self._timeout)
        except queue.Empty as error:
            raise ApiFaultError(Fault.OVERLOADED, f"all {len(self.all)} workers are busy") from error
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End all workers."""
        for worker in self.all:
            worker.stop()
