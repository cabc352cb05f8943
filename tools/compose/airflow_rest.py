"""The few calls to Airflow's REST API that the compose stack's tests make."""

import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

FINISHED = ("success", "failed")


class Airflow:
    """One login at one Airflow.

    Args:
        address: such as `http://127.0.0.1:8088`.
        user: its name.
        password: of that user.

    Raises:
        OSError: it does not answer, or refuses (`urllib.error.HTTPError`).
    """

    def __init__(self, address: str, user: str, password: str) -> None:
        self._address = address
        self._token = ""
        self._token = self.call("/auth/token", {"username": user, "password": password})["access_token"]

    def call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Make one call.

        Args:
            path: with its query.
            body: sent as JSON, unless None.
            method: default GET, or POST with a body.

        Raises:
            OSError: no answer, or a status of 400 and above.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def trigger(self, dag: str, conf: dict[str, Any]) -> str:
        """Switch a DAG on, as soon as Airflow knows it, and start a run.

        Returns:
            The run's id.
        """
        deadline = time.monotonic() + 120
        while True:
            try:
                self.call(f"/api/v2/dags/{dag}?update_mask=is_paused", {"is_paused": False}, "PATCH")
                break
            except urllib.error.HTTPError as error:
                if error.code != 404 or time.monotonic() > deadline:  # noqa: PLR2004 - not read yet
                    raise
            time.sleep(1)
        made = self.call(f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return str(made["dag_run_id"])

    def wait(self, dag: str, run_id: str, seconds: float) -> str:
        """Wait until a run has ended.

        Returns:
            `success` or `failed`, or how far it came in that time.
        """
        deadline = time.monotonic() + seconds
        while True:
            state = str(self.call(f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}")["state"])
            if state in FINISHED or time.monotonic() > deadline:
                return state
            time.sleep(1)

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        """List a run's task instances."""
        path = f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}/taskInstances?limit=100"
        found: list[dict[str, Any]] = self.call(path)["task_instances"]
        return found

    def log(self, dag: str, run_id: str, task: dict[str, Any]) -> list[str]:
        """Read the lines of the last attempt's log."""
        index = f"?map_index={task['map_index']}" if task["map_index"] >= 0 else ""
        path = f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task['task_id']}"
        entries = self.call(f"{path}/logs/{max(1, task['try_number'])}{index}")["content"]
        return [str(entry.get("event", "")) for entry in entries]
