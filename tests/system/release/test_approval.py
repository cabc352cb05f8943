"""A person's word in a real Airflow: approved, the release goes on; rejected, it is taken back."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.embedded import embedded
from tools.airflow_api import AirflowApi, Run

pytestmark = pytest.mark.timeout(900)
# Stands for the training, which other tests run: it writes down what it is asked.
PROGRAM = """#!{python}
import json, sys
from pathlib import Path
with Path(__file__).with_name("asked").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
gate = {{"name": "parity", "sentence": "the archive names float32 torch's class on 100.00% of the images"}}
figures = {{"archive": {{"version": "1.1"}}, "shadow": {{"said": "another answer on 7 of 400 images"}}}}
print(json.dumps({{"stage": "release", "gates": {{"gates": [gate]}}}} | figures))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("approval")
    program = made / "imagebatch-train"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def airflow(folder: Path) -> Iterator[AirflowApi]:
    with embedded(folder / "var", {"IMAGEBATCH_TRAIN_BIN": str(folder / "imagebatch-train")}) as running:
        running.wait_for_dag("model_release", 300)
        yield running


def asked(folder: Path) -> list[str]:
    """What the program was asked to do, in order: a step, `--withdraw`, or all of it."""
    lines = map(json.loads, (folder / "asked").read_text().splitlines())
    return [
        next((word for word in words if word.startswith(("--until", "--with"))), "promote") for words in lines
    ]


def answered(airflow: AirflowApi, run: Run, answer: str) -> dict[str, str]:
    """Waits until somebody is asked, answers, and returns the tasks' states at the end of the run."""
    deadline, states = time.monotonic() + 400, {}
    while True:
        assert time.monotonic() < deadline, f"nobody is asked: {states}"
        states = {task["task_id"]: task["state"] for task in airflow.tasks(run)}
        if states.get("approve") == "awaiting_input":
            break
        time.sleep(0.5)
    path = f"/api/v2{run.path}/taskInstances/approve/-1/hitlDetails"
    details = airflow.call(path)
    assert details["subject"] == "Shall version 1.1 take over?"
    assert "another answer on 7 of 400 images" in details["body"]
    assert "- **parity**: the archive names" in details["body"]
    airflow.call(path, {"chosen_options": [answer], "params_input": {}}, "PATCH")
    assert airflow.wait(run, 300) == "success"
    return {task["task_id"]: task["state"] for task in airflow.tasks(run)}


def test_approved_it_takes_over(airflow: AirflowApi, folder: Path) -> None:
    """Nothing is promoted before the answer; afterwards there is nothing to take back."""
    states = answered(airflow, airflow.trigger("model_release", {}), "Approve")
    assert (states["promote"], states["withdraw"], states["finished"]) == ("success",) * 3
    assert asked(folder)[:3] == ["--until=gates", "--until=probe", "--until=shadow"]
    assert asked(folder)[3:] == ["promote", "--withdraw"]


def test_rejected_it_is_taken_back(airflow: AirflowApi, folder: Path) -> None:
    """The run is no failure, and nothing was promoted."""
    (folder / "asked").unlink(missing_ok=True)
    states = answered(airflow, airflow.trigger("model_release", {}), "Reject")
    assert (states["promote"], states["withdraw"]) == ("skipped", "success")
    assert asked(folder) == ["--until=gates", "--until=probe", "--until=shadow", "--withdraw"]
