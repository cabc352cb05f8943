"""What the orchestrator adds to a small run: 100 images through the DAG, from the trigger to success.

    make up && python3.11 -m benchmarks.run dag-overhead [-- --images 100 --rounds 3]

Broken down by task, out of Airflow's own times: waiting (from the end of the task before to the task's
start), starting (until its command is started), the command itself. The overhead is everything but scoring,
that is but the commands of `score`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.lib import photographs
from benchmarks.lib.orchestrated import finished, warm_up
from benchmarks.lib.published import keep, show
from tools.airflow_api import AirflowApi, Run
from tools.local.services import airflow_api
from tools.paths import VAR, say

BAR = 15.0  # seconds


def main() -> int:
    """Measure, print, publish."""
    asked = _arguments()
    images = photographs.ensure(VAR / "bench" / "photographs")[: asked.images]
    folder = photographs.link(images, VAR / "data" / f"bench-{asked.images}", asked.images)
    api = airflow_api()
    warm_up(api, folder)
    runs = [measured(api, folder) for _ in range(asked.rounds)]
    result = summary(asked.images, runs)
    say(table(result))
    if asked.publish:
        keep("dag-overhead", result)
        show("dag-overhead", table(result))
    return 0 if result["overhead"] <= BAR else 1


def measured(api: AirflowApi, folder: Path) -> dict[str, Any]:
    """One run of the DAG, taken apart."""
    done = finished(api, folder)
    started, triggered = done.run, done.triggered
    tasks = [task for task in api.tasks(started) if task["start_date"]]
    tasks.sort(key=lambda task: (task["start_date"], task["end_date"]))
    ends = max(_seconds(task["end_date"]) for task in tasks)
    rows = [_task(api, started, task, tasks, triggered) for task in tasks]
    # Success is noticed by the scheduler, some time after the last task's end.
    noticed = _seconds(api.details(started)["end_date"])
    rows.append({"task": "(success noticed)", "waiting": noticed - ends, "starting": 0.0, "command": 0.0})
    scoring = sum(row["command"] for row in rows if row["task"] == "score")
    total = noticed - triggered
    say(f"{started.run_id}: {total:.1f} s, {total - scoring:.1f} s of them not scoring")
    return {"total": total, "scoring": scoring, "rows": rows}


def summary(images: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the runs."""
    names = [row["task"] for row in runs[0]["rows"]]
    parts = ("waiting", "starting", "command")
    rows = [
        {"task": name}
        | {part: round(statistics.median(run["rows"][position][part] for run in runs), 2) for part in parts}
        for position, name in enumerate(names)
    ]
    found = {key: [run[key] for run in runs] for key in ("total", "scoring")}
    overheads = [run["total"] - run["scoring"] for run in runs]
    return {
        "images": images,
        "rounds": len(runs),
        "total": round(statistics.median(found["total"]), 2),
        "scoring": round(statistics.median(found["scoring"]), 2),
        "overhead": round(statistics.median(overheads), 2),
        "overhead_range": [round(min(overheads), 2), round(max(overheads), 2)],
        "tasks": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Return the breakdown as Markdown."""
    lines = ["| task | waiting, s | starting, s | command, s |", "|---|---|---|---|"]
    lines += [
        f"| {row['task']} | {row['waiting']:.1f} | {row['starting']:.1f} | {row['command']:.1f} |"
        for row in result["tasks"]
    ]
    low, high = result["overhead_range"]
    said = (
        f"{result['images']} images: {result['total']:.1f} s from the trigger to success,"
        f" {result['overhead']:.1f} s ({low:.1f} to {high:.1f}) without scoring;"
        f" medians of {result['rounds']} runs."
    )
    return "\n".join([*lines, "", said])


def _task(
    api: AirflowApi, run: Run, task: dict[str, Any], tasks: list[dict[str, Any]], triggered: float
) -> dict[str, Any]:
    start, end = _seconds(task["start_date"]), _seconds(task["end_date"])
    before = [_seconds(other["end_date"]) for other in tasks if _seconds(other["end_date"]) <= start]
    command = _command_started(api, run, task) or end
    return {
        "task": task["task_id"],
        "waiting": start - max(before, default=triggered),
        "starting": command - start,
        "command": end - command,
    }


def _command_started(api: AirflowApi, run: Run, task: dict[str, Any]) -> float | None:
    """When the operator said that it runs its command, by the task's log; None for tasks without one."""
    for entry in api.log(run, task):
        if str(entry.get("event", "")).startswith("Running [") and entry.get("timestamp"):
            return _seconds(entry["timestamp"])
    return None


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=100, help="photographs")
    parser.add_argument("--rounds", type=int, default=3, help="runs that count, after one that warms up")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
