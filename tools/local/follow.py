"""Following one DAG run: one line that moves on a terminal, a line now and then elsewhere."""

import sys
import time
from typing import Any

from tools.airflow_api import ENDED, FINISHED, AirflowApi, Run
from tools.paths import fail, say

QUIET_SECONDS = 5.0  # between lines where the output is not a terminal
LOG_LINES = 15  # of the task that failed
STAGES = ("preprocess", "check_manifest", "plan", "score", "check_predictions", "postprocess", "report")


def follow(api: AirflowApi, run: Run) -> None:
    """Show a run's progress until it ends.

    Args:
        api: a logged-in client.
        run: what to follow.

    Raises:
        SystemExit: the run failed; the failed task's last log lines are printed.
    """
    line = _Line()
    images = 0
    while True:
        state, tasks = api.state(run), api.tasks(run)
        images = images or int(api.result(run, "preprocess").get("accepted", 0))
        line.show(summary(tasks, images))
        if state in ENDED:
            break
        time.sleep(0.5)
    line.end()
    if state == "failed":
        _explain(api, run, tasks)


def summary(tasks: list[dict[str, Any]], images: int, now: float | None = None) -> str:
    """Say in one line how far a run is.

    Args:
        tasks: its task instances, as the API lists them.
        images: images to score, 0 while unknown.
        now: seconds since the epoch; default: the clock.

    Returns:
        Finished stages, the running ones, and for `score` shards done, images/s, seconds left.
    """
    now = time.time() if now is None else now
    states: dict[str, list[str | None]] = {}
    for task in tasks:
        states.setdefault(task["task_id"], []).append(task["state"])
    done = sum(all(state in FINISHED for state in states.get(name, [None])) for name in STAGES)
    running = [name for name in STAGES if {"running", "up_for_retry"} & set(states.get(name, []))]
    text = f"{done}/{len(STAGES)} stages"
    if running:
        text += f", running: {', '.join(running)}"
    shards = [task for task in tasks if task["task_id"] == "score" and task["map_index"] >= 0]
    return text + (_score(shards, images, now) if shards else "")


def _score(shards: list[dict[str, Any]], images: int, now: float) -> str:
    ready = [task for task in shards if task["state"] == "success"]
    text = f", shards {len(ready)}/{len(shards)}"
    begun = [_seconds(task["start_date"]) for task in shards if task["start_date"]]
    if not (ready and images and begun):
        return text
    ended = now if len(ready) < len(shards) else max(_seconds(task["end_date"]) for task in ready)
    rate = images * len(ready) / len(shards) / max(ended - min(begun), 0.1)
    text += f", {rate:.0f} images/s"
    left = images * (1 - len(ready) / len(shards)) / rate
    return text + (f", {left:.0f} s left" if len(ready) < len(shards) else "")


def _seconds(stamp: str) -> float:
    from datetime import datetime  # noqa: PLC0415 - the one place that parses a time

    return datetime.fromisoformat(stamp).timestamp()


def _explain(api: AirflowApi, run: Run, tasks: list[dict[str, Any]]) -> None:
    broken = next((task for task in tasks if task["state"] == "failed"), None)
    if broken is None:
        fail(f"the run {run.run_id} failed: {api.page(run)}", 1)
    for text in api.log_lines(run, broken)[-LOG_LINES:]:
        print(text, file=sys.stderr)
    fail(f"task {broken['task_id']} failed: {api.page(run)}", 1)


class _Line:
    """One line that is rewritten on a terminal, and repeated now and then elsewhere."""

    def __init__(self) -> None:
        self._moving = sys.stdout.isatty()
        self._begun = time.monotonic()
        self._told = ("", -QUIET_SECONDS)

    def show(self, text: str) -> None:
        """Show a state; the same one is not shown twice off a terminal."""
        elapsed = time.monotonic() - self._begun
        if self._moving:
            print(f"\r\x1b[K  {elapsed:5.1f} s  {text}", end="", flush=True)
        elif text != self._told[0] and elapsed - self._told[1] >= QUIET_SECONDS:
            say(f"  {elapsed:5.1f} s  {text}")
            self._told = (text, elapsed)
        self._last = f"  {elapsed:5.1f} s  {text}"

    def end(self) -> None:
        """Leave the last state standing."""
        say("" if self._moving else self._last)
