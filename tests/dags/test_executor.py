import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.executors.workloads import ExecuteTask
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from imagebatch_dags.executor import KeepingLocalExecutor

PATIENCE = 30.0


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen as Airflow's API does, and never answer: whoever starts a task there works on it for good."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/execution/"
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", address)
        yield listener


@pytest.fixture
def executor(api: socket.socket) -> Iterator[KeepingLocalExecutor]:
    """Start an executor of two processes, and end what it has started."""
    assert api.fileno()
    executor = KeepingLocalExecutor(parallelism=2)
    executor.start()
    yield executor
    for process in executor.workers.values():
        process.kill()
        process.join()
    executor.end()


def task(name: str) -> ExecuteTask:
    """Describe a task instance as the scheduler does."""
    instance = TaskInstanceDTO(
        id=uuid.uuid4(),
        dag_version_id=uuid.uuid4(),
        dag_id="batch",
        run_id="run",
        task_id=name,
        try_number=1,
        pool_slots=1,
        priority_weight=1,
    )
    place = {"dag_rel_path": "batch.py", "bundle_info": BundleInfo(name="dags-folder"), "log_path": None}
    return ExecuteTask(ti=instance, token="", **place)


def until(holds: Callable[[], Any], executor: KeepingLocalExecutor) -> None:
    """Let the executor's heart beat until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        executor.heartbeat()
        time.sleep(0.05)


def holder(executor: KeepingLocalExecutor, workload: ExecuteTask) -> list[int]:
    """Name the process that has taken a workload."""
    return [pid for pid, key in executor.taken.items() if key == workload.key]


def test_what_a_killed_process_was_doing_has_failed(executor: KeepingLocalExecutor) -> None:
    """Its task has failed at once, that of the other process goes on, and a new one begins a third."""
    lost, kept, later = task("lost"), task("kept"), task("later")
    for workload in (lost, kept):
        executor.queue_workload(workload, session=None)
        until(lambda workload=workload: holder(executor, workload), executor)
    (killed,) = holder(executor, lost)
    os.kill(killed, signal.SIGKILL)
    until(lambda: lost.key in executor.event_buffer, executor)
    state, why = executor.event_buffer[lost.key]
    assert state == "failed"
    assert str(killed) in str(why)
    executor.queue_workload(later, session=None)
    until(lambda: holder(executor, later), executor)
    assert holder(executor, kept)
    assert set(executor.event_buffer) == {lost.key}


def test_what_was_done_before_its_process_died_stays_done(executor: KeepingLocalExecutor) -> None:
    """A process that is killed between its task's end and the next one fails nothing."""
    done, pid = task("done"), next(iter(executor.workers))
    executor.taken[pid] = done.key
    executor.success(done.key)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in executor.workers, executor)
    assert executor.event_buffer[done.key][0] == "success"


def test_processes_that_waited_take_nothing_with_them(executor: KeepingLocalExecutor) -> None:
    """All are killed while they wait for work; what comes then is begun by new ones."""
    until(lambda: len(executor.taken) == executor.parallelism, executor)  # all have begun to wait
    time.sleep(0.5)
    first = list(executor.workers.values())
    for process in first:
        process.kill()
        process.join()
    later = task("later")
    executor.queue_workload(later, session=None)
    until(lambda: holder(executor, later), executor)
    assert set(executor.event_buffer) == set()
