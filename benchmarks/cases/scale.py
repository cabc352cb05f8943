"""What 10,000 to 1,000,000,000 images take, by arithmetic and by simulation, into docs/explanation/scale.md.

    python3.11 -m benchmarks.run scale [-- --publish --hours 8 --seeds 5]

Fails where the two disagree by more than a tenth, or where they miss a measured run by more than a fifth.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.lib.published import RESULTS, keep
from benchmarks.lib.scale import Constants, Fleet, Plan, cut, estimate, measured, requests
from benchmarks.lib.simulated import Night, Trouble
from tools.paths import ROOT, fail, say

PAGE = ROOT / "docs" / "explanation" / "scale.md"
PICTURE = ROOT / "docs" / "img" / "scale.svg"
SIZES = tuple(10**power for power in range(4, 10))
APART, MISSED = 0.10, 0.20
# Of the demo's run: bytes of an image in the manifest, in the scores, and in predictions.csv and .parquet.
BYTES = {"manifest": 57, "scores": 138, "output": 315}
# Rows that a run leaves in Airflow's database, counted there: task instances, XComs, rendered fields, log.
ROWS_OF_A_RUN, ROWS_OF_A_SHARD = 38, 5
BUSY = Trouble(spread=0.2, failures=0.05)  # a fifth of spread; one failure of a machine in twenty hours


@dataclass(frozen=True)
class Instance:
    """A machine for rent: virtual cores, and list price in USD an hour, in US regions, with Linux."""

    name: str
    cores: int
    price: float


INSTANCES = (
    Instance("AWS c5.4xlarge", 16, 0.68),
    Instance("Google c2-standard-8", 8, 0.4176),
    Instance("Azure F16s v2", 16, 0.677),
)
READS, WRITES = 0.0004 / 1000, 0.005 / 1000  # USD of a GET and of a PUT or LIST: S3 Standard, US East


def main() -> int:
    """Compute, compare, publish."""
    asked = _arguments()
    constants = measured()
    rows = [row_of(images, asked.hours, constants, asked.seeds) for images in SIZES]
    checks = against_measured(constants)
    for row in rows:
        say(f"{row['images']:>13,} images: {row['machines']} machines, {row['hours']:.2f} h")
    for check in checks:
        say(f"{check['run']}: measured {check['measured']:.0f} s, computed {check['computed']:.0f} s")
    complaints = [
        f"{row['images']:,} images: simulated {row['simulated_hours']:.2f} h, computed {row['hours']:.2f} h"
        for row in rows
        if abs(row["simulated_hours"] / row["hours"] - 1) > APART
    ]
    complaints += [
        f"{one['run']}: {one[way]:.0f} s {way}, {one['measured']:.0f} s measured"
        for one in checks
        for way in ("computed", "simulated")
        if abs(one[way] / one["measured"] - 1) > MISSED
    ]
    if asked.publish:
        keep("scale", {"constants": _told(constants), "rows": rows, "checks": checks})
        _publish(rows, checks, constants)
    if complaints:
        fail("; ".join(complaints), 1)
    return 0


def row_of(images: int, hours: float, constants: Constants, seeds: int) -> dict[str, Any]:
    """One size: the fewest machines with which the night is over in time, and what they cost."""
    instance = INSTANCES[0]
    fleet, plan = fit(images, hours, instance.cores, constants)
    computed = estimate(plan, fleet, constants)
    calm = Night(plan, fleet, constants, Trouble()).play().seconds
    busy = [Night(plan, fleet, constants, BUSY, seed).play() for seed in range(seeds)]
    asked = requests(plan)
    prices = {}
    for each in INSTANCES:
        theirs, cuts = fit(images, hours, each.cores, constants)
        prices[each.name] = theirs.machines * each.price * estimate(cuts, theirs, constants).seconds / 3600
    return {
        "images": images,
        "runs": plan.runs,
        "shards": plan.shards,
        "shard_size": plan.shard_size,
        "machines": fleet.machines,
        "hours": computed.seconds / 3600,
        "single_share": computed.single / computed.seconds,
        "simulated_hours": calm / 3600,
        "busy_hours": statistics.median(night.seconds for night in busy) / 3600,
        "failures": statistics.median(night.failures for night in busy),
        "again": sum(night.again for night in busy) / sum(night.pieces for night in busy),
        "gigabytes": {name: images * each / 1e9 for name, each in BYTES.items()},
        "rows": plan.runs * (ROWS_OF_A_RUN + plan.shards * ROWS_OF_A_SHARD),
        "requests": asked,
        "request_price": asked["read"] * READS + asked["write"] * WRITES,
        "prices": prices,
    }


def fit(images: int, hours: float, cores: int, constants: Constants) -> tuple[Fleet, Plan]:
    """Find the fewest machines of a kind with which a night is over in time."""
    machines = max(1, math.floor(images / (constants.rate * cores * hours * 3600)))
    while True:
        fleet = Fleet(machines, cores)
        plan = cut(images, fleet.slots, constants, hours * 3600)
        if estimate(plan, fleet, constants).seconds <= hours * 3600:
            return fleet, plan
        machines += max(1, machines // 50)


def against_measured(constants: Constants) -> list[dict[str, Any]]:
    """Compare with runs whose wall time was measured on one machine of two cores."""
    growth, whole = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("growth", "whole-run"))
    staged = next(row["all"] for row in growth["rows"] if row["images"] == growth["large"])
    runs = [
        ("five commands, 100,000 photographs", growth["large"], growth["large"], staged),
        (
            "the DAG, 20,000 photographs",
            whole["images"],
            4096,
            whole["images"] / whole["ways"]["dag"]["median"],
        ),
    ]
    found = []
    for name, images, size, seconds in runs:
        fleet = Fleet(1, 2)
        plan = Plan(images, 1, size, math.ceil(images / size))
        computed = estimate(plan, fleet, constants).seconds
        played = Night(plan, fleet, constants, Trouble()).play().seconds
        found.append({"run": name, "measured": seconds, "computed": computed, "simulated": played})
    return found


def _publish(rows: list[dict[str, Any]], checks: list[dict[str, Any]], constants: Constants) -> None:
    text = PAGE.read_text("utf-8")
    for name, table in (
        ("nights", _nights(rows)),
        ("costs", _costs(rows)),
        ("checks", _checks(checks)),
        ("constants", _constants(constants)),
    ):
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table}\n{end}{after}"
    PAGE.write_text(text, "utf-8")
    _draw(constants, PICTURE)


def _nights(rows: list[dict[str, Any]]) -> str:
    head = (
        "| images | runs | shards of a run | images per shard | machines | hours | simulated |"
        " with stragglers and failures | machines failed | scored twice | on one core alone |"
    )
    lines = [head, "|" + "---|" * 11]
    lines += [
        f"| {row['images']:,} | {row['runs']} | {row['shards']:,} | {row['shard_size']:,} |"
        f" {row['machines']} | {row['hours']:.2f} | {row['simulated_hours']:.2f} |"
        f" {row['busy_hours']:.2f} | {row['failures']:.0f} | {row['again']:.2%} |"
        f" {row['single_share']:.0%} |"
        for row in rows
    ]
    return "\n".join(lines)


def _costs(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["prices"])
    head = ["images", "manifest, GB", "scores, GB", "outputs, GB", "rows in Airflow's database"]
    head += ["reads", "writes", "requests, USD", *(f"{name}, USD" for name in names)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        sizes = [f"{size:.3g}" for size in row["gigabytes"].values()]
        asked = [f"{row['requests'][kind]:,.0f}" for kind in ("read", "write")]
        prices = [f"{row['prices'][name]:.2f}" for name in names]
        cells = [f"{row['images']:,}", *sizes, f"{row['rows']:,}", *asked, f"{row['request_price']:.2f}"]
        lines.append(f"| {' | '.join([*cells, *prices])} |")
    return "\n".join(lines)


def _checks(checks: list[dict[str, Any]]) -> str:
    lines = ["| | measured, s | computed, s | simulated, s |", "|---|---|---|---|"]
    lines += [
        f"| {one['run']} | {one['measured']:.0f} | {one['computed']:.0f} | {one['simulated']:.0f} |"
        for one in checks
    ]
    return "\n".join(lines)


def _constants(constants: Constants) -> str:
    lines = ["| | |", "|---|---|", f"| `score`, images/s of a virtual core | {constants.rate:.1f} |"]
    for name in ("preprocess", "check_manifest", "check_predictions", "postprocess"):
        line = getattr(constants, name)
        said = f"{line.start:.1f} s and {line.each * 1e6:.0f} µs an image"
        lines.append(f"| {name.replace('_', ' ')} | {said} |")
    return "\n".join([*lines, f"| between two tasks | {constants.task:.2f} s |"])


def _draw(constants: Constants, path: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "imagebatch"  # the same figures give the same bytes
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for machines in (1, 4, 16, 64):
        fleet = Fleet(machines, INSTANCES[0].cores)
        plans = [cut(images, fleet.slots, constants, 8 * 3600) for images in SIZES]
        hours = [estimate(plan, fleet, constants).seconds / 3600 for plan in plans]
        played = [Night(plan, fleet, constants, BUSY).play().seconds / 3600 for plan in plans]
        (line,) = axes.plot(SIZES, hours, label=f"{machines} machine{'s' if machines > 1 else ''}")
        axes.plot(SIZES, played, "o", color=line.get_color(), markersize=4)
    axes.axhline(8, color="black", linestyle=":", linewidth=1)
    axes.annotate("a night of 8 hours", (SIZES[0], 8.8), fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="images", ylabel="hours")
    title = f"of {INSTANCES[0].cores} virtual cores\ndots: simulated with failures"
    axes.legend(title=title, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def _told(constants: Constants) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in vars(constants).items():
        found[name] = value if isinstance(value, float) else vars(value)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=8.0, help="in which a night must be over")
    parser.add_argument("--seeds", type=int, default=3, help="nights with failures that are played")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
