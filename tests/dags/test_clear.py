"""Clearing what has failed, with deadlines in the database: how a person has a run continued."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLEAR = """
from airflow.models import DagRun
from airflow.models.deadline import Deadline
from airflow.models.taskinstance import clear_task_instances
from airflow.utils.session import create_session
from sqlalchemy import select

with create_session() as session:
    run = session.scalars(select(DagRun)).one()
    tasks = run.get_task_instances(session=session)
    for each in tasks:
        each.set_state("failed", session=session)
    run.state = "failed"
    session.flush()
    due = select(Deadline.deadline_time).order_by(Deadline.deadline_time)
    before = session.scalars(due).all()
    clear_task_instances(tasks, session)
    session.flush()
    after = session.scalars(due).all()
    later = [new > old for old, new in zip(before, after, strict=True)]
    apart = [round((time - after[0]).total_seconds() / 60) for time in after]
    print("END", run.state, later, apart)
"""


def test_a_failed_run_with_deadlines_can_be_cleared(tmp_path: Path) -> None:
    """The run is queued again and its three deadlines are counted from now."""
    settings = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "PYTHONPATH": str(ROOT / "dags"),
        "IMAGEBATCH_DEADLINES": "1",
    }
    airflow = str(Path(sys.executable).with_name("airflow"))
    steps = (
        [airflow, "db", "migrate"],
        [airflow, "dags", "reserialize"],
        [airflow, "dags", "trigger", "batch_image_inference"],
        [sys.executable, "-c", CLEAR],
    )
    for step in steps:
        done = subprocess.run(step, env=os.environ | settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (end,) = [line for line in done.stdout.splitlines() if line.startswith("END")]
    assert end == "END queued [True, True, True] [0, 30, 60]"
