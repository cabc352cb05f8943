"""Airflow's LocalExecutor, which also notices that one of its processes was killed.

LocalExecutor puts a new process in the place of a dead one and forgets what that one had taken. A task that
had begun is found by its missing heartbeats, minutes later. One that had not stays `queued` until the
scheduler is restarted, for LocalExecutor (3.3) revokes nothing. Here every process says what it takes,
and what a dead one had taken has failed at once: Airflow retries it as it retries any failure. Why the public
`revoke_task` is not enough, with figures: docs/adr/0004-an-executor-that-keeps-what-it-took.md.
"""

import multiprocessing
import os
from multiprocessing.queues import SimpleQueue
from typing import Any

from airflow.executors import local_executor

FINAL = ("success", "failed")


class KeepingLocalExecutor(local_executor.LocalExecutor):
    """Run tasks as processes of the scheduler, and lose none of them.

    Set `AIRFLOW__CORE__EXECUTOR=imagebatch_dags.executor.KeepingLocalExecutor`, with `dags/` on PYTHONPATH.
    """

    def start(self) -> None:
        """Open the queue on which processes say what they take, and start them."""
        self._claims: SimpleQueue[tuple[int, Any]] = multiprocessing.SimpleQueue()
        self.taken: dict[int, Any] = {}  # what a process works on: a workload's key or None, by its pid
        super().start()

    def end(self) -> None:
        """Wait for what runs, as LocalExecutor does, and close the queue."""
        super().end()
        self._claims.close()

    def _spawn_worker(self) -> None:
        process = multiprocessing.Process(
            target=local_executor._run_worker,  # noqa: SLF001 - LocalExecutor offers no seam
            kwargs={
                "logger_name": self.log.name,
                "input": _Claiming(self.activity_queue, self._claims),
                "output": self.result_queue,
                "unread_messages": self._unread_messages,
                "team_conf": self.conf,
            },
        )
        process.start()
        if process.pid:
            self.workers[process.pid] = process

    def _check_workers(self) -> None:
        dead = [pid for pid, process in self.workers.items() if not process.is_alive()]
        super()._check_workers()  # type: ignore[no-untyped-call] # Airflow's own
        while not self._claims.empty():
            pid, key = self._claims.get()
            self.taken[pid] = key
        if dead:
            self._read_results()  # type: ignore[no-untyped-call] # what they had finished before
        for pid in dead:
            key = self.taken.pop(pid, None)
            if key is not None and self.event_buffer.get(key, ("", None))[0] not in FINAL:
                self.log.error("Process %d was killed while it worked on %s", pid, key)
                self.fail(key, f"process {pid} of the executor was killed")


class _Claiming:
    """The task queue for one worker process: report which task it takes, never wait while holding its lock.

    A process that is killed while it holds the lock takes it along, and nothing would ever be taken again.
    SimpleQueue.get() holds it for as long as it waits; here it is held while one workload is read.
    """

    def __init__(self, workloads: "SimpleQueue[Any]", claims: "SimpleQueue[tuple[int, Any]]") -> None:
        self._lock: Any = workloads._rlock  # type: ignore[attr-defined]  # noqa: SLF001 - no other way to wait
        self._reader: Any = workloads._reader  # type: ignore[attr-defined]  # noqa: SLF001 - no other way to read without blocking
        self._claims = claims

    def get(self) -> Any:
        """Wait for the next workload, the last one being done, and tell whose it is; None: no more come."""
        self._claims.put((os.getpid(), None))
        while True:
            self._reader.poll(None)  # until there is something
            with self._lock:
                if self._reader.poll():  # nobody else was quicker
                    workload = self._reader.recv()
                    break
        if workload is not None:
            self._claims.put((os.getpid(), workload.key))
        return workload
