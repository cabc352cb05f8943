"""The few calls to Airflow's REST API that starting and following one run takes."""

import json
import time
import urllib.error
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tools.local.services import ADMIN, fetch, password
from tools.paths import fail, url

FINISHED = {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass(frozen=True)
class Run:
    """One DAG run, addressed as the API does."""

    dag: str
    run_id: str

    @property
    def path(self) -> str:
        """Its path below the API."""
        return f"/dags/{self.dag}/dagRuns/{quote(self.run_id, safe='')}"

    @property
    def page(self) -> str:
        """Its page in the UI."""
        return url("airflow", f"/dags/{self.dag}/runs/{quote(self.run_id, safe='')}")


class AirflowApi:
    """A logged-in client.

    Raises:
        SystemExit: Airflow refuses a call; its message is printed.
    """

    def __init__(self) -> None:
        token = fetch(url("airflow", "/auth/token"), body={"username": ADMIN, "password": password()})
        self._headers = {"Authorization": f"Bearer {token['access_token']}"}

    def wait_for_dag(self, dag: str, seconds: float = 60.0) -> None:
        """Wait until the DAG processor has read the DAG."""
        deadline = time.monotonic() + seconds
        while not self._known(dag):
            if time.monotonic() > deadline:
                errors = self._call("/importErrors")["import_errors"]
                reason = errors[0]["stack_trace"].strip().splitlines()[-1] if errors else "no import error"
                fail(f"Airflow does not know the DAG {dag} after {seconds:.0f} s: {reason}", 1)
            time.sleep(0.5)

    def trigger(self, dag: str, conf: dict[str, Any]) -> Run:
        """Switch a DAG on and start a run of it.

        Args:
            dag: its name.
            conf: values for its Params.
        """
        self._call(f"/dags/{dag}?update_mask=is_paused", {"is_paused": False}, "PATCH")
        started = self._call(f"/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return Run(dag, started["dag_run_id"])

    def state(self, run: Run) -> str:
        """Ask for a run's state: queued, running, success or failed."""
        return str(self.details(run)["state"])

    def details(self, run: Run) -> dict[str, Any]:
        """Ask for all that Airflow knows of a run: state, times, parameters."""
        found: dict[str, Any] = self._call(run.path)
        return found

    def under_way(self, dag: str) -> int:
        """Count the runs of a DAG that are queued or running."""
        return int(self._call(f"/dags/{dag}/dagRuns?state=queued&state=running&limit=1")["total_entries"])

    def tasks(self, run: Run) -> list[dict[str, Any]]:
        """List the task instances of a run (1,100 at most: six and 1,024 shards)."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._call(f"{run.path}/taskInstances?limit=100&offset={len(found)}&order_by=start_date")
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return found

    def result(self, run: Run, task: str) -> dict[str, Any]:
        """Read what a finished stage returned; empty if it returned nothing."""
        try:
            value = fetch(
                url("airflow", f"/api/v2{run.path}/taskInstances/{task}/xcomEntries/return_value"),
                self._headers,
            )["value"]
        except urllib.error.HTTPError:
            return {}
        parsed = json.loads(value) if isinstance(value, str) else value
        return parsed if isinstance(parsed, dict) else {}

    def last_log_lines(self, run: Run, task: dict[str, Any], count: int = 15) -> list[str]:
        """Read the end of the last attempt's log of a task instance."""
        return [entry.get("event", "") for entry in self.log(run, task)][-count:]

    def log(self, run: Run, task: dict[str, Any]) -> list[dict[str, Any]]:
        """Read the last attempt's log of a task instance: entries with `event` and, mostly, `timestamp`."""
        index = f"?map_index={task['map_index']}" if task["map_index"] >= 0 else ""
        path = f"{run.path}/taskInstances/{task['task_id']}/logs/{max(1, task['try_number'])}{index}"
        entries = self._call(path).get("content", [])
        return [entry if isinstance(entry, dict) else {"event": str(entry)} for entry in entries]

    def _known(self, dag: str) -> bool:
        try:
            fetch(url("airflow", f"/api/v2/dags/{dag}"), self._headers)
        except urllib.error.HTTPError as error:
            if error.code == 404:  # noqa: PLR2004 - not read yet
                return False
            raise
        return True

    def _call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        try:
            return fetch(
                url("airflow", f"/api/v2{path}"),
                {**self._headers, "Accept": "application/json"},
                body,
                method,
            )
        except urllib.error.HTTPError as error:
            text = " ".join(error.read().decode(errors="replace").split())
            fail(f"Airflow answers {error.code} to {path}: {text[:500]}", 1)
