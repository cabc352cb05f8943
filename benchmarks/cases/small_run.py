"""`imagebatch run` of 100 photographs, this checkout against another, from start to end of the process.

    make up && python3.11 -m benchmarks.run small-run -- --against ../other [--images 100 --rounds 7]

Both ask the stack's model server, turn by turn, the second first in every other round. Wall time is what a
user waits for; CPU time, of the command and its children, tells the same on a machine that has other work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.lib import photographs
from benchmarks.lib.serving import command
from benchmarks.peers.stopwatch import MARK
from tools.local.services import model_api
from tools.paths import VAR, fail, program, say

# The model knows solar cells: that photographs look alike to it is no fault of theirs.
FLAGS = ("--max-class-share", "1", "--max-failures", "0", "--model", "solar-cells")
INSIDE = Path("pipeline_image", ".venv", "bin", "imagebatch")


def main() -> int:
    """Measure and print."""
    asked = _arguments()
    programs = {"this": program("pipeline_image", "imagebatch")}
    if asked.against:
        programs["other"] = (asked.against / INSIDE).absolute()
    found = photographs.ensure(VAR / "bench" / "photographs")[: asked.images]
    folder = photographs.link(found, VAR / "data" / f"bench-{asked.images}", asked.images)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for number in range(-1, asked.rounds):  # the first round brings files into memory
        order = list(programs) if number % 2 else list(programs)[::-1]
        for name in order:
            wall, cpu = _run(programs[name], folder, asked.images)
            say(f"round {number}  {name:<6}{wall:6.2f} s  {cpu:6.2f} CPU-s")
            if number >= 0:
                seconds[name].append((wall, cpu))
    for name, rounds in seconds.items():
        wall, cpu = (statistics.median(values) for values in zip(*rounds, strict=True))
        say(f"{name}: {wall:.2f} s, {cpu:.2f} CPU-s; medians of {asked.rounds} rounds")
    if asked.against:
        for position, kind in enumerate(("wall", "cpu")):
            pairs = zip(seconds["this"], seconds["other"], strict=True)
            ratios = [this[position] / other[position] for this, other in pairs]
            say(f"{kind}_ratio={statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    return 0


def _run(executable: Path, folder: Path, images: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(prefix="small-run-", dir=VAR / "bench") as runs:
        variables = (
            os.environ
            | model_api()
            | {MARK: "small-run", "IMAGEBATCH_RUNS_URI": runs, "IMAGEBATCH_LOG_LEVEL": "error"}
        )
        arguments = ("run", "--run-id", "small", "--input", folder, *FLAGS)
        done = command(variables, *arguments, executable=executable)
    if done["predicted"] != images:
        fail(f"{done['predicted']} of {images} images were predicted", 1)
    return done["seconds"], done["cpu"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=100, help="photographs")
    parser.add_argument("--rounds", type=int, default=7, help="of both, after one that warms up")
    parser.add_argument("--against", type=Path, help="another checkout whose environments are installed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
