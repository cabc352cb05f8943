"""How each piece of the compose stack is killed: SIGKILL, from this machine, as root."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.system.operations.stack import Stack

TOGETHER = 2  # tasks that work when their processes are killed
PATIENCE = 60.0  # seconds for that moment to come


def service(name: str) -> Callable[[Stack], None]:
    """Kill the first process of a service, as the kernel would for want of memory; the engine restarts it."""

    def kill(stack: Stack) -> None:
        os.kill(stack.pid(name), signal.SIGKILL)

    return kill


def stage_container(stack: Stack) -> None:
    """Kill one container that is scoring.

    Raises:
        RuntimeError: none could be caught alive.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for container in stack.stages():
            with contextlib.suppress(RuntimeError):  # it ended in the meantime: the next one
                stack.run("docker", "kill", "--signal", "KILL", container)
                return
    raise RuntimeError("no container was there to kill")


def workers(stack: Stack) -> None:
    """Kill the processes that run tasks, and leave their scheduler and their containers alone.

    Raises:
        RuntimeError: no two tasks have run at once.
    """
    deadline = time.monotonic() + PATIENCE
    while len(stack.stages()) < TOGETHER or len(running := _tasks(stack)) < TOGETHER:
        if time.monotonic() > deadline:
            raise RuntimeError("there were no two tasks to kill at once")
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _tasks(stack: Stack) -> list[int]:
    """List the processes of the executor that work, and those of the tasks, which are their children."""
    scheduler = stack.compose("ps", "-q", "airflow-scheduler").strip()
    lines = stack.run("docker", "top", scheduler, "-eo", "pid,args").splitlines()[1:]
    found = [line.strip().partition(" ") for line in lines]
    return [int(pid) for pid, _, name in found if "airflow worker" in name and "<idle>" not in name]


def engine(stack: Stack) -> None:
    """Kill the container engine, and start it again by the command in ENGINE_START."""
    pid = int(Path(os.environ.get("ENGINE_PID_FILE", "/var/run/docker.pid")).read_text())
    os.kill(pid, signal.SIGKILL)
    time.sleep(3)
    subprocess.run(os.environ["ENGINE_START"], shell=True, check=True)  # noqa: S602 - the tester's own command
    stack.up()
