"""Runs of the DAG on the stack without containers, one at a time, timed from the trigger to success."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tools.airflow_api import FINISHED, AirflowApi, Run
from tools.paths import fail

DAG = "batch_image_inference"
PATIENCE = 3600.0


@dataclass(frozen=True)
class Finished:
    """A successful run: when it was triggered, in seconds since 1970, and how long it took."""

    run: Run
    triggered: float
    seconds: float


def warm_up(api: AirflowApi, folder: Path) -> None:
    """Score a small folder once, and wait until nothing else is under way.

    Switching the DAG on makes Airflow start the run of last night, too.
    """
    api.wait_for_dag(DAG)
    finished(api, folder)
    while api.under_way(DAG):
        time.sleep(0.5)


def finished(api: AirflowApi, folder: Path, poll: float = 0.1) -> Finished:
    """Trigger a run and wait for its success.

    Args:
        api: Of the running stack.
        folder: Images, below the inputs that the stack allows.
        poll: Seconds between two looks at its state.

    Raises:
        SystemExit: It ended otherwise.
    """
    triggered, begun = time.time(), time.monotonic()
    run = api.trigger(DAG, {"input": str(folder), "max_failures": "0"})
    while (state := api.state(run)) not in FINISHED:
        if time.monotonic() - begun > PATIENCE:
            fail(f"the run {run.run_id} is not done after {PATIENCE:.0f} s; see {api.page(run)}", 1)
        time.sleep(poll)
    if state != "success":
        fail(f"the run {run.run_id} ended as {state}; see {api.page(run)}", 1)
    return Finished(run, triggered, time.monotonic() - begun)
