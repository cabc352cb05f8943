"""Does a run slow down, or take more memory, as it grows? Every stage on 2,000 and on 100,000 images.

    python3.11 -m benchmarks.run growth [-- --large 100000 --small 2000 --rounds 3]

The images are the photographs under as many names as wanted. The small run is repeated around the
large one, so that both meet the same machine. Two rates: of `score` alone, and of all stages, each a
command of its own, of whose start-up a large run has less per image.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.lib import photographs
from benchmarks.lib.contestants import chosen
from benchmarks.lib.ground import Ground
from benchmarks.lib.published import keep, show
from benchmarks.lib.serving import Served, command, served
from tools.paths import VAR, say

BENCH = VAR / "bench"
# The model knows solar cells: that most photographs look alike to it is no fault of theirs.
FLAGS = ("--max-class-share", "1", "--max-failures", "0")
WAYS = {"score": "`imagebatch score`", "all": "all five stages, a command each"}
STAGES = ("preprocess", "check manifest", "score", "check predictions", "postprocess")


def main() -> int:
    """Measure small, large, small; print and publish."""
    asked = _arguments()
    found = photographs.ensure(BENCH / "photographs")
    folders = {
        count: photographs.link(found, BENCH / f"names-{count}", count)
        for count in (asked.small, asked.large)
    }
    order = [asked.small] * asked.rounds + [asked.large] + [asked.small] * asked.rounds
    with tempfile.TemporaryDirectory(prefix="imagebatch-growth-", dir=BENCH) as folder:
        ground = Ground(Path(folder))
        variables = ground.variables(chosen(["ours"])[0], f"growth-{folder}")
        with served(ground.store, Path(folder), variables) as api:
            warm = ["--run-id", "warm", "--input", folders[asked.small], "--limit", 640]
            command(api.variables, "run", *warm, *FLAGS)
            rows = [staged(api, number, folders[count], count) for number, count in enumerate(order)]
    result = summary(asked.small, asked.large, rows)
    say(table(result))
    if asked.publish:
        keep("growth", result)
        show("growth", table(result))
    return 0


def staged(api: Served, number: int, images: Path, count: int) -> dict[str, Any]:
    """One run, stage by stage: seconds of each, memory of the largest; its certificate is proved again."""
    run = ["--run-id", f"run-{number}"]
    commands: list[list[Any]] = [
        ["preprocess", *run, "--input", images, *FLAGS],
        ["check", "--suite=manifest", *run],
        ["score", *run],
        ["check", "--suite=predictions", *run],
        ["postprocess", *run],
    ]
    done = [command(api.variables, *each) for each in commands]
    proved = command(api.variables, "verify", *run)
    if done[-1]["predicted"] != count or not proved["balanced"]:
        raise SystemExit(f"{done[-1]['predicted']} of {count} images were predicted")
    seconds = {stage: round(one["seconds"], 2) for stage, one in zip(STAGES, done, strict=True)}
    peak = max(one["peak_mb"] for one in done)
    row = {"images": count, "score": seconds["score"], "all": sum(seconds.values()), "peak_mb": peak}
    said = ", ".join(f"{count / row[way]:.1f} images/s {way}" for way in WAYS)
    say(f"{count:>8,} images: {said}, {peak:.0f} MB")
    return row | {"stages": seconds}


def summary(small: int, large: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median rates of both sizes, and their ratio."""
    found: dict[str, Any] = {"small": small, "large": large}
    for way in WAYS:
        rates = {
            count: statistics.median(count / row[way] for row in rows if row["images"] == count)
            for count in (small, large)
        }
        found[way] = {
            "small": round(rates[small], 1),
            "large": round(rates[large], 1),
            "ratio": round(rates[large] / rates[small], 3),
        }
    peaks = {count: max(row["peak_mb"] for row in rows if row["images"] == count) for count in (small, large)}
    return found | {"peak_mb": {"small": round(peaks[small]), "large": round(peaks[large])}, "rows": rows}


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    small, large = (f"{result[size]:,}" for size in ("small", "large"))
    lines = [f"| images/s | {small} images | {large} images | ratio |", "|---|---|---|---|"]
    for way, name in WAYS.items():
        row = result[way]
        lines.append(f"| {name} | {row['small']:.0f} | {row['large']:.0f} | {row['ratio']:.2f} |")
    peak = result["peak_mb"]
    lines.append(f"| largest process of imagebatch, MB | {peak['small']} | {peak['large']} | |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", type=int, default=2000, help="images of the small run")
    parser.add_argument("--large", type=int, default=100_000, help="images of the large one")
    parser.add_argument("--rounds", type=int, default=3, help="small runs before and after it")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
