"""What a report with drift and image statistics adds to a run of the solar cells: docs/reference/drift.md.

    pipeline_image/.venv/bin/python benchmarks/drift_cost.py [--rounds 5] [--publish]

`imagebatch run` with and without them in turn, the archive's own handler answering (extra `local`); wall
clock and CPU seconds of the whole process with all its workers, medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import published

ROOT = Path(__file__).resolve().parents[1]
VAR = Path(os.environ.get("IMAGEBATCH_VAR") or ROOT / "var")
CELLS = VAR / "data" / "solar-cells"
ARCHIVE = ROOT / "model_store" / "solar-cells.mar"
IMAGEBATCH = Path(sys.executable).with_name("imagebatch")
PAGE = ROOT / "docs" / "reference" / "drift.md"
MOST = 0.05


def main() -> int:
    """Measures, prints, publishes; exits 1 if the median run takes more than 5 % longer."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--publish", action="store_true")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), asked.rounds)
    images = len(list((CELLS / "images").glob("*.png")))
    result = {"images": images, "rounds": asked.rounds, "seconds": found}
    lines = table(found)
    print(lines)
    if asked.publish:
        published.keep("drift-cost", result)
        published.show("drift cost", lines, PAGE)
    return 0 if added(found, "wall") <= MOST else 1


def measured(folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Wall and CPU seconds of each run: `with` and `without`."""
    model = ["--backend", "local", "--model-archive", str(ARCHIVE)]
    whole = ["run", "--input", str(CELLS / "images"), *model]
    baseline = folder / "baseline.parquet"
    timed(folder, [*whole, "--run-id", "first", "--no-report"])
    timed(folder, ["baseline", "--run-id", "first", "--output", str(baseline)])
    kinds = {"with": ["--baseline", str(baseline)], "without": ["--no-report"]}
    found: dict[str, dict[str, list[float]]] = {kind: {"wall": [], "cpu": []} for kind in kinds}
    for number in range(rounds):
        for kind, flags in kinds.items():
            wall, cpu = timed(folder, [*whole, "--run-id", f"{kind}-{number}", *flags])
            found[kind]["wall"].append(round(wall, 3))
            found[kind]["cpu"].append(round(cpu, 3))
            print(f"{kind} {wall:.2f} s, CPU {cpu:.2f} s", flush=True)
        assert (folder / f"runs/with-{number}/quality/drift.json").exists()  # noqa: S101 (or nothing was measured)
    return found


def timed(folder: Path, arguments: list[str]) -> tuple[float, float]:
    """Wall clock and CPU seconds of one command and all that it started."""
    begun = time.perf_counter()
    with (folder / "log").open("wb") as log:
        actions = [(os.POSIX_SPAWN_DUP2, log.fileno(), number) for number in (1, 2)]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("IMAGEBATCH_")
        }
        environment["IMAGEBATCH_RUNS_URI"] = str(folder / "runs")
        child = os.posix_spawn(IMAGEBATCH, [str(IMAGEBATCH), *arguments], environment, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit((folder / "log").read_text()[-2000:])
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime


def added(found: dict[str, dict[str, list[float]]], what: str) -> float:
    """How much longer the median run takes, as a share of the one without."""
    with_, without = (statistics.median(found[kind][what]) for kind in ("with", "without"))
    return with_ / without - 1


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """What is published."""
    lines = ["| `imagebatch run`, seconds | without report | with report, statistics and drift | added |"]
    lines.append("|---|---|---|---|")
    for what, name in (("wall", "wall clock"), ("cpu", "CPU, all processes")):
        cells = [
            f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
            for values in (found[kind][what] for kind in ("without", "with"))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | **{added(found, what):+.1%}** |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
