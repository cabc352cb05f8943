"""Deadlines: being told in time that a night's table will not be ready.

Each DAG has three, counted from the moment its run was queued: `warn` (somebody may still help), `late` (the
table is missed) and `escalation` (it is still not there). They call `report_missed_deadline`, which writes to
the log and tells the receivers of this installation (`notifiers.py`).
"""

import logging
import os
from datetime import timedelta
from typing import Any

# Not from airflow.sdk, which has them too: its type stub lacks them.
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from imagebatch_dags.notifiers import ESCALATION, Notice, notify

log = logging.getLogger(__name__)


def deadlines(warn: timedelta, late: timedelta) -> list[DeadlineAlert]:
    """Build the deadlines of a DAG.

    Args:
        warn: time after queueing at which a run that is not done is worth a look.
        late: time after queueing at which the table is missed. The escalation follows as long after it as it
            is after `warn`.

    Returns:
        Three deadlines, or none unless `IMAGEBATCH_DEADLINES` is 1: with deadlines `dag.test()` and
        `airflow dags test` report failure for a run that succeeded (apache/airflow#73428).
    """
    if os.environ.get("IMAGEBATCH_DEADLINES") != "1":
        return []
    return [_deadline("warn", warn), _deadline("late", late), _deadline(ESCALATION, late + (late - warn))]


def report_missed_deadline(context: dict[str, Any], severity: str, minutes: float) -> str:
    """Tell people that a run missed a deadline; Airflow calls this on a worker.

    Args:
        context: Airflow's, with `dag_run`: the REST API's picture of the run at that moment.
        severity: `warn`, `late` or `escalation`.
        minutes: the deadline, after queueing.

    Returns:
        What was reported: one line. A run that succeeded meanwhile is not reported; one that failed is, for
        its table will not come either.

    Raises:
        OSError: a receiver could not be told; Airflow shows the callback as failed.
    """
    run = context.get("dag_run") or {}
    state = str(run.get("state") or "unknown")
    name = f"{run.get('dag_id')} {run.get('dag_run_id')}"
    if state == "success":
        return f"{name} succeeded: nothing to report"
    text = f"imagebatch {severity}: {name} is {state}, {minutes:g} minutes after it was queued"
    log.log(logging.WARNING if severity == "warn" else logging.ERROR, "%s", text)
    notify(Notice(text, severity, state, name, key=f"{name} {severity}"))
    return text


def _deadline(severity: str, after: timedelta) -> DeadlineAlert:
    return DeadlineAlert(
        name=severity,
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        # Seconds, as Airflow stored them up to 3.2 and still reads them. A timedelta is stored in a form that
        # clearing the tasks of a run stumbles over: 3.3.2 answers 500, and the run cannot be continued.
        interval=after.total_seconds(),  # type: ignore[arg-type] # annotated as timedelta only
        callback=SyncCallback(
            report_missed_deadline,
            kwargs={"severity": severity, "minutes": after.total_seconds() / 60},
        ),
    )
