"""The calls to Airflow's REST API that starting, following and repairing a run takes."""

import json
import time
import urllib.error
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tools.loopback import ask

ENDED = {"success", "failed"}  # states of a run
FINISHED = ENDED | {"skipped", "upstream_failed", "removed"}  # states of a task that does not go on
PATIENCE = 60.0  # seconds for one answer
UNKNOWN = 404


class AirflowError(RuntimeError):
    """Airflow refused a call.

    Args:
        message: what it answered, in one line.
        status: of its answer; 0 where it answered, but not with what was waited for.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Run:
    """One DAG run, addressed as the API does."""

    dag: str
    run_id: str

    @property
    def path(self) -> str:
        """Its path below the API's version."""
        return f"/dags/{self.dag}/dagRuns/{quote(self.run_id, safe='')}"


class AirflowApi:
    """One login at one Airflow.

    Args:
        address: such as `http://127.0.0.1:8088`.
        user: its name.
        password: of that user.

    Raises:
        AirflowError: it refuses a call, here the login.
        OSError: it does not answer.
    """

    def __init__(self, address: str, user: str, password: str) -> None:
        self._address = address
        self._headers = {"Accept": "application/json"}
        token = self.call("/auth/token", {"username": user, "password": password})["access_token"]
        self._headers["Authorization"] = f"Bearer {token}"

    def call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Make one call.

        Args:
            path: with its query.
            body: sent as JSON, unless None.
            method: default GET, or POST with a body.

        Returns:
            The parsed answer; None for an empty one.

        Raises:
            AirflowError: a status of 400 and above.
            OSError: no answer.
            ValueError: the answer is not JSON.
        """
        try:
            content = ask(self._address + path, self._headers, body, method, PATIENCE)
        except urllib.error.HTTPError as error:
            text = " ".join(error.read().decode(errors="replace").split())
            raise AirflowError(f"Airflow answers {error.code} to {path}: {text[:500]}", error.code) from None
        return json.loads(content) if content else None

    def page(self, run: Run) -> str:
        """Name a run's page in the UI."""
        return self._address + run.path.replace("/dagRuns/", "/runs/", 1)

    def wait_for_dag(self, dag: str, seconds: float = 60.0) -> None:
        """Wait until the DAG processor has read the DAG.

        Raises:
            AirflowError: it has not in that time; the message says why, as far as Airflow knows.
        """
        deadline = time.monotonic() + seconds
        while not self._known(dag):
            if time.monotonic() > deadline:
                errors = self.call("/api/v2/importErrors")["import_errors"]
                reason = errors[0]["stack_trace"].strip().splitlines()[-1] if errors else "no import error"
                raise AirflowError(f"Airflow does not know the DAG {dag} after {seconds:.0f} s: {reason}")
            time.sleep(0.5)

    def trigger(self, dag: str, conf: dict[str, Any]) -> Run:
        """Switch a DAG on and start a run of it.

        Args:
            dag: its name.
            conf: values for its Params.
        """
        self.call(f"/api/v2/dags/{dag}?update_mask=is_paused", {"is_paused": False}, "PATCH")
        started = self.call(f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return Run(dag, str(started["dag_run_id"]))

    def wait(self, run: Run, seconds: float) -> str:
        """Wait until a run has ended.

        Returns:
            `success` or `failed`, or how far it came in that time.
        """
        deadline = time.monotonic() + seconds
        while (state := self.state(run)) not in ENDED and time.monotonic() < deadline:
            time.sleep(1)
        return state

    def state(self, run: Run) -> str:
        """Ask for a run's state: queued, running, success or failed."""
        return str(self.details(run)["state"])

    def details(self, run: Run) -> dict[str, Any]:
        """Ask for all that Airflow knows of a run: state, times, parameters."""
        found: dict[str, Any] = self.call(f"/api/v2{run.path}")
        return found

    def under_way(self, dag: str) -> int:
        """Count the runs of a DAG that are queued or running."""
        path = f"/api/v2/dags/{dag}/dagRuns?state=queued&state=running&limit=1"
        return int(self.call(path)["total_entries"])

    def tasks(self, run: Run) -> list[dict[str, Any]]:
        """List the task instances of a run: one of each stage, and one of `score` per shard."""
        found: list[dict[str, Any]] = []
        while True:
            query = f"limit=100&offset={len(found)}&order_by=start_date"
            page = self.call(f"/api/v2{run.path}/taskInstances?{query}")
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def result(self, run: Run, task: str) -> dict[str, Any]:
        """Read what a finished stage returned; empty if it returned nothing."""
        path = f"/api/v2{run.path}/taskInstances/{task}/xcomEntries/return_value"
        try:
            value = self.call(path)["value"]
        except AirflowError:
            return {}
        parsed = json.loads(value) if isinstance(value, str) else value
        return parsed if isinstance(parsed, dict) else {}

    def log(self, run: Run, task: dict[str, Any]) -> list[dict[str, Any]]:
        """Read the last attempt's log of a task instance: entries with `event` and, mostly, `timestamp`."""
        index = f"?map_index={task['map_index']}" if task["map_index"] >= 0 else ""
        path = f"/api/v2{run.path}/taskInstances/{task['task_id']}/logs/{max(1, task['try_number'])}{index}"
        entries = self.call(path).get("content", [])
        return [entry if isinstance(entry, dict) else {"event": str(entry)} for entry in entries]

    def log_lines(self, run: Run, task: dict[str, Any]) -> list[str]:
        """Read the same as lines of text."""
        return [str(entry.get("event", "")) for entry in self.log(run, task)]

    def _known(self, dag: str) -> bool:
        try:
            self.call(f"/api/v2/dags/{dag}")
        except AirflowError as error:
            if error.status == UNKNOWN:
                return False
            raise
        return True
