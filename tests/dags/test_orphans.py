import runpy
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.errors import NotFound
from imagebatch_dags.container import NAME
from imagebatch_dags.containers import end, stage_containers
from imagebatch_dags.orphans import orphans

from tests.dags.engine import IMAGE

Start = Callable[..., str]
SLEEP = ["imagebatch", "import time; time.sleep(600)"]


@pytest.fixture
def start(client: docker.APIClient, own: str) -> Start:
    """Start a container as a stage's would be, of a given run, task and attempt."""

    def run(run: str = "r1", task: str = "score", attempt: int = 1, **changed: Any) -> str:
        labels = {
            "imagebatch.installation": own,
            "imagebatch.dag": "batch",
            "imagebatch.dag-run": run,
            "imagebatch.task": task,
            "imagebatch.map-index": "0",
            "imagebatch.attempt": str(attempt),
        } | changed.pop("labels", {})
        name = f"{NAME}{uuid4().hex}"
        host = client.create_host_config(network_mode="none")
        client.create_container(
            IMAGE, SLEEP, name=name, labels=labels, host_config=host, stop_signal="SIGINT", **changed
        )
        client.start(name)
        return name

    return run


def airflow(runs: set[str], tasks: set[tuple[str, str]]) -> tuple[Callable[..., int], Callable[..., int]]:
    """Answer as Airflow does: how many of the runs, or tasks of a run, asked about are under way."""
    return (
        lambda *, run_ids, **_: sum(run in runs for run in run_ids),
        lambda *, run_ids, task_ids, **_: sum((run, task) in tasks for run in run_ids for task in task_ids),
    )


def test_only_what_works_for_nobody_is_an_orphan(client: docker.APIClient, own: str, start: Start) -> None:
    """A superseded attempt, an ended task, an ended run: each is found and told apart; what works is left."""
    old, new = start(attempt=2), start(attempt=10)
    time.sleep(1)  # the engine tells whole seconds
    again = start(attempt=10)  # a scheduler that was killed begins the same attempt again
    other_shard = start(attempt=1, labels={"imagebatch.map-index": "1"})
    ended_task = start(task="preprocess")
    ended_run = start(run="r0")
    found = orphans(
        stage_containers(client, own), *airflow({"r1"}, {("r1", "score"), ("r0", "score"), ("r1", "plan")})
    )
    assert {each.id: reason for each, reason in found} == {
        old: "a later attempt has taken over",
        new: "a later attempt has taken over",
        ended_task: "its task has ended",
        ended_run: "its run has ended",
    }
    assert {each.id for each in stage_containers(client, own)} - {each.id for each, _ in found} == {
        again,
        other_shard,
    }


def test_an_orphan_is_stopped_removed_and_named(
    client: docker.APIClient, own: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says whose it was and why it went; ending it twice is no error."""
    name = start()
    (orphan,) = stage_containers(client, own)
    assert end(client, orphan, "its run has ended")
    with pytest.raises(NotFound):
        client.inspect_container(name)
    assert not end(client, orphan, "again")
    assert f"{name} (batch r1 score[0], attempt 1, running): its run has ended" in caplog.text


def test_the_task_of_the_dag_ends_orphans(
    client: docker.APIClient, own: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the DAG runs finds this machine's engine by itself, asks Airflow, and tells how many it ended."""
    kept, orphan = start(run="r1"), start(run="r0")
    count_runs, count_tasks = airflow({"r1"}, {("r1", "score")})
    instance = SimpleNamespace(get_dr_count=count_runs, get_ti_count=count_tasks)
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "docker")
    monkeypatch.setenv("IMAGEBATCH_INSTALLATION", own)
    path = Path(__file__).resolve().parents[2] / "dags" / "imagebatch_maintenance.py"
    module = runpy.run_path(str(path))
    function = module["stop_orphans"].function
    function.__globals__["get_current_context"] = lambda: {
        "ti": instance
    }  # a task's context is Airflow's to make
    assert function() == {"seen": 2, "stopped": 1}
    assert client.inspect_container(kept)["State"]["Running"]
    with pytest.raises(NotFound):
        client.inspect_container(orphan)


def test_another_installations_containers_are_not_seen(
    client: docker.APIClient, own: str, start: Start
) -> None:
    """Two Airflows may share an engine: neither knows the other's runs, so neither judges them."""
    start(labels={"imagebatch.installation": f"{own}-other"})
    try:
        assert stage_containers(client, own) == []
        assert len(stage_containers(client, f"{own}-other")) == 1
    finally:
        for each in stage_containers(client, f"{own}-other"):
            end(client, each, "the test is over")


def test_a_container_with_broken_labels_is_left_alone(
    client: docker.APIClient, own: str, start: Start
) -> None:
    """Whatever merely looks like a stage is nobody's to stop."""
    start(labels={"imagebatch.attempt": "first"})
    assert stage_containers(client, own) == []
