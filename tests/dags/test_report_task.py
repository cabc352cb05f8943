"""The task `report`: no part of the run's verdict; and the link to what it writes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from imagebatch_dags.links import ReportLink, ResultLink

ROOT = Path(__file__).resolve().parents[2]
TI = SimpleNamespace(dag_id="batch", run_id="manual__2026-01-31T02:00:00+00:00", task_id="report")
# Stands for `imagebatch`: the stage that FAILING names ends with 78, the others succeed.
STAGE = """
import json, os, sys
if sys.argv[1] == os.environ["FAILING"]:
    sys.exit(78)
print(json.dumps({"stage": sys.argv[1], "shards": 2, "accepted": 2}))
"""
RUN = """
import os
import batch_image_inference
for failing in ("report", "postprocess"):
    os.environ["FAILING"] = failing
    run = batch_image_inference.dag.test()
    states = {ti.task_id: ti.state for ti in run.get_task_instances()}
    print("END", run.state, *(f"{name}={states[name]}" for name in ("postprocess", "report", "finished")))
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Prepare an Airflow of its own, and a program in the place of `imagebatch`."""
    home = tmp_path_factory.mktemp("airflow")
    program = home / "imagebatch"
    program.write_text(f"#!{sys.executable} -I\n{STAGE}")
    program.chmod(0o755)
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "PYTHONPATH": str(ROOT / "dags"),
        "IMAGEBATCH_BIN": str(program),
    }
    for command in (["db", "migrate"], ["pools", "import", str(ROOT / "airflow" / "pools.json")]):
        airflow = Path(sys.executable).with_name("airflow")
        subprocess.run([airflow, *command], env=os.environ | settings, capture_output=True, check=True)
    return settings


def test_the_run_ends_as_postprocess_ends(airflow: dict[str, str]) -> None:
    """A report that fails leaves a red task in a run that succeeded; a run without its table has failed."""
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=os.environ | airflow, capture_output=True, text=True, check=False
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("END")] == [
        "END success postprocess=success report=failed finished=success",
        "END failed postprocess=failed report=upstream_failed finished=upstream_failed",
    ], done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("template", "result", "report"),
    [
        ("https://files.example/{run}/output/", "output/", "output/report.html"),
        ("https://files.example/{run}/show", "show", "show"),
    ],
)
def test_the_report_is_linked_where_results_are(
    monkeypatch: pytest.MonkeyPatch, template: str, result: str, report: str
) -> None:
    """Where a file server is named the button leads to the page in the run's folder."""
    monkeypatch.setenv("IMAGEBATCH_RESULTS_URL", template)
    folder = "https://files.example/batch.-manual__2026-01-31T02.3A00.3A00.2B00.3A00/"
    assert ResultLink().get_link(None, ti_key=TI) == folder + result
    assert ReportLink().get_link(None, ti_key=TI) == folder + report


def test_the_link_leads_to_where_the_task_has_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that began under an older version has its files under another name."""
    monkeypatch.setenv("IMAGEBATCH_RESULTS_URL", "https://files.example/{run}/output/")
    done = SimpleNamespace(result={"run_id": "manual__1", "stage": "report"})
    assert ReportLink().get_link(done, ti_key=TI) == "https://files.example/manual__1/output/report.html"


def test_without_a_file_server_the_link_leads_to_the_path(default_dag: Any) -> None:
    """The task's own page in Airflow names the file."""
    (link,) = default_dag.task_dict["report"].operator_extra_links
    assert link.name == "Report"
    assert link.get_link(None, ti_key=TI).endswith("/tasks/report/xcom")
