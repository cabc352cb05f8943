"""Deadlines: being told in time that a night's table will not be ready.

Each DAG has two, counted from the moment its run was queued: `warn` (somebody may still help) and `late` (the
table is missed). Both call `report_missed_deadline`, which writes to the log and, where
`IMAGEBATCH_ALERT_WEBHOOK` names a URL, posts one JSON object there.
"""

import json
import logging
import os
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

# Not from airflow.sdk, which has them too: its type stub lacks them.
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

log = logging.getLogger(__name__)

WEBHOOK_SECONDS = 10.0


def deadlines(warn: timedelta, late: timedelta) -> list[DeadlineAlert]:
    """Build the deadlines of a DAG.

    Args:
        warn: time after queueing at which a run that is not done is worth a look.
        late: time after queueing at which the table is missed.

    Returns:
        Two deadlines, or none unless `IMAGEBATCH_DEADLINES` is 1: with deadlines `dag.test()` and
        `airflow dags test` report failure for a run that succeeded (apache/airflow#73428).
    """
    if os.environ.get("IMAGEBATCH_DEADLINES") != "1":
        return []
    return [_deadline("warn", warn), _deadline("late", late)]


def report_missed_deadline(context: dict[str, Any], severity: str, minutes: float) -> str:
    """Tell people that a run missed a deadline; Airflow calls this on a worker.

    Args:
        context: Airflow's, with `dag_run`: the REST API's picture of the run at that moment.
        severity: `warn` or `late`.
        minutes: the deadline, after queueing.

    Returns:
        What was reported: one line. A run that succeeded meanwhile is not reported; one that failed is, for
        its table will not come either.

    Raises:
        OSError: the webhook could not be reached; Airflow shows the callback as failed.
    """
    run = context.get("dag_run") or {}
    state = str(run.get("state") or "unknown")
    name = f"{run.get('dag_id')} {run.get('dag_run_id')}"
    if state == "success":
        return f"{name} succeeded: nothing to report"
    text = f"imagebatch {severity}: {name} is {state}, {minutes:g} minutes after it was queued"
    log.log(logging.ERROR if severity == "late" else logging.WARNING, "%s", text)
    webhook = os.environ.get("IMAGEBATCH_ALERT_WEBHOOK")
    if webhook:
        _post(webhook, {"text": text, "severity": severity, "state": state, "run": name})
    return text


def _deadline(severity: str, after: timedelta) -> DeadlineAlert:
    return DeadlineAlert(
        name=severity,
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=after,
        callback=SyncCallback(
            report_missed_deadline,
            kwargs={"severity": severity, "minutes": after.total_seconds() / 60},
        ),
    )


def _post(url: str, body: dict[str, str]) -> None:
    if not url.startswith(("https://", "http://")):
        raise ValueError("IMAGEBATCH_ALERT_WEBHOOK must be an http or https URL")
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310 - checked above
    with urlopen(request, timeout=WEBHOOK_SECONDS):  # noqa: S310 - checked above
        log.info("Posted to the alert webhook")
