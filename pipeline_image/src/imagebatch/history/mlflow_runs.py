"""Runs as runs of an MLflow experiment, over MLflow's REST API: the client package would triple the image.

Off the critical path: a server that is away costs some seconds and a warning, never a run. A run that is
logged again (after a redrive) replaces its figures and stays one MLflow run.
"""

from __future__ import annotations

import time
from typing import Any

import requests

from imagebatch.contracts.records import RunDescription
from imagebatch.history.summary import RunSummary
from imagebatch.log import get_logger
from imagebatch.registry import mlflow_session

log = get_logger()

_TIMEOUT = (3.05, 20)
_TAG = "imagebatch.run_id"
_LONGEST = 500
_PARAMETERS = (
    "input",
    "manifest",
    "backend",
    "shard_size",
    "top_k",
    "max_failures",
    "limit",
    "code_version",
)


def log_run(
    server: str, experiment: str, summary: RunSummary, description: RunDescription, report: str
) -> bool:
    """Log a run's parameters, figures and links.

    Args:
        server: `http://…` of an MLflow server. `MLFLOW_TRACKING_TOKEN`, or `MLFLOW_TRACKING_USERNAME` and
            `MLFLOW_TRACKING_PASSWORD`, let this client in.
        experiment: Made if there is none of this name.
        summary: The figures.
        description: The run's run.json.
        report: Where the run's page is.

    Returns:
        Whether the server has taken it all; otherwise a warning says why not.
    """
    try:
        with mlflow_session() as session:
            client = _Client(session, server)
            run = client.run(client.experiment(experiment), summary)
            client.log(run, summary, description, report)
    except (requests.RequestException, KeyError, ValueError) as error:
        log.warning("the run is not in MLflow", server=server, error=str(error)[:_LONGEST])
        return False
    log.info("run logged to MLflow", experiment=experiment)
    return True


def metrics_of(summary: RunSummary) -> dict[str, float]:
    """Return a run's figures by MLflow metric name.

    These are counts and rates, `class_share/<label>` and `unpredicted/<reason>`.
    """
    plain = summary.model_dump(exclude={"run_id", "pipeline", "started", "model", "classes", "reasons"})
    figures = {name: float(value) for name, value in plain.items() if value is not None}
    figures["failure_share"] = summary.failure_share
    figures |= {f"class_share/{_name(label)}": summary.share(label) for label in summary.classes}
    return figures | {f"unpredicted/{reason}": float(number) for reason, number in summary.reasons.items()}


class _Client:
    def __init__(self, session: requests.Session, server: str) -> None:
        self._session = session
        self._base = f"{server.rstrip('/')}/api/2.0/mlflow"

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of this name; create it if needed."""
        url = f"{self._base}/experiments/get-by-name"
        reply = self._session.get(url, params={"experiment_name": name}, timeout=_TIMEOUT)
        if reply.status_code != requests.codes.not_found:
            reply.raise_for_status()
            return str(reply.json()["experiment"]["experiment_id"])
        return str(self._post("experiments/create", {"name": name})["experiment_id"])

    def run(self, experiment: str, summary: RunSummary) -> str:
        """Return the id of the MLflow run that stands for this run; create it if needed."""
        # Run ids hold letters, digits, dots, underscores and dashes only: nothing to quote.
        query = {"experiment_ids": [experiment], "filter": f"tags.`{_TAG}` = '{summary.run_id}'"}
        found = self._post("runs/search", query).get("runs") or []
        if found:
            return str(found[0]["info"]["run_id"])
        started = int(summary.started.timestamp() * 1000)
        tags = [
            {"key": _TAG, "value": summary.run_id},
            {"key": "imagebatch.pipeline", "value": summary.pipeline},
        ]
        body = {
            "experiment_id": experiment,
            "run_name": summary.run_id,
            "start_time": started,
            "tags": tags,
        }
        return str(self._post("runs/create", body)["run"]["info"]["run_id"])

    def log(self, run: str, summary: RunSummary, description: RunDescription, report: str) -> None:
        now = int(time.time() * 1000)
        metrics = metrics_of(summary)
        parameters = {name: str(getattr(description, name))[:_LONGEST] for name in _PARAMETERS}
        parameters["model"] = summary.model[:_LONGEST]
        tags = {"imagebatch.report": report, "imagebatch.drifting": str(summary.drifting)}
        batch = {
            "run_id": run,
            "metrics": [
                {"key": key, "value": value, "timestamp": now, "step": 0} for key, value in metrics.items()
            ],
            "params": [{"key": key, "value": value} for key, value in parameters.items()],
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        self._post("runs/log-batch", batch)
        ended = int((summary.started.timestamp() + (summary.seconds or 0)) * 1000)
        self._post("runs/update", {"run_id": run, "status": "FINISHED", "end_time": ended})

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self._session.post(f"{self._base}/{path}", json=body, timeout=_TIMEOUT)
        if not reply.ok:
            raise ValueError(f"{path}: HTTP {reply.status_code} {reply.text[:200]}")
        return dict(reply.json() or {})


def _name(text: str) -> str:
    """Replace the characters of a label that MLflow does not accept in a metric's name."""
    return "".join(char if char.isalnum() or char in "_-. /" else "_" for char in text)[:200]
