"""Faults of Airflow: a run that misses its deadlines there, and a scheduler that dies."""

import time
from collections.abc import Iterator
from typing import Any

from tests.support.relay import Relay
from tests.system.faults.airflow_under_watch import DAG, TRIAL, WatchedAirflow
from tests.system.faults.fault import PATIENCE, fault
from tests.system.faults.platform_under_watch import Platform
from tests.system.faults.steps import Slowness


def deadlines_and_lineage(platform: Platform) -> list[str]:
    """Run a slow DAG past its three deadlines, and one of a model that nobody serves.

    Returns:
        Complaints about what deadlines, OpenLineage and alerts have told.
    """
    slowness = Slowness(1)
    with Relay(platform.server.inference, after=slowness) as relay:
        airflow = WatchedAirflow(platform, relay.url)
        platform.airflow = airflow
        started = airflow.trigger()
        deadline = time.time() + 90
        told: list[Any] = []
        while time.time() < deadline and len(told) < 3:
            told = [body for _, body in platform.webhooks.posts.get("/deadline", [])]
            time.sleep(0.2)
        slowness.seconds = 0
        state = airflow.wait_for(started)
        refused = airflow.trigger(limit=4, model="nobody")
        complaints = [] if airflow.wait_for(refused) == "failed" else ["a run of no model did not fail"]
    platform.webhooks.wait("ImagebatchRunRefused", TRIAL, "firing", 0, PATIENCE)
    time.sleep(3)  # for what else may be told
    severities = [body["severity"] for _, body in platform.webhooks.posts.get("/deadline", [])]
    if state != "success":
        complaints.append(f"the late run of Airflow is {state or 'unknown'}")
    if severities != ["warn", "late", "escalation"]:
        complaints.append(f"deadlines told {severities}")
    mails = [mail["To"] for mail in platform.mailbox.mails if str(mail["Subject"]).startswith("imagebatch ")]
    if mails != ["team@example.org", "team@example.org", "team@example.org, boss@example.org"]:
        complaints.append(f"deadlines mailed to {mails}")
    alerts = platform.webhooks.firing(DAG, 0)
    # The forecast is right, too, where it is made before the deadline.
    if alerts - {"ImagebatchWillMissDeadline"} != {"ImagebatchMissedDeadline"}:
        complaints.append(f"alerts about Airflow's run: {sorted(alerts)}")
    if (alerts := platform.webhooks.firing(TRIAL, 0)) != {"ImagebatchRunRefused"}:
        complaints.append(f"alerts about Airflow's trial: {sorted(alerts)}")
    platform.forget(DAG)
    platform.forget(TRIAL)
    return complaints + _lineage(platform)


def _lineage(platform: Platform) -> list[str]:
    events = [body for _, body in platform.webhooks.posts.get("/lineage", [])]
    ended = {
        event["job"]["name"]: event
        for event in events
        if event["eventType"] == "COMPLETE" and "imagebatch" in event["run"]["facets"]
    }
    try:
        read = ended[f"{DAG}.preprocess"]
        written = ended[f"{DAG}.postprocess"]
        facet = written["run"]["facets"]["imagebatch"]
        csv = next(each for each in written["outputs"] if each["name"].endswith("predictions.csv"))
        assert [each["name"] for each in read["inputs"]] == [str(platform.photographs)]
        assert facet["counts"]["predicted"] == csv["outputFacets"]["outputStatistics"]["rowCount"] == 400
        assert facet["model"]["digest"].startswith("sha256:")
    except (KeyError, StopIteration, AssertionError) as error:
        return [f"lineage of {sorted(ended)} lacks {error!r}"]
    return []


@fault("ImagebatchSchedulerDown", subject="airflow")
def scheduler_killed(platform: Platform, name: str) -> Iterator[float]:
    """Airflow's scheduler is killed (SIGKILL), and started again."""
    assert name
    platform.airflow.kill("scheduler")
    yield time.time()
    platform.airflow.start("scheduler")
    yield time.time()
