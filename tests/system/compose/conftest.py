"""The stack that `make compose-test` has started, and one container that is confined as every stage's is."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest

from tools.compose.security_table import inspected
from tools.compose.stack import Stack

MAKE_STAGE = """
from imagebatch_dags.stage import stage
operator = stage("anything", ["--version"])
operator._normalize_mounts()
operator._start(operator._work())
print(operator.container["Id"])
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str


@pytest.fixture(scope="session")
def stack() -> Stack:
    """Name the running stack."""
    project = os.environ.get("IMAGEBATCH_COMPOSE_PROJECT")
    if not project:
        pytest.exit("run `make compose-test`: it starts the stack that these tests look at", 2)
    return Stack(project)


@pytest.fixture(scope="session")
def run_folder() -> str:
    """Name the finished run on the stack's volume."""
    return os.environ["IMAGEBATCH_COMPOSE_RUN"]


@pytest.fixture(scope="session")
def containers(stack: Stack) -> dict[str, dict[str, Any]]:
    """Inspect the stack's containers, by service."""
    return inspected(stack.project)


@pytest.fixture(scope="session")
def in_scheduler(containers: dict[str, dict[str, Any]]) -> Callable[[str], str]:
    """Run Python where tasks run: in the scheduler's container."""
    name = containers["airflow-scheduler"]["Id"]

    def run(script: str) -> str:
        argv = ["docker", "exec", "-i", name, "python", "-W", "ignore", "-"]
        done = subprocess.run(argv, input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip().splitlines()[-1]

    return run


@pytest.fixture(scope="session")
def client() -> Iterator[docker.APIClient]:
    """Talk to the engine itself, as an administrator of the machine."""
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture(scope="session")
def stage(client: docker.APIClient, in_scheduler: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    """Inspect a container that the DAG's own operator has made, through the engine's proxy."""
    name = in_scheduler(MAKE_STAGE)
    yield client.inspect_container(name)
    client.remove_container(name, force=True)


@pytest.fixture(scope="session")
def in_stage(client: docker.APIClient, stage: dict[str, Any]) -> Callable[..., Ended]:
    """Run a command in a container that differs from a stage's in its command alone."""

    # What Airflow fills in for each task is not filled in here, and not needed.
    variables = [each for each in stage["Config"]["Env"] if "{{" not in each]

    def run(*command: str) -> Ended:
        own = {"Cmd": list(command), "Env": variables, "HostConfig": stage["HostConfig"]}
        config = stage["Config"] | own
        made = client.create_container_from_config(config)["Id"]
        try:
            client.start(made)
            code = client.wait(made, timeout=120)["StatusCode"]
            return Ended(code, client.logs(made).decode(errors="replace"))
        finally:
            client.remove_container(made, force=True, v=True)

    return run


@pytest.fixture(scope="session")
def python_in_stage(in_stage: Callable[..., Ended]) -> Callable[[str], Any]:
    """Run Python in such a container, and read the JSON that it prints last."""

    def run(script: str) -> Any:
        ended = in_stage("python", "-c", script)
        assert ended.code == 0, ended.output
        return json.loads(ended.output.strip().splitlines()[-1])

    return run
