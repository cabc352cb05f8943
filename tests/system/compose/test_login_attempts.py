"""What a viewer's login, a wrong one and none at all can do."""

import http.client
from collections.abc import Callable
from typing import Any

import pytest

from tools.airflow_api import AirflowApi, AirflowError
from tools.compose.stack import PORTS, Stack

DAG = "batch_image_inference"


@pytest.fixture(scope="module")
def viewer(stack: Stack) -> AirflowApi:
    """Log in as somebody who may look."""
    return stack.log_in("viewer")


def status(call: Callable[[], Any]) -> int:
    """Tell how a call was answered."""
    try:
        call()
    except AirflowError as error:
        return error.status
    return 200


def test_a_viewer_sees_runs(viewer: AirflowApi) -> None:
    """The login works: runs and their state are there to be seen."""
    assert viewer.call(f"/api/v2/dags/{DAG}/dagRuns")["total_entries"] >= 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"/api/v2/dags/{DAG}/dagRuns", {"logical_date": None, "conf": {}}),
        ("PATCH", f"/api/v2/dags/{DAG}?update_mask=is_paused", {"is_paused": True}),
        ("POST", f"/api/v2/dags/{DAG}/clearTaskInstances", {"dry_run": False}),
        ("DELETE", f"/api/v2/dags/{DAG}", None),
        ("GET", "/api/v2/connections", None),
        ("POST", "/api/v2/connections", {"connection_id": "x", "conn_type": "docker"}),
        ("GET", "/api/v2/variables", None),
        ("POST", "/api/v2/variables", {"key": "x", "value": "y"}),
        ("PATCH", "/api/v2/pools/model_api", {"slots": 0}),
        ("GET", "/api/v2/config", None),
    ],
)
def test_a_viewer_changes_nothing_and_sees_no_secret(
    viewer: AirflowApi, method: str, path: str, body: dict[str, Any] | None
) -> None:
    """No trigger, no pause, no clear, no connection, no variable, no setting."""
    assert status(lambda: viewer.call(path, body, method)) == 403


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/static/..%2f..%2f..%2fetc%2fpasswd",
        f"/api/v2/dags/{DAG}/dagRuns/..%2f..%2f..%2fetc/taskInstances/passwd/logs/1",
        f"/api/v2/dags/..%2f{DAG}/dagRuns",
        "/api/v2/dagSources/..%2f..%2fairflow.cfg",
    ],
)
def test_a_viewer_reads_no_file_by_a_path_trick(viewer: AirflowApi, path: str) -> None:
    """Names that climb out of their folder name nothing."""
    try:
        answer = str(viewer.call(path))
    except AirflowError as error:
        answer = f"HTTP {error.status}"
    except ValueError:
        answer = "no JSON"  # the page of the user interface, which answers to every path unknown to it
    assert answer in {"no JSON", "HTTP 400", "HTTP 403", "HTTP 404", "HTTP 422"}


@pytest.mark.parametrize(
    ("user", "password", "answer"),
    [("viewer", "viewer", 401), ("admin", "admin", 401), ("nobody", "nobody", 401), ("admin", "", 400)],
)
def test_a_guessed_password_is_refused(stack: Stack, user: str, password: str, answer: int) -> None:
    """No login has a password that one could know; an empty one is no login at all."""
    assert status(lambda: AirflowApi(stack.airflow, user, password)) == answer


def test_nothing_answers_without_a_login(stack: Stack) -> None:
    """Airflow's runs, and MLflow's experiments."""
    for port, path in (
        (stack.settings["AIRFLOW_PORT"], f"/api/v2/dags/{DAG}/dagRuns"),
        (stack.settings["MLFLOW_PORT"], "/api/2.0/mlflow/experiments/search?max_results=1"),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        connection.request("GET", path)
        assert connection.getresponse().status == 401, path
        connection.close()


def test_no_other_port_of_the_machine_leads_into_the_stack(
    stack: Stack, containers: dict[str, dict[str, Any]]
) -> None:
    """Management API, metrics, metadata database and engine are bound to no port of the machine."""
    bound = {
        (each["HostIp"], each["HostPort"])
        for container in containers.values()
        for bindings in (container["NetworkSettings"]["Ports"] or {}).values()
        for each in bindings or []
    }
    wanted = {stack.settings[name] for name in PORTS}
    assert bound == {("127.0.0.1", port) for port in wanted}
