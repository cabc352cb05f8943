"""A broker that hands out anew what takes too long: settings and pipelines must agree."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from imagebatch_dags.factory import build_dag
from imagebatch_dags.options import PipelineError
from imagebatch_dags.pipeline import OPTIONS, Pipeline

from tools import properties

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = properties.read(ROOT / "airflow" / "celery.env")
VISIBILITY = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"


@pytest.fixture(
    params=["CeleryExecutor", "airflow.providers.celery.executors.celery_executor.CeleryExecutor"]
)
def celery(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what a deployment of several machines sets, the executor by either name."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", request.param)
    for name, value in SHIPPED.items():
        monkeypatch.setenv(name, value)


def test_the_broker_waits_longer_than_the_longest_stage(celery: None) -> None:
    """With what ships, a stage of the default pipeline ends long before its message is handed out again."""
    assert celery is None
    longest = float(OPTIONS["stage_timeout_minutes"].default) * 60
    assert int(SHIPPED[VISIBILITY]) >= 2 * longest
    build_dag(Pipeline(dag_id="cells", input="/data/inputs"), auto_register=False)


def test_a_stage_that_may_outlast_the_broker_is_refused(
    celery: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the key, the limit and the variable; one minute less is taken."""
    assert celery is None
    monkeypatch.setenv(VISIBILITY, "36000")
    build_dag(Pipeline(dag_id="cells", input="/data/inputs", stage_timeout_minutes=599), auto_register=False)
    with pytest.raises(
        PipelineError, match=f"stage_timeout_minutes: 600 must be below 600, .* {VISIBILITY} "
    ):
        build_dag(
            Pipeline(dag_id="cells", input="/data/inputs", stage_timeout_minutes=600), auto_register=False
        )


def test_an_executor_without_a_broker_has_no_such_limit() -> None:
    """Where tasks are processes of the scheduler nothing is handed out again."""
    build_dag(Pipeline(dag_id="cells", input="/data/inputs", stage_timeout_minutes=5000), auto_register=False)


SEND = """
import json, sys, uuid
from airflow.executors.workloads import ExecuteTask
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.providers.celery.executors.celery_executor import CeleryExecutor

executor = CeleryExecutor()
instance = TaskInstanceDTO(
    id=uuid.uuid4(), dag_version_id=uuid.uuid4(), task_id="score", dag_id="cells", run_id="night",
    try_number=1, map_index=0, pool_slots=1, queue="default", priority_weight=1,
    external_executor_id=str(uuid.uuid4()),
)
waiting = ExecuteTask(
    ti=instance, dag_rel_path="cells.py", token="", log_path="log", bundle_info=BundleInfo(name="dags")
)
executor.queued_tasks[instance.key] = waiting
for _ in range(2):
    executor.heartbeat()
print(json.dumps([len(executor.queued_tasks), len(executor.running), len(executor.event_buffer)]))
"""


def test_a_broker_that_is_away_costs_no_task_a_try(tmp_path: Path) -> None:
    """What cannot be sent is kept and sent later: no failure is reported, which would use up a retry."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    settings = SHIPPED | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CELERY__BROKER_URL": f"redis://:secret@127.0.0.1:{port}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+sqlite:///{tmp_path}/results.db",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SEND],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.strip().splitlines()[-1]) == [1, 0, 0], done.stderr[-2000:]
