"""Does a run slow down, or take more memory, as it grows? `imagebatch run` on 2,000 and 100,000 images.

    python3 benchmarks/run.py growth [-- --large 100000 --small 2000 --rounds 3]

The images are the benchmark's photographs under as many names as wanted. The small run is repeated around the
large one, so that both meet the same machine. Two rates: of the whole command, in which a large run spreads
what a run costs once (start, imports, quality gates), and of the stage `score` alone, which has nothing to
spread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "embedded"), str(HERE / "peers")]

import photographs  # noqa: E402 - found beside this file
from contestants import chosen  # noqa: E402 - the same
from environment import VAR, say  # noqa: E402 - found through the line above
from ground import Ground  # noqa: E402 - the same
from published import keep, show  # noqa: E402 - the same
from serving import Served, command, served  # noqa: E402 - the same

BENCH = VAR / "bench"
# The model knows solar cells: that most photographs look alike to it is no fault of theirs.
FLAGS = ("--max-class-share", "1", "--max-failures", "0")
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
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="imagebatch-growth-", dir=BENCH) as folder:
        ground = Ground(Path(folder))
        variables = ground.variables(chosen(["ours"])[0], f"growth-{folder}")
        with served(ground.store, Path(folder), variables) as api:
            command(
                api.variables,
                "run",
                "--run-id",
                "warm",
                "--input",
                folders[asked.small],
                "--limit",
                320,
                *FLAGS,
            )
            for number, count in enumerate(order):
                rows += [
                    whole(api, number, folders[count], count),
                    staged(api, number, folders[count], count),
                ]
    result = summary(asked.small, asked.large, rows)
    say(table(result))
    if asked.publish:
        keep("growth", result)
        show("growth", table(result))
    return 0


def whole(api: Served, number: int, images: Path, count: int) -> dict[str, Any]:
    """One `imagebatch run`, its certificate proved again afterwards."""
    run = ["--run-id", f"whole-{number}"]
    done = command(api.variables, "run", *run, "--input", images, *FLAGS)
    proved = command(api.variables, "verify", *run)
    if done["predicted"] != count or not proved["balanced"]:
        raise SystemExit(f"{done['predicted']} of {count} images were predicted")
    return _said({"way": "run", "images": count, "seconds": done["seconds"], "peak_mb": done["peak_mb"]})


def staged(api: Served, number: int, images: Path, count: int) -> dict[str, Any]:
    """The same work stage by stage: what each takes, and what the largest needs of memory."""
    run = ["--run-id", f"staged-{number}"]
    commands: list[list[Any]] = [
        ["preprocess", *run, "--input", images, *FLAGS],
        ["check", "--suite=manifest", *run],
    ]
    commands += [["score", *run], ["check", "--suite=predictions", *run], ["postprocess", *run]]
    done = [command(api.variables, *each) for each in commands]
    seconds = {stage: one["seconds"] for stage, one in zip(STAGES, done, strict=True)}
    peak = max(one["peak_mb"] for one in done)
    return _said(
        {"way": "stages", "images": count, "seconds": seconds["score"], "peak_mb": peak, "stages": seconds}
    )


def summary(small: int, large: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median rates of both sizes, and their ratio."""
    found: dict[str, Any] = {"small": small, "large": large}
    for way in ("run", "stages"):
        rates = {
            count: statistics.median(
                count / row["seconds"] for row in rows if row["way"] == way and row["images"] == count
            )
            for count in (small, large)
        }
        peaks = {
            count: max(row["peak_mb"] for row in rows if row["images"] == count) for count in (small, large)
        }
        found[way] = {
            "small": round(rates[small], 1),
            "large": round(rates[large], 1),
            "ratio": round(rates[large] / rates[small], 3),
        }
        found["peak_mb"] = {"small": round(peaks[small]), "large": round(peaks[large])}
    return found | {"rows": rows}


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    small, large = (f"{result[size]:,}" for size in ("small", "large"))
    lines = [f"| images/s | {small} images | {large} images | ratio |", "|---|---|---|---|"]
    for way, name in (("run", "`imagebatch run`, the whole command"), ("stages", "`imagebatch score` alone")):
        row = result[way]
        lines.append(f"| {name} | {row['small']:.0f} | {row['large']:.0f} | {row['ratio']:.2f} |")
    peak = result["peak_mb"]
    lines.append(f"| largest process of imagebatch, MB | {peak['small']} | {peak['large']} | |")
    return "\n".join(lines)


def _said(row: dict[str, Any]) -> dict[str, Any]:
    rate, peak = row["images"] / row["seconds"], row["peak_mb"]
    what = f"{row['way']:<8}{row['images']:>8,} images"
    say(f"{what} {row['seconds']:8.1f} s {rate:7.1f} images/s {peak:5.0f} MB")
    return row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small", type=int, default=2000, help="images of the small run")
    parser.add_argument("--large", type=int, default=100_000, help="images of the large one")
    parser.add_argument("--rounds", type=int, default=2, help="small runs before and after it")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
