"""Containers and pods that nobody waits for any more, told by their labels.

A worker that is killed leaves its container running. A retry waits for it (`reattach`); where none comes, it
holds memory and asks the model server for nobody. What a superseded one still writes cannot count, for
attempts are fenced (docs/adr/0002).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from imagebatch_dags.places import ATTEMPT, DAG, DAG_RUN, MAP_INDEX, TASK

# A task instance in another state has ended, or was cleared: its container works for nobody.
UNDER_WAY = ["queued", "scheduled", "running", "restarting", "deferred", "up_for_retry", "up_for_reschedule"]
GOING_ON = ["queued", "running"]


@dataclass(frozen=True)
class StageContainer:
    """One container of this installation, or one pod.

    Attributes:
        id: its name, by which it is addressed (`container.NAME`).
        status: the engine's: `running`, `exited`, …
        dag: DAG id.
        dag_run: Airflow's run id.
        task: task id.
        map_index: of the task instance; -1 where it is not mapped.
        attempt: Airflow's try number when it was started, 1 for the first; a later attempt may wait for it,
            and a task that lost its scheduler keeps its number.
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


def earlier_attempts(containers: Iterable[StageContainer], labels: Mapping[str, str]) -> list[StageContainer]:
    """Pick what earlier attempts at a task have left behind: Airflow makes one at a time.

    Args:
        containers: of this installation.
        labels: of the one that is about to start.

    Returns:
        Those of the same task, oldest first; one of the same number is that of a scheduler that died.
    """
    mine = read(labels, "", "", 0)
    if mine is None:
        return []
    found = [each for each in containers if each.instance == mine.instance and each.attempt <= mine.attempt]
    return sorted(found, key=lambda each: (each.attempt, each.created))


def read(labels: Mapping[str, str], name: str, status: str, created: int) -> StageContainer | None:
    """Read whose a container or pod is.

    Args:
        labels: its labels, whole; those of a pod are its annotations.
        name: by which it is addressed.
        status: in the words of what runs it.
        created: when, in seconds since 1970.

    Returns:
        None where a label is missing, or is not what it should be.
    """
    try:
        return StageContainer(
            id=name,
            status=status,
            dag=labels[DAG],
            dag_run=labels[DAG_RUN],
            task=labels[TASK],
            map_index=int(labels[MAP_INDEX]),
            attempt=int(labels[ATTEMPT]),
            created=created,
        )
    except (KeyError, ValueError):
        return None
