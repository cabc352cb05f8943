import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.paths import ROOT

RUN = """
import json, sys
import batch_image_inference
run = batch_image_inference.dag.test(run_conf=json.loads(sys.argv[1]))
tasks = [(ti.task_id, ti.state, ti.try_number) for ti in run.get_task_instances()]
print(json.dumps({"state": run.state, "tasks": tasks}))
"""


@pytest.fixture(scope="module")
def airflow_home(tmp_path_factory: pytest.TempPathFactory, stack: Any, first: Any) -> Path:
    """Prepare an Airflow of its own beside the demo's model server."""
    assert first
    home = tmp_path_factory.mktemp("airflow")
    program = Path(sys.executable).with_name("airflow")
    for command in (["db", "migrate"], ["pools", "import", "airflow/pools.json"]):
        subprocess.run(
            [program, *command], env=environment(home, stack), cwd=ROOT, capture_output=True, check=True
        )
    return home


def environment(home: Path, stack: Any) -> dict[str, str]:
    """Point Airflow at its folder, and the stages at the demo's model server."""
    url = "http://127.0.0.1:{}".format
    return os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": str(ROOT / "dags"),
        "IMAGEBATCH_BIN": str(ROOT / "pipeline_image" / ".venv" / "bin" / "imagebatch"),
        "IMAGEBATCH_INPUTS": str(stack.var / "data"),
        "IMAGEBATCH_RUNS_URI": str(home / "runs"),
        "IMAGEBATCH_API_URL": url(stack.ports["inference"]),
        "IMAGEBATCH_MANAGEMENT_URL": url(stack.ports["management"]),
        "IMAGEBATCH_KEY_FILE": str(stack.var / "torchserve" / "key_file.json"),
    }


@pytest.fixture
def dag_test(airflow_home: Path, stack: Any, tmp_path: Path) -> Any:
    """Run the default DAG by Airflow's own `dag.test()`, with the real stages and the real model server."""

    def run(**conf: object) -> tuple[str, dict[str, set[tuple[str, int]]]]:
        done = subprocess.run(
            [sys.executable, "-c", RUN, json.dumps(conf)],
            env=environment(airflow_home, stack) | {"IMAGEBATCH_ALLOWED_ROOTS": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        result = json.loads(done.stdout.strip().splitlines()[-1])
        tasks: dict[str, set[tuple[str, int]]] = {}
        for name, state, tries in result["tasks"]:
            tasks.setdefault(name, set()).add((state, tries))
        return result["state"], tasks

    return run


@pytest.fixture
def few(stack: Any, first: Any, tmp_path: Path) -> Path:
    """Take 30 of the photographs."""
    assert first
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted((stack.var / "data" / "solar-cells" / "images").iterdir())[:30]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_bad_image_costs_one_row(dag_test: Any, few: Path, airflow_home: Path) -> None:
    """Three shards, one broken file among them: the run succeeds with one failure and thirty predictions."""
    (few / "broken.png").write_bytes(b"this is no image")
    state, tasks = dag_test(input=str(few), shard_size=11)
    assert state == "success"
    assert set.union(*tasks.values()) == {("success", 1)}
    (certificate,) = airflow_home.glob("runs/*/output/certificate.json")
    counts = json.loads(certificate.read_text())["counts"]
    assert (counts["listed"], counts["predicted"], counts["failed"] + counts["rejected"]) == (31, 30, 1)


def test_too_many_failures_stop_the_run_without_a_retry(dag_test: Any, few: Path) -> None:
    """A failure limit of none makes a gate refuse the data: one try, nothing is published."""
    (few / "broken.png").write_bytes(b"this is no image")
    state, tasks = dag_test(input=str(few), max_failures="0")
    assert state == "failed"
    assert tasks["postprocess"] == {("upstream_failed", 0)}
    assert ("failed", 1) in set.union(*tasks.values())


def test_a_mistyped_key_does_not_score_the_default_input(
    dag_test: Any, few: Path, airflow_home: Path
) -> None:
    """The first task refuses it, and no run is begun."""
    before = set(airflow_home.glob("runs/*"))
    state, tasks = dag_test(inptu=str(few), limit=10)
    assert state == "failed"
    assert tasks["preprocess"] == {("failed", 1)}
    assert set(airflow_home.glob("runs/*")) == before


def test_an_input_that_does_not_exist_fails_at_once(dag_test: Any, tmp_path: Path) -> None:
    """Exit code 78: one try, and nothing after it runs."""
    state, tasks = dag_test(input=str(tmp_path / "nowhere"))
    assert state == "failed"
    assert tasks.pop("preprocess") == {("failed", 1)}
    assert set.union(*tasks.values()) == {("upstream_failed", 0)}


def test_an_empty_input_fails_at_once(dag_test: Any, tmp_path: Path) -> None:
    """Exit code 65: an empty folder may be a share that is not mounted, and is no green night."""
    (tmp_path / "empty").mkdir()
    state, tasks = dag_test(input=str(tmp_path / "empty"))
    assert state == "failed"
    assert tasks.pop("preprocess") == {("failed", 1)}
    assert set.union(*tasks.values()) == {("upstream_failed", 0)}


def test_an_input_that_may_be_empty_skips_the_whole_run(dag_test: Any, tmp_path: Path) -> None:
    """Exit code 99: every task is skipped, none failed."""
    (tmp_path / "empty").mkdir()
    state, tasks = dag_test(input=str(tmp_path / "empty"), allow_empty=True)
    assert state == "success"
    assert {status for status, _ in set.union(*tasks.values())} == {"skipped"}


def test_an_unknown_model_fails_at_once(dag_test: Any, few: Path) -> None:
    """A model that the server does not have is a wrong configuration, not a reason to wait."""
    state, tasks = dag_test(input=str(few), model="no-such-model")
    assert state == "failed"
    assert tasks["preprocess"] == {("failed", 1)}


def test_an_input_that_is_not_open_fails_at_once(dag_test: Any, stack: Any) -> None:
    """Exit code 78: a DAG cannot be made to read elsewhere, and no retry is spent on it."""
    state, tasks = dag_test(input=str(stack.var / "data"))
    assert state == "failed"
    assert tasks["preprocess"] == {("failed", 1)}
