"""Airflow on several hosts: images/s of two Celery workers against one, and a large run over both.

    python3.11 -m benchmarks.run celery [-- --images 20000 --large 100000 --latency 3]

Each worker is a host of its own (tests/support/hosts.py) with two tasks at once. The model server takes the
same time for every request, however many it is asked at once: that is what the rate is made of, and not the
cores that all of this shares. Exits 1 below 1.9 times, or where an image is lost. Needs redis-server, and
root or user namespaces.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.cases.memory import write_manifest
from benchmarks.lib.fixed_server import Handler, Server
from benchmarks.lib.published import keep, show
from tests.support import children
from tests.support.celery_airflow import CeleryAirflow
from tools.airflow_api import AirflowApi, Run
from tools.paths import ROOT, fail, program, run, say

DAG = "many_images"
PAGE = ROOT / "docs" / "how-to" / "several-machines.md"
HOSTS = ("worker-a", "worker-b")
AT_ONCE = 2  # tasks of one worker
PACK, IN_FLIGHT = 32, 2
LARGE_LATENCY = 0.1  # seconds; of the large run, which is not about the rate
BAR = 1.9
PATIENCE = 1800.0
# Airflow reads only files that hold both words, airflow and dag.
SOURCE = f"""# An airflow dag.
from imagebatch_dags.factory import build_dag
from imagebatch_dags.pipeline import Pipeline

dag = build_dag(Pipeline(dag_id="{DAG}", manifest="MANIFEST", schedule="",
                         pack_size={PACK}, in_flight={IN_FLIGHT}))
"""


def main() -> int:
    """Measure both workers, then one, then lose nothing of many; print and publish."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="imagebatch-celery-") as folder:
        try:
            result = measured(Path(folder), asked)
        except RuntimeError as error:
            fail(str(error), 1)
        finally:
            children.end_all()
    say(table(result))
    if asked.publish:
        keep("celery", result)
        show("celery", table(result), PAGE)
    say(f"ratio={result['ratio']:.2f} bar={BAR}")
    return 0 if result["ratio"] >= BAR else 1


def measured(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Start everything, and make the three runs."""
    folder.chmod(0o755)  # PostgreSQL's user enters it
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stages = {
        "IMAGEBATCH_OPERATOR": "process",
        "IMAGEBATCH_BIN": str(program("pipeline_image", "imagebatch")),
        "IMAGEBATCH_API_URL": f"http://127.0.0.1:{server.server_port}",
        "IMAGEBATCH_ALLOWED_ROOTS": str(folder),
        "IMAGEBATCH_RUNS_URI": str(folder / "runs"),
        "IMAGEBATCH_LOG_LEVEL": "warning",
    }
    manifests = {count: write_manifest(folder, count) for count in {asked.images, asked.large}}
    source = SOURCE.replace("MANIFEST", str(manifests[asked.images]))
    reached = [urlsplit(stages["IMAGEBATCH_API_URL"]).port or 0]
    airflow = CeleryAirflow(
        folder / "airflow", source, stages, reached=reached, workers=HOSTS, concurrency=AT_ONCE
    )
    airflow.api.wait_for_dag(DAG)
    idle = airflow.memory(HOSTS[0])
    run_one(airflow, folder, manifests[asked.images], shard_size=256, latency=0.0, limit=1024)  # warms up
    places = AT_ONCE * len(HOSTS)
    size = -(-asked.images // places)  # one shard per place: a worker alone takes two turns
    compared = {"shard_size": size, "latency": asked.latency}
    both = run_one(airflow, folder, manifests[asked.images], **compared)
    airflow.kill_worker(HOSTS[1])
    alone = run_one(airflow, folder, manifests[asked.images], **compared)
    airflow.start_worker(HOSTS[1])
    airflow.ensure()
    size = -(-asked.large // (2 * places))
    large = run_one(airflow, folder, manifests[asked.large], shard_size=size, latency=LARGE_LATENCY)
    return {
        "images": asked.images,
        "latency": asked.latency,
        "one": alone,
        "two": both,
        "large": large,
        "ratio": round(both["rate"] / alone["rate"], 3),
        "whole_run_ratio": round(alone["run_seconds"] / both["run_seconds"], 3),
        "memory": {"idle": round(idle), "two shards": large["memory"]},
    }


def run_one(
    airflow: CeleryAirflow, folder: Path, manifest: Path, *, shard_size: int, latency: float, limit: int = 0
) -> dict[str, Any]:
    """Run the DAG over a manifest; give images/s of scoring, and what its certificate says.

    The rate is that of all images, from the start of the first shard's task to the end of the last one's.

    Raises:
        SystemExit: the run failed, or an image was lost.
    """
    Handler.seconds = latency
    api = airflow.api
    begun = time.monotonic()
    started = api.trigger(DAG, {"manifest": str(manifest), "shard_size": shard_size, "limit": limit})
    state, memory = _followed(airflow, api, started)
    seconds = time.monotonic() - begun
    if state != "success":
        fail(f"the run {started.run_id} is {state}: {airflow.explain(started)}", 1)
    shards = [task for task in api.tasks(started) if task["task_id"] == "score"]
    first = min(_seconds(task["start_date"]) for task in shards)
    last = max(_seconds(task["end_date"]) for task in shards)
    name = api.result(started, "preprocess")["run_id"]
    counts = proved(folder / "runs", name)
    found = {
        "predicted": counts["predicted"],
        "shards": len(shards),
        "hosts": dict(sorted(Counter(task["hostname"] for task in shards).items())),
        "score_seconds": round(last - first, 1),
        "run_seconds": round(seconds, 1),
        "rate": round(counts["predicted"] / (last - first), 1),
        "memory": round(memory),
    }
    say(f"{found}")
    return found


def proved(runs: Path, name: str) -> dict[str, int]:
    """Let `imagebatch verify` prove a run again, and insist that nothing was lost; give its counts."""
    run(
        [program("pipeline_image", "imagebatch"), "verify", f"--runs-uri={runs}", f"--run-id={name}"],
        quiet=True,
    )
    certificate = json.loads((runs / name / "output" / "certificate.json").read_text())
    counts: dict[str, int] = certificate["counts"]
    if not certificate["balanced"] or counts["listed"] != counts["predicted"]:
        fail(f"images were lost or refused: {counts}", 1)
    return counts


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = [
        "| run | workers | shards by worker | scoring, s | whole run, s | images/s while scoring |",
        "|---|---|---|---|---|---|",
    ]
    for name, what in (("one", f"{result['images']:,} images"), ("two", f"{result['images']:,} images")):
        lines.append(_row(what, result[name]))
    lines.append(
        _row(f"{result['large']['predicted']:,} images, {LARGE_LATENCY:g} s a request", result["large"])
    )
    said = (
        f"{result['latency']:g} s a request of {PACK} images, {IN_FLIGHT} in flight per shard,"
        f" {AT_ONCE} shards a worker: two workers give {result['ratio']:.2f} times the images/s of one while"
        f" scoring, {result['whole_run_ratio']:.2f} times over the whole run. Every image was predicted, and"
        f" `imagebatch verify` proved each run. A worker takes {result['memory']['idle']} MB (PSS) idle, at"
        f" most {result['memory']['two shards']} MB with two shards in hand, their processes included."
    )
    return "\n".join([*lines, "", said])


def _row(what: str, found: dict[str, Any]) -> str:
    spread = ", ".join(str(count) for count in found["hosts"].values())
    seconds = f"{found['score_seconds']:.0f} | {found['run_seconds']:.0f}"
    return f"| {what} | {len(found['hosts'])} | {spread} | {seconds} | {found['rate']:.0f} |"


def _followed(airflow: CeleryAirflow, api: AirflowApi, started: Run) -> tuple[str, float]:
    """Wait for a run's end; give its state and the most memory that one worker had meanwhile, in MB."""
    deadline, most = time.monotonic() + PATIENCE, 0.0
    while True:
        state = api.wait(started, 2)
        most = max(most, airflow.memory(HOSTS[0]))
        if state in {"success", "failed"} or time.monotonic() > deadline:
            return state, most


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000, help="of the runs that are compared")
    parser.add_argument("--large", type=int, default=100_000, help="of the run that must lose nothing")
    parser.add_argument("--latency", type=float, default=3.0, help="seconds that the model server takes")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
