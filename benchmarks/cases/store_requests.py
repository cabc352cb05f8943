"""Requests that each stage of a run makes in S3: a run of very many shards, on a real server of its API.

    pipeline_image/.venv/bin/python -m benchmarks.cases.store_requests [--shards 2000]

A manifest names a few small images under distinct ids, one image a shard; a server with a fixed answer scores
them. Run and images lie in SeaweedFS, and a relay before it counts. Exits 1 if postprocess or verify asks
more often than the bar allows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.cases.memory import fixed_server, write_manifest
from benchmarks.lib import published
from tests.support import children
from tests.support.counting import Counting, by_file, by_kind
from tests.support.relay import Relay
from tests.support.store_servers import SeaweedFS
from tools.paths import ROOT

# Requests a file, in postprocess and in verify.
MOST = 2
_RUN = "many-shards"
_STAGES = ("preprocess", "score", "postprocess", "verify")
_KINDS = ("GET", "HEAD", "LIST", "PUT", "DELETE")


def main() -> int:
    """Measures, prints the table, keeps it in results/ and in the documentation."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="imagebatch-requests-", dir=asked.scratch) as folder:
        try:
            stages = measured(asked.shards, Path(folder), asked.source)
        finally:
            children.end_all()
    result = {"shards": asked.shards, "stages": stages}
    print(table(result))
    if asked.publish:
        published.keep("store-requests", result)
        published.show("store-requests", table(result), ROOT / "docs" / "how-to" / "object-stores.md")
    worst = max(stage["most"] for stage in stages if stage["stage"] in {"postprocess", "verify"})
    print(f"at most {worst} requests a file in postprocess and verify; {MOST} are allowed")
    return 0 if worst <= MOST else 1


def measured(shards: int, folder: Path, source: str) -> list[dict[str, Any]]:
    """Run the stages, and count what each asks of the store.

    Args:
        shards: Of the run, one image each.
        folder: For the store and the manifest.
        source: A folder with another `imagebatch`, to compare; empty: the installed one.

    Returns:
        For each stage its seconds, its requests by kind, the files that it asked for, and the most requests
        that one of them cost.
    """
    write_manifest(folder, shards)
    store = SeaweedFS(folder / "weed")
    for file in (*folder.glob("*.png"), *folder.glob("*.csv")):
        store.put(f"data/{file.name}", file.read_bytes())
    counting = Counting()
    found = []
    with Relay(store.url, before=counting.before) as relay, fixed_server() as url:
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("IMAGEBATCH_")},
            **store.environment(relay.url),
            "IMAGEBATCH_API_URL": url,
            "IMAGEBATCH_RUNS_URI": "s3://runs",
            "IMAGEBATCH_LOG_LEVEL": "warning",
            **({"PYTHONPATH": source} if source else {}),
        }
        manifest = ("--manifest", f"s3://data/manifest-{shards}.csv", "--shard-size", "1")
        for stage in _STAGES:
            argv = [sys.executable, "-m", "imagebatch", stage, "--run-id", _RUN]
            begun = time.monotonic()
            subprocess.run(  # noqa: S603 - no shell; our own program and flags
                [*argv, *(manifest if stage == "preprocess" else ())],
                check=True,
                cwd=source or ROOT,
                env=variables,
                stdout=subprocess.DEVNULL,
            )
            found.append(_row(stage, time.monotonic() - begun, counting.take()))
            print(found[-1], flush=True)
    return found


def _row(stage: str, seconds: float, asked: Counter[tuple[str, str]]) -> dict[str, Any]:
    # What is read here and there: the images, which a few files stand for, and records of the stages' times.
    run = Counter({key: count for key, count in asked.items() if f"{_RUN}/" in key[1]})
    files = {name: count for name, count in by_file(run).items() if "/telemetry/" not in name}
    return {
        "stage": stage,
        "seconds": round(seconds, 1),
        "files": len(files),
        "requests": sum(files.values()),
        "most": max(files.values()),
        "kinds": by_kind(run),
        "elsewhere": sum(asked.values()) - sum(run.values()),
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    columns = ("files", "requests", "a file", "at most", *_KINDS, "images")
    lines = [
        f"| stage, {result['shards']:,} shards | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for one in result["stages"]:
        kinds = [f"{one['kinds'].get(kind, 0):,}" for kind in _KINDS]
        each = f"{one['requests'] / one['files']:.2f}"
        told = (f"{one['files']:,}", f"{one['requests']:,}", each, str(one["most"]), *kinds)
        lines.append(f"| {one['stage']} | {' | '.join(told)} | {one['elsewhere']:,} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shards", type=int, default=2000, help="shards of the run")
    parser.add_argument("--source", default="", help="folder of another imagebatch, to compare")
    parser.add_argument("--scratch", help="folder for the store (about 200 MB); default: the system's")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
