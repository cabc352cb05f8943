import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import json, sys
import batch_image_inference
run = batch_image_inference.dag.test(run_conf=json.loads(sys.argv[1]))
tasks = {ti.task_id: (ti.state, ti.try_number) for ti in run.get_task_instances()}
print(json.dumps({"state": run.state, "tasks": tasks}))
"""


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrate a database of its own, once."""
    home = tmp_path_factory.mktemp("airflow")
    program = Path(sys.executable).with_name("airflow")
    subprocess.run([program, "db", "migrate"], env=environment(home), capture_output=True, check=True)
    return home


def environment(home: Path) -> dict[str, str]:
    """Point Airflow, its stages and their runs at one folder."""
    return os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": str(ROOT / "dags"),
        "IMAGEBATCH_BIN": str(ROOT / "pipeline_image" / ".venv" / "bin" / "imagebatch"),
        "IMAGEBATCH_RUNS_URI": str(home / "runs"),
    }


def dag_test(home: Path, conf: dict[str, object]) -> dict[str, object]:
    """Run the default DAG by Airflow's own `dag.test()`, with the real stages as processes."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(conf)],
        env=environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    result: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def test_an_input_that_does_not_exist_fails_at_once(airflow_home: Path) -> None:
    """The real preprocess ends with 78, the task is tried once, and nothing after it runs."""
    seen = dag_test(airflow_home, {"input": str(airflow_home / "nowhere")})
    assert seen["state"] == "failed"
    assert seen["tasks"]["preprocess"] == ["failed", 1]  # type: ignore[index] # JSON
    assert {state for state, _ in list(seen["tasks"].values())[1:]} == {"upstream_failed"}  # type: ignore[attr-defined] # JSON


def test_an_empty_input_skips_the_whole_run(airflow_home: Path) -> None:
    """The real preprocess ends with 99, and every task is skipped, none failed."""
    (airflow_home / "empty").mkdir()
    seen = dag_test(airflow_home, {"input": str(airflow_home / "empty")})
    assert seen["state"] == "success"
    assert {state for state, _ in seen["tasks"].values()} == {"skipped"}  # type: ignore[attr-defined] # JSON
