"""Two containers that should not be there, at one shard: one is found and ended, the other changes nothing.

The first belongs to a worker that was killed, and hangs. The second is a copy of it without its labels: an
attempt that neither Airflow's retry nor the DAG `imagebatch_orphans` can see. It has begun, so it is the
newest attempt at its shard until the retry begins another; then it is superseded, whenever it wakes.
"""

import json
import time
from pathlib import Path
from typing import Any

from tests.system.operations.killing import workers
from tests.system.operations.stack import DAG, Stack
from tools.airflow_api import ENDED, Run

ORPHANS = "imagebatch_orphans"
SUPERSEDED = 75  # docs/reference/protocol.md
UNFINISHED = ("running", "up_for_retry")
PATIENCE = 240.0  # seconds for the DAG and for the copy


class Abandoned:
    """The scenario, from the kill to the proof that the copy was refused."""

    def __init__(self) -> None:
        self._copy = ""

    def kill(self, stack: Stack) -> None:
        """Leave a hanging container and an unseen attempt at one shard behind, and have the orphan ended.

        Raises:
            RuntimeError: something else happened than what is described above.
        """
        found = hang_one(stack)
        name, labels = found["Name"].strip("/"), found["Config"]["Labels"]
        attempts = _attempts(stack, found)
        self._copy = stack.unseen
        stack.run("docker", "run", "--detach", "--name", self._copy, *_like(found))
        wait_for(attempts / "attempt-00002.json")
        stack.run("docker", "pause", self._copy)
        workers(stack)
        give_up(stack, labels["imagebatch.dag-run"])
        print(f"orphan: {reaped(stack, name)}", flush=True)

    def check(self, stack: Stack) -> None:
        """Wake the copy, and see it refused.

        Raises:
            RuntimeError: it ended in another way.
        """
        stack.run("docker", "unpause", self._copy)
        code = int(stack.run("docker", "wait", self._copy))
        said = stack.run("docker", "logs", self._copy).strip().splitlines()[-1:]
        stack.run("docker", "rm", "--force", self._copy)
        if code != SUPERSEDED:
            raise RuntimeError(f"the unseen attempt ended with {code}, not {SUPERSEDED}: {said}")
        print(f"the unseen attempt woke and ended with {code}: {said}", flush=True)


def hang_one(stack: Stack) -> dict[str, Any]:
    """Pause a container that has begun a shard and not finished it.

    Returns:
        What the engine knows of it.

    Raises:
        RuntimeError: all were too quick.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for name in stack.stages():
            try:
                found: dict[str, Any] = json.loads(stack.run("docker", "inspect", name))[0]
                attempts = _attempts(stack, found)
                if not (attempts / "attempt-00001.json").exists():
                    continue
                stack.run("docker", "pause", name)
            except RuntimeError:  # it has ended meanwhile
                continue
            if not (attempts / "_DONE.json").exists():
                return found
            stack.run("docker", "unpause", name)
    raise RuntimeError("no container was caught in the middle of its shard")


def give_up(stack: Stack, run: str) -> None:
    """Mark the unfinished tasks of a run as failed, as a person does who does not want a retry."""
    for each in stack.tasks(run):
        if each["task_id"] == "score" and each["state"] in UNFINISHED:
            path = f"{Run(DAG, run).path}/taskInstances/score/{each['map_index']}"
            stack.api(path, {"new_state": "failed"}, "PATCH")


def reaped(stack: Stack, container: str) -> str:
    """Have the DAG that ends orphans run, and give what its log says of a container.

    Raises:
        RuntimeError: the DAG did not succeed, or its log does not name the container.
    """
    run = Run(ORPHANS, stack.api(f"/dags/{ORPHANS}/dagRuns", {"logical_date": None})["dag_run_id"])
    deadline = time.monotonic() + PATIENCE
    while (state := stack.api(run.path)["state"]) not in ENDED and time.monotonic() < deadline:
        time.sleep(1)
    if state != "success":
        raise RuntimeError(f"{ORPHANS} is {state}")
    # A run of its schedule may have been quicker.
    recent = stack.api(f"/dags/{ORPHANS}/dagRuns?order_by=-run_after&limit=3")["dag_runs"]
    said = [line for each in recent for line in _log(stack, each)]
    lines = [line for line in said if "Stopped and removed" in line and container in line]
    if not lines:
        raise RuntimeError(f"{ORPHANS} did not stop {container}: {said}")
    return lines[0]


def wait_for(path: Path) -> None:
    """Wait until a file of a run is there, and act within its first moments.

    Raises:
        RuntimeError: it does not come.
    """
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} does not come")
        time.sleep(0.01)


def _log(stack: Stack, run: dict[str, Any]) -> list[str]:
    if run["state"] != "success":
        return []
    task = {"task_id": "stop_orphans", "try_number": 1, "map_index": -1}
    return stack.ask(lambda api: api.log_lines(Run(ORPHANS, run["dag_run_id"]), task))


def _attempts(stack: Stack, found: dict[str, Any]) -> Path:
    """Find the folder, on this machine, with the attempts at the shard that a container scores."""
    volume = stack.run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", f"{stack.project}-runs")
    (shard,) = [part.partition("=")[2] for part in found["Config"]["Cmd"] if part.startswith("--shard=")]
    run = found["Config"]["Labels"]["imagebatch.run"]
    return Path(volume.strip(), run, "scores", f"shard-{int(shard):05d}")


def _like(found: dict[str, Any]) -> list[str]:
    """Give the arguments of `docker run` for a container like another, without its labels."""
    config, host = found["Config"], found["HostConfig"]
    arguments = ["--user", config["User"], "--network", host["NetworkMode"], "--memory", str(host["Memory"])]
    arguments += ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
    for mount in host["Mounts"]:
        described = f"type={mount['Type']},source={mount['Source']},target={mount['Target']}"
        arguments += ["--mount", described + (",readonly" if mount.get("ReadOnly") else "")]
    for variable in config["Env"]:
        arguments += ["--env", variable]
    return [*arguments, config["Image"], *config["Cmd"]]
