import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tools.airflow_api import AirflowApi, AirflowError, Run

PASSWORD = "right"  # noqa: S105 - of a server that lives for one test
RUN = Run("night", "manual__2026-01-31T02:00:00+00:00")


class Airflow(ThreadingHTTPServer):
    """Answers as Airflow does: a login, a DAG that is read late, a run of many tasks, a refusal."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.unread = 2  # times that the DAG is not known yet
        self.asked: list[tuple[str, str, Any]] = []

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Answer a call."""
        known = {
            "/api/v2/importErrors": {"import_errors": [{"stack_trace": "Traceback\nNameError: night"}]},
            "/api/v2/dags/night/dagRuns": {"dag_run_id": RUN.run_id},
            f"/api/v2{RUN.path}": {"state": "success"},
            f"/api/v2{RUN.path}/taskInstances/postprocess/xcomEntries/return_value": {
                "value": '{"listed": 3}'
            },
            f"/api/v2{RUN.path}/taskInstances/score/logs/2": {"content": [{"event": "a"}, "b"]},
        }
        parts = urlsplit(path)
        if parts.path == "/auth/token":
            right = body["password"] == PASSWORD
            return (201, {"access_token": "token"}) if right else (401, {"detail": "Invalid credentials"})
        if parts.path == "/api/v2/dags/night":
            self.unread -= method == "GET"
            return (200, {}) if self.unread < 0 or method == "PATCH" else (404, {"detail": "no such DAG"})
        if parts.path == f"/api/v2{RUN.path}/taskInstances":
            first = int(parse_qs(parts.query)["offset"][0])
            return 200, {"total_entries": 130, "task_instances": list(range(130))[first : first + 100]}
        return (200, known[parts.path]) if parts.path in known else (403, {"detail": "Forbidden"})


class Handler(BaseHTTPRequestHandler):
    """Reads a call and writes the server's answer."""

    server: Airflow

    def do_GET(self) -> None:
        """Answer any method."""
        length = int(self.headers["Content-Length"] or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, body))
        allowed = self.path == "/auth/token" or self.headers["Authorization"] == "Bearer token"
        status, answer = self.server.answer(self.command, self.path, body) if allowed else (401, {})
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PATCH = do_GET  # noqa: N815 - names that the library calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    """Serve for one test."""
    with Airflow() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def api(airflow: Airflow) -> AirflowApi:
    """Log in."""
    return AirflowApi(airflow.address, "admin", PASSWORD)


def test_a_wrong_password_is_refused_with_its_status(airflow: Airflow) -> None:
    """The login is a call as any other: its status and its words are told."""
    with pytest.raises(AirflowError, match=r"answers 401 to /auth/token: .*Invalid credentials") as refused:
        AirflowApi(airflow.address, "admin", "wrong")
    assert refused.value.status == 401


def test_a_run_is_started_as_soon_as_the_dag_is_read(airflow: Airflow, api: AirflowApi) -> None:
    """It is waited for, switched on, and started with the values that were asked for."""
    api.wait_for_dag("night")
    run = api.trigger("night", {"limit": 3})
    assert run == RUN
    switched, started = airflow.asked[-2:]
    assert switched == ("PATCH", "/api/v2/dags/night?update_mask=is_paused", {"is_paused": False})
    assert started == ("POST", "/api/v2/dags/night/dagRuns", {"logical_date": None, "conf": {"limit": 3}})
    assert api.wait(run, 5) == "success"
    assert api.page(run) == f"{airflow.address}/dags/night/runs/manual__2026-01-31T02%3A00%3A00%2B00%3A00"


def test_a_dag_that_cannot_be_read_says_why(airflow: Airflow, api: AirflowApi) -> None:
    """After the patience the last line of its import error is told."""
    airflow.unread = 1000
    with pytest.raises(AirflowError, match="does not know the DAG night after 0 s: NameError: night"):
        api.wait_for_dag("night", 0)


def test_a_refusal_while_waiting_is_not_waited_out(api: AirflowApi) -> None:
    """Only a DAG that is not read yet is worth waiting for."""
    with pytest.raises(AirflowError, match="answers 403") as refused:
        api.wait_for_dag("other")
    assert refused.value.status == 403


def test_all_pages_of_tasks_are_read(api: AirflowApi) -> None:
    """A run of more shards than one page holds is seen whole."""
    assert api.tasks(RUN) == list(range(130))


def test_a_result_is_parsed_and_a_missing_one_is_empty(api: AirflowApi) -> None:
    """A stage's last line comes back as an object; a stage that returned nothing as none."""
    assert api.result(RUN, "postprocess") == {"listed": 3}
    assert api.result(RUN, "preprocess") == {}


def test_a_log_is_of_the_last_attempt_and_may_hold_plain_text(api: AirflowApi) -> None:
    """Entries are objects or text; both are lines."""
    task = {"task_id": "score", "map_index": -1, "try_number": 2}
    assert api.log_lines(RUN, task) == ["a", "b"]
    assert api.log(RUN, task) == [{"event": "a"}, {"event": "b"}]
