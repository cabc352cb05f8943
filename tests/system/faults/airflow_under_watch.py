"""A real Airflow of the test's own: its StatsD, its deadlines and its lineage go to the test's receivers."""

import contextlib
import json
import time
from pathlib import Path

from tests.support.children import Child, last_line
from tests.system.faults.platform_under_watch import Platform
from tools.airflow_api import ENDED, AirflowError, Run
from tools.local.services import airflow_api, airflow_settings, base_environment
from tools.loopback import fetch
from tools.paths import ROOT, fail, program, run, url

DAG = "watched"
TRIAL = (
    "watched.trial"  # what its runs by hand are called that differ from it (dags/imagebatch_dags/night.py)
)
# Airflow reads only files that hold both words, airflow and dag.
SOURCE = f"""# An airflow dag.
from imagebatch_dags.factory import build_dag
from imagebatch_dags.pipeline import Pipeline

dag = build_dag(Pipeline(dag_id="{DAG}", input="FOLDER", schedule="0 2 * * *",
                         limit=400, warn_after_minutes=0.2, late_after_minutes=0.4))
"""
COMPONENTS = ("scheduler", "dag-processor", "api-server")


class WatchedAirflow:
    """Scheduler, DAG processor and API server with one DAG, whose deadlines are 12, 24 and 36 seconds.

    Args:
        platform: whose programs it reports to.
        api_url: inference API that its stages ask.
    """

    def __init__(self, platform: Platform, api_url: str) -> None:
        self._platform = platform
        self._dags = platform.folder / "dags"
        self._dags.mkdir()
        (self._dags / "watched.py").write_text(SOURCE.replace("FOLDER", str(platform.photographs)))
        self._settings = self._made_settings(api_url)
        airflow = program("airflow", "airflow")
        run([airflow, "db", "migrate"], quiet=True, environment=self._settings)
        pools = str(ROOT / "airflow" / "pools.json")
        run([airflow, "pools", "import", pools], quiet=True, environment=self._settings)
        self._children = {name: self.start(name) for name in COMPONENTS}
        self._wait()

    def start(self, component: str) -> Child:
        """Start one of its processes."""
        more = ["--skip-serve-logs"] if component == "scheduler" else []
        log = self._platform.folder / "logs" / f"airflow-{component}-{time.monotonic_ns()}.log"
        argv = [str(program("airflow", "airflow")), component, *more]
        return Child(argv, environment={**base_environment(), **self._settings}, log=log)

    def kill(self, component: str) -> None:
        """Kill one of them (SIGKILL)."""
        self._children[component].kill()

    def trigger(self, **params: object) -> Run:
        """Start a run with these values for the DAG's Params."""
        api = airflow_api()
        api.wait_for_dag(DAG)
        return api.trigger(DAG, {"pack_size": 4, "in_flight": 1, **params})

    def wait_for(self, started: Run, seconds: float = 120) -> str:
        """Wait for a run's end, and give its state."""
        deadline = time.monotonic() + seconds
        state = ""
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, AirflowError):
                state = airflow_api().state(started)
            if state in ENDED:
                return state
            time.sleep(1)
        return state

    def _made_settings(self, api_url: str) -> dict[str, str]:
        platform = self._platform
        secret = Path(platform.folder, "secrets", "slack_url")
        stages = platform.environment(DAG, api_url=api_url)
        return {
            **airflow_settings(),
            **{name: value for name, value in stages.items() if name.startswith("IMAGEBATCH_")},
            "IMAGEBATCH_BIN": str(program("pipeline_image", "imagebatch")),
            "IMAGEBATCH_ALLOWED_ROOTS": str(platform.folder),
            "IMAGEBATCH_OPERATOR": "process",
            "IMAGEBATCH_GOLDEN": "",
            "IMAGEBATCH_DEADLINES": "1",
            "IMAGEBATCH_ALERT_WEBHOOK": f"{platform.webhooks.url}/deadline",
            "IMAGEBATCH_ALERT_SLACK_FILE": str(secret),
            "IMAGEBATCH_ALERT_EMAIL": "team@example.org",
            "IMAGEBATCH_ALERT_ESCALATION_EMAIL": "boss@example.org",
            "IMAGEBATCH_ALERT_SMTP": f"127.0.0.1:{platform.ports['smtp']}",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self._dags),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{platform.folder / 'airflow.db'}",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(platform.ports["statsd"]),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "http", "url": platform.webhooks.url, "endpoint": "lineage"}
            ),
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                health = fetch(url("airflow", "/api/v2/monitor/health"))
                if {health[name]["status"] for name in ("scheduler", "dag_processor")} == {"healthy"}:
                    return
            time.sleep(0.5)
        fail(f"Airflow did not start: {[last_line(each.err) for each in self._children.values()]}", 1)
