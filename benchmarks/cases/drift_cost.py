"""What a report with drift, embeddings and image statistics adds to a run: docs/reference/drift.md.

    pipeline_image/.venv/bin/python -m benchmarks.cases.drift_cost [--rounds 7] [--publish]

`imagebatch run` of the solar cells with and without, the archive's own handler answering (extra `local`);
wall clock and CPU seconds of the whole process with all its workers. What is added is the median of the
differences within rounds: a round's two runs follow each other, each kind first in every other round, so that
a machine that gets slower meanwhile slows both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.lib import published
from benchmarks.lib.model import MODEL
from tools.paths import ROOT, VAR

CELLS = VAR / "data" / "solar-cells"
IMAGEBATCH = Path(sys.executable).with_name("imagebatch")
PAGE = ROOT / "docs" / "reference" / "drift.md"
MOST = 0.05


def main() -> int:
    """Measures, prints, publishes; exits 1 if a run takes more than 5 % longer."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, default=7)
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
    model = ["--backend", "local", "--model-archive", str(MODEL.require())]
    whole = ["run", "--input", str(CELLS / "images"), *model]
    baseline = folder / "baseline.parquet"
    timed(folder, [*whole, "--run-id", "first", "--no-report"])
    timed(folder, ["baseline", "--run-id", "first", "--output", str(baseline)])
    kinds = {"with": ["--baseline", str(baseline)], "without": ["--no-report"]}
    found: dict[str, dict[str, list[float]]] = {kind: {"wall": [], "cpu": []} for kind in kinds}
    for number in range(rounds):
        order = list(kinds.items())
        for kind, flags in order if number % 2 else reversed(order):
            for image in (CELLS / "images").iterdir():
                image.read_bytes()  # into the page cache, for both: the disk is not what is compared
            wall, cpu = timed(folder, [*whole, "--run-id", f"{kind}-{number}", *flags])
            found[kind]["wall"].append(round(wall, 3))
            found[kind]["cpu"].append(round(cpu, 3))
            print(f"{kind} {wall:.2f} s, CPU {cpu:.2f} s", flush=True)
        if not (folder / f"runs/with-{number}/quality/drift.json").exists():
            raise SystemExit("the report did not look for drift: nothing was measured")
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
    """How much longer a run takes, as a share of one without: the median over the rounds."""
    with_, without = (found[kind][what] for kind in ("with", "without"))
    longer = statistics.median(more - less for more, less in zip(with_, without, strict=True))
    return longer / statistics.median(without)


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the table that is published."""
    lines = [
        "| `imagebatch run`, seconds | without report | with report, statistics, embeddings, drift | added |"
    ]
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
