"""Airflow in a folder of its own: its settings must stand before its first import."""

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from tests.dags import engine
from tests.support import examples  # noqa: F401 - sets the profile of hypothesis

ROOT = Path(__file__).resolve().parents[2]
HOME = tempfile.TemporaryDirectory(prefix="imagebatch-airflow-")
for name in [name for name in os.environ if name.startswith(("AIRFLOW", "IMAGEBATCH_"))]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": HOME.name,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME.name}/airflow.db",
    "IMAGEBATCH_INPUTS": "/data/inputs",
    "IMAGEBATCH_WARM_SECONDS": "0",  # programs of tests are no `imagebatch`; test_warm_start.py has its own
}
SETTINGS_FILE = Path(HOME.name, "imagebatch.env")
SETTINGS_FILE.write_text("IMAGEBATCH_PACK_SIZE=48\n")
CLI = ROOT / "pipeline_image" / ".venv" / "bin" / "imagebatch"


def pytest_unconfigure() -> None:
    HOME.cleanup()


@pytest.fixture(params=["process", "docker"])
def operator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose two operators in turn, the way an installation does; the third renders what they render."""
    monkeypatch.setenv("IMAGEBATCH_OPERATOR", request.param)
    return str(request.param)


@pytest.fixture
def installation(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set every variable that an installation hands to its stages."""
    settings = {
        "IMAGEBATCH_BIN": str(CLI),
        "IMAGEBATCH_RUNS_URI": "/data/runs",
        "IMAGEBATCH_API_URL": "http://torchserve:8080",
        "IMAGEBATCH_MANAGEMENT_URL": "http://torchserve:8081",
        "IMAGEBATCH_KEY_FILE": "/run/imagebatch/keys/key_file.json",
        "IMAGEBATCH_GOLDEN": "/data/inputs/{model}.golden.json",
        "IMAGEBATCH_ALLOWED_ROOTS": "/data/inputs",
        "IMAGEBATCH_METRICS_URL": "http://pushgateway:9091",
        "IMAGEBATCH_SETTINGS_FILE": str(SETTINGS_FILE),
        "IMAGEBATCH_BACKEND": "local",
        "IMAGEBATCH_MODEL_ARCHIVE": "/data/model_store/{model}.mar",
        "IMAGEBATCH_LOCAL_WORKERS": "2",
        "IMAGEBATCH_CACHE": "/data/runs/_cache",
        "IMAGEBATCH_BENCH": "true",
        "IMAGEBATCH_BASELINE": "/data/model_store/{model}.baseline.parquet",
        "IMAGEBATCH_CEILING": "260",
        "IMAGEBATCH_TRACKING_URI": "http://mlflow:5000",
        "IMAGEBATCH_EXPERIMENT": "nights",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def default_dag(installation: dict[str, str]) -> Iterator[Any]:
    """Build the default DAG with the operator that the environment names."""
    # Here, not above: whoever imports Airflow before its settings stand gets somebody else's database.
    from imagebatch_dags.factory import build_dag  # noqa: PLC0415 - Airflow's settings must stand first
    from imagebatch_dags.pipeline import Pipeline  # noqa: PLC0415 - Airflow's settings must stand first

    assert installation
    return build_dag(Pipeline(dag_id="batch", input="/data/inputs/cells"))


def dag_run_of(dag_id: str, **more: Any) -> SimpleNamespace:
    """Build what a task sees of its run: last night's, on time, unless told otherwise."""
    due = datetime(2026, 1, 31, 2, tzinfo=UTC)
    run = {
        "dag_id": dag_id,
        "run_id": "scheduled__2026-01-31T02:00:00+00:00",
        "run_type": "scheduled",
        "run_after": due,
        "logical_date": due,
        "start_date": due,
        "clear_number": 0,
        "conf": {},
    }
    return SimpleNamespace(**run | more)


def context_of(
    task: Any, *, dag_run: SimpleNamespace | None = None, result: Any = None, **params: Any
) -> dict[str, Any]:
    """Build as much of a task's context as its templates read; `result` is that of the first task."""
    defaults = {name: param.value for name, param in task.dag.params.items()}
    return {
        "params": defaults | params,
        "dag": task.dag,
        "task": task,
        "dag_run": dag_run or dag_run_of(task.dag.dag_id),
        "ti": SimpleNamespace(task_id=task.task_id, map_index=-1, try_number=2, xcom_pull=lambda **_: result),
        **task.dag.user_defined_macros,
        "outlet_events": {},
    }


@pytest.fixture
def context() -> Any:
    """Hand out the builder of contexts."""
    return context_of


@pytest.fixture
def dag_run() -> Any:
    """Hand out the builder of runs, as a task sees them."""
    return dag_run_of


PARSER = """
import contextlib, io, json, sys
from imagebatch import cli
for line in sys.stdin:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = cli.call(["--parse-only", *json.loads(line)])
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


@pytest.fixture(scope="session")
def parse() -> Iterator[Any]:
    """Keep the parser of the real `imagebatch` at hand: command line in, exit code and complaint out."""
    argv = [str(CLI.with_name("python")), "-Ic", PARSER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parser:
        assert parser.stdin
        assert parser.stdout

        def asked(arguments: list[str]) -> tuple[int, str]:
            parser.stdin.write(json.dumps(arguments) + "\n")
            parser.stdin.flush()
            code, said = json.loads(parser.stdout.readline())
            return code, said

        yield asked
        parser.stdin.close()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[dict[str, Any]]]:
    """Listen on loopback as the webhook of an installation, and collect what is posted."""
    posted: list[dict[str, Any]] = []
    monkeypatch.setenv("IMAGEBATCH_ALERT_STATE", str(tmp_path / "alerts"))

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("IMAGEBATCH_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/hook")
        yield posted
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def client() -> Iterator[docker.APIClient]:
    """Hand out the engine's client, with the test image built; without an engine the test is skipped."""
    found = engine.connect()
    if found is None:
        pytest.skip(engine.MISSING)
    engine.build(found)
    yield found
    found.close()


@pytest.fixture
def own(client: docker.APIClient) -> Iterator[str]:
    """Name an installation that is this test's alone."""
    yield from engine.installation(client)
