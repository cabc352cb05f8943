"""Peak resident memory and time of every stage, with few and with very many manifest entries.

    pipeline_image/.venv/bin/python -m benchmarks.cases.memory [--small 10000] [--large 1000000]

A manifest names a few small images again and again under distinct ids; a server with a fixed answer runs in
its own process, and every stage in one of its own. Exits 1 if a stage passes the bar.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.lib import published
from tools.paths import ROOT

# A stage passes with at most this many times the memory that it needs for the small manifest, in MB.
MOST_TIMES = 1.2
MOST_MEGABYTES = 600

# Every stage of a run, in order, and the proof of it.
STAGES: dict[str, Sequence[str]] = {
    "preprocess": ["preprocess", "--manifest", "{manifest}"],
    "check manifest": ["check", "--suite", "manifest"],
    "score": ["score"],
    "check predictions": ["check", "--suite", "predictions"],
    "postprocess": ["postprocess"],
    "verify": ["verify"],
}
DISTINCT_IMAGES = 16


def main() -> int:
    """Measures both sizes, prints the table, keeps it in results/ and in the documentation."""
    asked = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="imagebatch-memory-", dir=asked.scratch) as folder,
        fixed_server() as url,
    ):
        sizes = [measured(size, Path(folder), url) for size in (asked.small, asked.large)]
    result = {"small": asked.small, "large": asked.large, "stages": compared(*sizes)}
    print(table(result))
    if asked.publish:
        published.keep("memory", result)
        published.show("memory", table(result))
    worst = max(stage["ratio"] for stage in result["stages"])
    highest = max(stage["large_megabytes"] for stage in result["stages"])
    good = worst <= MOST_TIMES and highest < MOST_MEGABYTES
    print(f"worst ratio {worst:.2f}, at most {MOST_TIMES}; highest {highest:.0f} MB, below {MOST_MEGABYTES}")
    return 0 if good else 1


def measured(entries: int, folder: Path, url: str) -> dict[str, tuple[float, float]]:
    """Run all stages over a manifest.

    Args:
        entries: Rows of the manifest.
        folder: For the images, the manifest and the run.
        url: Of the model server.

    Returns:
        Peak resident memory in MB (10^6 bytes) and seconds, by stage.
    """
    manifest = write_manifest(folder, entries)
    common = ["--run-id", f"entries-{entries}", "--runs-uri", str(folder / "runs")]
    found: dict[str, tuple[float, float]] = {}
    for name, template in STAGES.items():
        command = [*(part.format(manifest=manifest) for part in template), *common]
        found[name] = _peak(command, {"IMAGEBATCH_API_URL": url, "IMAGEBATCH_LOG_LEVEL": "warning"})
        print(f"{entries:>9} {name:<18}{found[name][0]:6.0f} MB {found[name][1]:8.1f} s", flush=True)
    return found


def compared(
    small: dict[str, tuple[float, float]], large: dict[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """One entry per stage: peaks in MB, seconds, and how many times the memory of the small run."""
    return [
        {
            "stage": name,
            "small_megabytes": round(small[name][0], 1),
            "large_megabytes": round(large[name][0], 1),
            "ratio": round(large[name][0] / small[name][0], 3),
            "small_seconds": round(small[name][1], 1),
            "large_seconds": round(large[name][1], 1),
        }
        for name in STAGES
    ]


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    small, large = (f"{result[size]:,}" for size in ("small", "large"))
    lines = [
        f"| stage | peak, {small} entries | peak, {large} entries | ratio | seconds, {large} entries |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['stage']} | {one['small_megabytes']:.0f} MB | {one['large_megabytes']:.0f} MB"
        f" | {one['ratio']:.2f} | {one['large_seconds']:,.0f} |"
        for one in result["stages"]
    ]
    return "\n".join(lines)


def write_manifest(folder: Path, entries: int) -> Path:
    """Write a CSV whose rows name a few images over and over, under distinct ids in no order."""
    images = [_image(folder, seed) for seed in range(DISTINCT_IMAGES)]
    step = next(step for step in (7919, 7927) if entries % step)  # a prime: every id comes once
    path = folder / f"manifest-{entries}.csv"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("image_id,uri\n")
        for row in range(entries):
            number = row * step % entries
            stream.write(f"line-{number % 40}/cell-{number:09}.png,{images[number % len(images)]}\n")
    return path


def _image(folder: Path, seed: int) -> str:
    stream = io.BytesIO()
    Image.frombytes("L", (8, 8), random.Random(seed).randbytes(64)).save(stream, "PNG")  # noqa: S311 - pixels of a picture, no secret
    (folder / f"{seed}.png").write_bytes(stream.getvalue())
    return f"{seed}.png"


def _peak(command: Sequence[str], variables: dict[str, str]) -> tuple[float, float]:
    """Run a stage; return its peak resident memory in MB, with its children's, and its seconds."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEBATCH_")}
    started = time.monotonic()
    child = subprocess.Popen(  # noqa: S603 - no shell; our own program and flags
        [sys.executable, "-m", "imagebatch", *command], env=others | variables, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"imagebatch {' '.join(command)} exited with {child.returncode}")
    return usage.ru_maxrss * 1024 / 1e6, time.monotonic() - started


@contextlib.contextmanager
def fixed_server() -> Iterator[str]:
    """Start the server with a fixed answer; yield its address."""
    argv = [sys.executable, "-m", "benchmarks.lib.fixed_server"]
    server = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 - no shell; our own module
    try:
        assert server.stdout  # noqa: S101 - for the type checker: the pipe was asked for above
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", type=int, default=10_000, help="entries of the small manifest")
    parser.add_argument("--large", type=int, default=1_000_000, help="entries of the large manifest")
    parser.add_argument("--scratch", help="folder for the runs (about 1 GB); default: the system's")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
