"""Containers that nobody waits for any more: found by their labels, stopped, removed.

A worker that is killed leaves its container running. What it still writes cannot count, for attempts are
fenced (docs/adr/0002), but it holds memory and asks the model server.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow.providers.docker.hooks.docker import DockerHook
from docker import APIClient
from docker.errors import APIError, NotFound

from imagebatch_dags.container import ATTEMPT, DAG, DAG_RUN, INSTALLATION, MAP_INDEX, TASK

log = logging.getLogger(__name__)

# Seconds between the polite signal and SIGKILL: Airflow kills a task that takes longer than five to stop.
GRACE_SECONDS = 3
# A task instance in another state has ended, or was cleared: its container works for nobody.
UNDER_WAY = ["queued", "scheduled", "running", "restarting", "deferred", "up_for_retry", "up_for_reschedule"]
GOING_ON = ["queued", "running"]


@dataclass(frozen=True)
class StageContainer:
    """One container of this installation.

    Attributes:
        id: its name, by which it is addressed (`container.NAME`).
        status: the engine's: `running`, `exited`, …
        dag: DAG id.
        dag_run: Airflow's run id.
        task: task id.
        map_index: of the task instance; -1 where it is not mapped.
        attempt: Airflow's try number, 1 for the first; a task that lost its scheduler keeps it.
        created: when, in seconds since 1970.
    """

    id: str
    status: str
    dag: str
    dag_run: str
    task: str
    map_index: int
    attempt: int
    created: int

    @property
    def instance(self) -> tuple[str, str, str, int]:
        """What the attempts at one task have in common."""
        return self.dag, self.dag_run, self.task, self.map_index

    def __str__(self) -> str:
        shard = f"[{self.map_index}]" if self.map_index >= 0 else ""
        task = f"{self.dag} {self.dag_run} {self.task}{shard}, attempt {self.attempt}"
        return f"{self.id} ({task}, {self.status})"


def engine_client() -> APIClient:
    """Connect to the engine that the stages run on: `DOCKER_HOST`, else this machine's."""
    # No connection of Airflow's: DockerOperator takes the engine's address from the same variable.
    address = os.environ.get("DOCKER_HOST") or "unix://var/run/docker.sock"
    return DockerHook(docker_conn_id=None, base_url=address).api_client


def stage_containers(client: APIClient, installation: str) -> list[StageContainer]:
    """List the containers of an installation, running or not.

    Args:
        client: of the engine.
        installation: its name, the label of all its containers.

    Returns:
        Those whose labels are whole; a container that merely looks like one of ours is left alone.
    """
    labelled = client.containers(all=True, filters={"label": f"{INSTALLATION}={installation}"})
    return [found for each in labelled if (found := _read(each))]


def superseded(containers: Iterable[StageContainer]) -> list[StageContainer]:
    """Pick the containers beside which a later attempt at the same task exists."""
    newest: dict[tuple[str, str, str, int], StageContainer] = {}
    found = []
    for each in sorted(containers, key=lambda each: (each.attempt, each.created)):
        if each.instance in newest:
            found.append(newest[each.instance])
        newest[each.instance] = each
    return found


def orphans(
    containers: Iterable[StageContainer],
    count_runs: Callable[..., int],
    count_tasks: Callable[..., int],
) -> list[tuple[StageContainer, str]]:
    """Pick the containers whose work cannot count any more.

    Args:
        containers: of this installation.
        count_runs: Airflow's `get_dr_count`.
        count_tasks: Airflow's `get_ti_count`.

    Returns:
        Each with the reason.
    """
    everyone = list(containers)
    old = {each.id for each in superseded(everyone)}
    found = []
    for each in everyone:
        if each.id in old:
            found.append((each, "a later attempt has taken over"))
        elif not count_runs(dag_id=each.dag, run_ids=[each.dag_run], states=GOING_ON):
            found.append((each, "its run has ended"))
        elif not count_tasks(
            dag_id=each.dag,
            map_index=each.map_index,
            task_ids=[each.task],
            run_ids=[each.dag_run],
            states=UNDER_WAY,
        ):
            found.append((each, "its task has ended"))
    return found


def stop_earlier_attempts(client: APIClient, labels: Mapping[str, str]) -> None:
    """Stop what earlier attempts at a task have left behind: Airflow makes one at a time.

    Args:
        client: of the engine.
        labels: of the container that is about to start.
    """
    mine = _read({"Names": ["/"], "State": "", "Created": 0, "Labels": dict(labels)})
    if mine is None:
        return
    for each in stage_containers(client, labels[INSTALLATION]):
        if each.instance == mine.instance and each.attempt <= mine.attempt:
            end(client, each, f"attempt {mine.attempt} takes over")


def end(client: APIClient, container: StageContainer, reason: str) -> bool:
    """Stop and remove one container.

    Args:
        client: of the engine.
        container: which.
        reason: for the log.

    Returns:
        Whether it was there, and is gone now.
    """
    try:
        client.stop(container.id, timeout=GRACE_SECONDS)
        client.remove_container(container.id, v=True, force=True)
    except NotFound:
        return False
    except APIError as error:
        log.warning("Container %s is not removed: %s", container, error.explanation or error)
        return False
    log.warning("Stopped and removed container %s: %s", container, reason)
    return True


def _read(found: Mapping[str, Any]) -> StageContainer | None:
    labels = found.get("Labels") or {}
    try:
        return StageContainer(
            id=found["Names"][0].removeprefix("/"),
            status=found["State"],
            dag=labels[DAG],
            dag_run=labels[DAG_RUN],
            task=labels[TASK],
            map_index=int(labels[MAP_INDEX]),
            attempt=int(labels[ATTEMPT]),
            created=int(found["Created"]),
        )
    except (KeyError, IndexError, ValueError):
        return None
