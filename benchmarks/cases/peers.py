"""imagebatch beside its peers: same images, same weights, two cores for everyone, interleaved rounds.

    python3.11 -m benchmarks.run peers -- [--rounds 3] [--data photographs] [--only NAME …]
    python3.11 -m benchmarks.run night -- [--rounds 5]

Every contestant is started afresh in every round, warmed up, asked about all images, and ended; the order is
rotated from round to round. Whoever has our engine must answer exactly as the in-process reference does, on
every image. Measurements are added to VAR/bench/, so that rounds may be taken one by one; `--fresh` throws
them away first, `--report` measures nothing and publishes what there is. `--quick` is the short form: ours,
the ceiling and stock TorchServe; its last line gives the two ratios.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.lib import photographs, standings
from benchmarks.lib.bars import plot
from benchmarks.lib.contestants import STOCK_GRID, chosen
from benchmarks.lib.ground import Ground
from benchmarks.lib.published import keep, show
from benchmarks.lib.race import Answers, measure
from benchmarks.lib.record import Record, check
from tools.paths import ROOT, VAR, say

BENCH = VAR / "bench"
PLOT = ROOT / "docs" / "img" / "peers.svg"
QUICK = ["ours", "ceiling", "stock-tuned"]
CEILING, STOCK = 0.95, 3.0  # what ours must reach of the ceiling, and be of stock TorchServe


def main() -> int:
    """Measure, add to the record, report."""
    asked = _arguments()
    BENCH.mkdir(parents=True, exist_ok=True)
    record = Record(BENCH / f"{'quick' if asked.quick else asked.data}.jsonl")
    if asked.fresh or asked.quick:
        record.forget()
    failed = [] if asked.report else race(asked, record)
    if asked.quick and failed:
        return 1
    code = quick(record) if asked.quick else report(asked, record)
    return code or int(bool(failed))


def race(asked: argparse.Namespace, record: Record) -> list[str]:
    """Measure every contestant in every round, also after one has failed; gives the names of those."""
    failed: list[str] = []
    images = images_of(asked.data)[: asked.images]
    field = STOCK_GRID if asked.stock_grid else chosen(asked.only)
    if asked.data == "solar-cells" and not asked.only:
        field = [each for each in field if each.colours != "RGB"]
    with tempfile.TemporaryDirectory(prefix="imagebatch-peers-") as folder:
        ground = Ground(Path(folder))
        expected = reference(ground, images)
        for number in range(asked.first_round, asked.first_round + asked.rounds):
            turn = number % len(field)
            for contestant in field[turn:] + field[:turn]:
                # Scripts get all: Ray Data works ahead of its first answers, which start its clock.
                slow = contestant.kind == "eager" and contestant.group != "script"
                subset = images[: asked.slow_images] if slow else images
                try:
                    found = measure(contestant, ground, subset)
                    record.add(contestant, number, found, check(contestant, found.answers, expected))
                except SystemExit as error:
                    print(f"error: round {number}: {error}", file=sys.stderr, flush=True)
                    failed.append(contestant.name)
    return failed


def images_of(data: str) -> list[Path]:
    """Return the images of a data set.

    Raises:
        SystemExit: `make demo` has not prepared the solar cells.
    """
    if data == "photographs":
        return photographs.ensure(BENCH / "photographs")
    if data == "night":
        return sorted(
            photographs.link(images_of("photographs"), BENCH / "night", photographs.NIGHT).iterdir()
        )
    found = sorted((VAR / "data" / "solar-cells" / "images").glob("*.png"))
    if not found:
        raise SystemExit("no photographs of solar cells: run `make demo` once")
    return found


def reference(ground: Ground, images: list[Path]) -> Answers:
    """Return what the archive's modules answer without any server: the reference for all peers."""
    (ceiling,) = chosen(["ceiling"])
    return measure(ceiling, ground, images).answers


def report(asked: argparse.Namespace, record: Record) -> int:
    """Print the table; put it, the plot and the figures where they are published."""
    if asked.stock_grid:
        say(standings.grid(record.entries()))
        return 0
    result = standings.summary(record.entries())
    table = standings.table(result)
    say(table)
    if asked.publish:
        name = "peers" if asked.data == "photographs" else f"peers-{asked.data}"
        keep(name, result)
        picture = "\n\n![images per second of imagebatch and its peers](../img/peers.svg)"
        show(name, table + (picture if name == "peers" else ""))
        if name == "peers":
            plot(result, PLOT)
    return 0


def quick(record: Record) -> int:
    """Print the two ratios; a low one is said, but noise must not fail a build."""
    result = standings.summary(record.entries())
    say(standings.table(result))
    ceiling, stock = result["ratio_to_ceiling"], result["ratio_to_stock"]
    for what, ratio, bar in (
        ("the in-process ceiling", ceiling, CEILING),
        ("stock TorchServe", stock, STOCK),
    ):
        if ratio < bar:
            say(f"warning: {ratio:.2f} times {what}, below {bar}: is the machine busy?")
    say(f"ratio_to_ceiling={ceiling:.2f} ratio_to_stock={stock:.1f}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data", choices=["photographs", "night", "solar-cells"], default="photographs", help="images"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of all contestants")
    parser.add_argument("--first-round", type=int, default=0, help="number of the first: turns the order")
    parser.add_argument(
        "--images", type=int, default=photographs.NIGHT, help="at most so many per measurement"
    )
    parser.add_argument(
        "--slow-images",
        type=int,
        default=photographs.NIGHT,
        help="the same for servers with eager torch",
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contestants")
    parser.add_argument("--stock-grid", action="store_true", help="stock TorchServe's settings instead")
    parser.add_argument("--quick", action="store_true", help="the short form")
    parser.add_argument("--report", action="store_true", help="measure nothing, make the page")
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    parser.add_argument("--publish", action="store_true", help="keep the result in results/ and in docs/")
    asked = parser.parse_args()
    if asked.quick:
        asked.only, asked.images, asked.slow_images = (
            QUICK,
            min(asked.images, 1200),
            min(asked.slow_images, 240),
        )
    return asked


if __name__ == "__main__":
    sys.exit(main())
