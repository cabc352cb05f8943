"""A whole night's run against the in-process ceiling: 20,000 photographs, files to `_SUCCESS`.

    make up && python3.11 -m benchmarks.run whole-run [-- --images 20000 --rounds 2] [--only run dag ceiling]

Three ways on the same stack: `imagebatch run`, the DAG (from the trigger to success), and the archive's
modules in two processes without any server, which is the ceiling. Interleaved; the run and the DAG must
write the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.lib import photographs
from benchmarks.lib.contestants import chosen
from benchmarks.lib.ground import Ground
from benchmarks.lib.orchestrated import finished, warm_up
from benchmarks.lib.published import keep, show
from benchmarks.lib.race import measure
from benchmarks.lib.serving import command
from benchmarks.peers.stopwatch import MARK
from tools.local.services import airflow_api
from tools.paths import ROOT, VAR, fail, say

# The model knows solar cells: that most photographs look alike to it is no fault of theirs.
FLAGS = ("--max-class-share", "1", "--max-failures", "0")
STACK = ROOT / "model_store" / "solar-cells.mar"
"""What the running stack serves: the ceiling must be that model's."""
BARS = {"run": 0.85, "dag": 0.75}
WARM = 100  # photographs of a first run of the DAG, which does not count
CEILING = 2400  # photographs: its rate does not depend on their number
NAMES = {"ceiling": "in-process ceiling", "run": "`imagebatch run`", "dag": "the DAG, trigger to success"}


def main() -> int:
    """Measure, print, publish."""
    asked = _arguments()
    found = photographs.ensure(VAR / "bench" / "photographs")
    folder = photographs.link(found, VAR / "data" / f"bench-{asked.images}", asked.images)
    if "dag" in asked.only:
        few = photographs.link(found[:WARM], VAR / "data" / f"bench-{WARM}", WARM)
        warm_up(airflow_api(), few)
    rates: dict[str, list[float]] = {way: [] for way in asked.only}
    with tempfile.TemporaryDirectory(prefix="imagebatch-whole-", dir=VAR / "bench") as temporary:
        ground = Ground(Path(temporary), STACK)
        for number in range(asked.rounds):
            products = set()
            turn = number % len(asked.only)
            for way in asked.only[turn:] + asked.only[:turn]:
                rate, product = WAYS[way](ground, folder, asked.images)
                say(f"round {number}  {way:<8}{rate:7.1f} images/s")
                rates[way].append(rate)
                products |= {product} - {""}
            if len(products) > 1:
                fail("the run and the DAG wrote different predictions.csv", 1)
    result = summary(asked.images, rates)
    say(table(result))
    if asked.publish:
        keep("whole-run", result)
        show("whole-run", table(result))
    return 0


def through_ceiling(ground: Ground, folder: Path, images: int) -> tuple[float, str]:
    """Images per second of the in-process ceiling."""
    (ceiling,) = chosen(["ceiling"])
    found = measure(ceiling, ground, sorted(folder.iterdir())[: min(images, CEILING)])
    return found.images / found.seconds, ""


def through_run(ground: Ground, folder: Path, images: int) -> tuple[float, str]:
    """Images per second of `imagebatch run`, process start to end, and the digest of its product."""
    runs = Path(tempfile.mkdtemp(dir=ground.folder))
    variables = os.environ | {
        MARK: "whole-run",
        "IMAGEBATCH_RUNS_URI": str(runs),
        "IMAGEBATCH_LOG_LEVEL": "error",
    }
    done = command(variables, "run", "--run-id", "whole", "--input", folder, *FLAGS)
    if done["predicted"] != images:
        fail(f"{done['predicted']} of {images} images were predicted", 1)
    return images / done["seconds"], _digest(Path(done["predictions"].removeprefix("file://")))


def through_dag(_: Ground, folder: Path, images: int) -> tuple[float, str]:
    """Images per second from the trigger to the run's success, and the digest of its product."""
    api = airflow_api()
    done = finished(api, folder, poll=0.25)
    result = api.result(done.run, "postprocess")
    if result.get("predicted") != images:
        fail(f"{result.get('predicted')} of {images} images were predicted; see {api.page(done.run)}", 1)
    return images / done.seconds, _digest(Path(result["predictions"].removeprefix("file://")))


WAYS = {"ceiling": through_ceiling, "run": through_run, "dag": through_dag}


def summary(images: int, rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, ranges and shares of the ceiling."""
    ways = {
        way: {
            "median": round(statistics.median(found), 1),
            "lowest": round(min(found), 1),
            "highest": round(max(found), 1),
        }
        for way, found in rates.items()
    }
    shares = {
        f"{way}_share": round(ways[way]["median"] / ways["ceiling"]["median"], 3)
        for way in BARS
        if {way, "ceiling"} <= ways.keys()
    }
    return {"images": images, "rounds": len(next(iter(rates.values()))), "ways": ways, **shares}


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = ["| | images/s, median | lowest to highest | share of the ceiling |", "|---|---|---|---|"]
    for way, row in result["ways"].items():
        share = f"{result[f'{way}_share']:.2f}" if f"{way}_share" in result else ""
        spread = f"{row['lowest']:.0f} to {row['highest']:.0f}"
        lines.append(f"| {NAMES[way]} | {row['median']:.0f} | {spread} | {share} |")
    return "\n".join([*lines, "", f"{result['images']:,} photographs, {result['rounds']} rounds."])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=photographs.NIGHT, help="photographs of a run")
    parser.add_argument("--rounds", type=int, default=2, help="of all ways")
    parser.add_argument("--only", nargs="+", choices=list(NAMES), default=list(NAMES), help="ways")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
