"""How each piece of the compose stack is killed: SIGKILL, from this machine, as root."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from stack import Stack


def service(name: str) -> Callable[[Stack], None]:
    """Kill the first process of a service, as the kernel would for want of memory; the engine restarts it."""

    def kill(stack: Stack) -> None:
        os.kill(stack.pid(name), signal.SIGKILL)

    return kill


def stage_container(stack: Stack) -> None:
    """Kill one container that is scoring."""
    stack.run("docker", "kill", "--signal", "KILL", stack.stages()[0])


def workers(stack: Stack) -> None:
    """Kill the processes that run tasks, and leave their scheduler and their containers alone."""
    listing = stack.run(
        "docker", "top", stack.compose("ps", "-q", "airflow-scheduler").strip(), "-eo", "pid,args"
    )
    for line in listing.splitlines()[1:]:
        pid, _, command = line.strip().partition(" ")
        if "airflow worker" in command and "<idle>" not in command:
            os.kill(int(pid), signal.SIGKILL)


def engine(stack: Stack) -> None:
    """Kill the container engine, and start it again by the command in ENGINE_START."""
    pid = int(Path(os.environ.get("ENGINE_PID_FILE", "/var/run/docker.pid")).read_text())
    os.kill(pid, signal.SIGKILL)
    time.sleep(3)
    subprocess.run(os.environ["ENGINE_START"], shell=True, check=True)  # noqa: S602 - the tester's own command
    stack.up()
