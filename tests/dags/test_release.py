"""`model_release`: its graph, and whole runs by Airflow with a program in the place of the training."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import ParamValidationError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(300)
FILE = str(ROOT / "dags" / "model_release.py")
RUN = """
import json, os
import model_release
for name, fails in (("good", ""), ("bad", "--until=probe")):
    os.environ |= {"NAME": name, "FAILS": fails}
    run = model_release.dag.test(run_conf={"approval": False, "version": "1.1"})
    print("END", name, run.state, json.dumps({ti.task_id: ti.state for ti in run.get_task_instances()}))
"""
# Writes down what it is asked, and fails at the step that FAILS names.
PROGRAM = """#!{python}
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
with Path(__file__).with_name("asked-" + os.environ["NAME"]).open("a") as file:
    file.write(json.dumps(words) + "\\n")
if os.environ["FAILS"] in words:
    sys.exit(65)
figures = {{"archive": {{"version": "1.1"}}, "shadow": {{"said": "x"}}, "gates": {{"gates": []}}}}
print(json.dumps({{"stage": "release"}} | figures))
"""


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Names a program as the installation's training."""
    path = tmp_path / "imagebatch-train"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("IMAGEBATCH_TRAIN_BIN", str(path))
    monkeypatch.setenv("IMAGEBATCH_TRAIN_SETTINGS", "paths.data='/srv/my data' seed=1")
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "process")
    monkeypatch.setenv("IMAGEBATCH_RUNS_URI", "/data/runs")
    return path


def dag_of(file: str = FILE) -> Any:
    bag = DagBag(dag_folder=file)
    assert bag.import_errors == {}
    return bag.dags.get("model_release")


def test_it_is_there_where_this_machine_trains(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where stages are containers, nor where no training is installed."""
    assert dag_of()
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "docker")
    assert dag_of() is None
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", "process")
    monkeypatch.delenv("IMAGEBATCH_TRAIN_BIN")
    assert dag_of() is None
    assert program.exists()


def test_the_graph_lets_nothing_take_over_that_is_not_asked_about(program: Path) -> None:
    """Every step waits for the one before; the way back runs whatever became of the others."""
    assert program
    dag = dag_of()
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {
        "challenger": set(),
        "serve": {"challenger"},
        "shadow": {"serve"},
        "asked": {"shadow"},
        "approve": {"asked"},
        "promote": {"asked", "approve"},
        "withdraw": {"promote"},
        "finished": {"promote"},
    }
    assert dag.task_dict["withdraw"].trigger_rule == "all_done"
    assert isinstance(dag.task_dict["approve"], ApprovalOperator)
    assert dag.task_dict["approve"].response_timeout
    assert all(task.doc_md for task in dag.tasks)
    assert all(dag.task_dict[name].retries == 0 for name in ("challenger", "serve", "shadow", "promote"))
    with pytest.raises(ParamValidationError):
        dag.params["version"] = "a b"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, dict[str, str], list[list[str]]]]:
    """Two runs by one Airflow, one of which fails: ends, states, what the program was asked."""
    home = tmp_path_factory.mktemp("airflow")
    path = home / "imagebatch-train"
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": str(ROOT / "dags"),
        "IMAGEBATCH_TRAIN_BIN": str(path),
        "IMAGEBATCH_TRAIN_SETTINGS": "paths.data='/srv/my data' seed=1",
        "IMAGEBATCH_RUNS_URI": "/data/runs",
    }
    airflow = str(Path(sys.executable).with_name("airflow"))
    for step in ([airflow, "db", "migrate"], [sys.executable, "-c", RUN]):
        done = subprocess.run(step, env=os.environ | own, capture_output=True, text=True, check=False)
    found = {}
    for line in (line for line in done.stdout.splitlines() if line.startswith("END ")):
        _, name, state, states = line.split(" ", 3)
        asked = [json.loads(words) for words in (home / f"asked-{name}").read_text().splitlines()]
        found[name] = (state, json.loads(states), asked)
    assert set(found) == {"good", "bad"}, done.stdout[-2000:] + done.stderr[-2000:]
    return found


def test_a_release_without_a_person_goes_step_by_step(ended: dict[str, Any]) -> None:
    """Each task names its step and the same version; the words of the installation come last, unsplit."""
    state, states, asked = ended["good"]
    assert (state, states["approve"], states["promote"]) == ("success", "skipped", "success")
    # The last two begin together.
    assert sorted(
        [word for word in words if word.startswith(("--until", "--withdraw"))] for words in asked[:3]
    ) == [
        ["--until=gates"],
        ["--until=probe"],
        ["--until=shadow"],
    ]
    assert ["--withdraw" in words for words in asked[3:]] == [False, True]
    for words in asked:
        assert words[:2] == ["release", "--json"]
        assert words[-3:] == ["model.version=1.1", "paths.data=/srv/my data", "seed=1"]
    (page,) = [word for word in asked[2] if word.startswith("--shadow-page=")]
    assert "/releases/model_release" in page
    assert "--shadow-runs=/data/runs" in asked[2]


def test_a_failed_step_is_the_last_and_everything_is_taken_back(ended: dict[str, Any]) -> None:
    """Nothing after it is begun but the way back, and the run has failed."""
    state, states, asked = ended["bad"]
    assert (state, states["serve"], states["promote"]) == ("failed", "failed", "upstream_failed")
    assert states["withdraw"] == "success"
    assert ["--withdraw" in words for words in asked] == [False, False, True]
