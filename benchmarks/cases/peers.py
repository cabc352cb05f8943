"""imagebatch beside its peers: same images, same weights, two cores for everyone, interleaved rounds.

    python3.11 -m benchmarks.run peers -- [--rounds 3] [--data photographs] [--only NAME …]
    python3.11 -m benchmarks.run night -- [--rounds 5]

Every contestant is started afresh in every round, warmed up, asked about all images, and ended; the order is
rotated from round to round. Whoever has our engine must answer exactly as the in-process reference does, on
every image. Measurements are added to VAR/bench/, so that rounds may be taken one by one; `--fresh` throws
them away first, `--report` measures nothing and publishes what there is. `--quick` is the short form: ours,
the ceiling and stock TorchServe; on photographs of 12 megapixels ours, with all files decoded whole,
and stock TorchServe. Its last line gives the four ratios.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.lib import photographs, standings
from benchmarks.lib.bars import plot
from benchmarks.lib.contestants import CONTESTANTS, STOCK_GRID, WHOLE, chosen
from benchmarks.lib.forms import PACK
from benchmarks.lib.ground import Ground
from benchmarks.lib.model import MODEL, QUICK_MODEL
from benchmarks.lib.published import keep, show
from benchmarks.lib.race import Answers, measure
from benchmarks.lib.record import Record, check
from tools.paths import ROOT, VAR, say

BENCH = VAR / "bench"
PLOT = ROOT / "docs" / "img" / "peers.svg"
QUICK = ["ours", "ceiling", "stock-tuned"]
QUICK_LARGE = ["ours", "ours-whole", "stock-tuned"]
CORE = {*QUICK, *QUICK_LARGE}  # of every round; the others may have fewer
CEILING, STOCK = 0.95, 3.0  # what ours must reach of the ceiling, and be of stock TorchServe
WHOLE_12MP, STOCK_12MP = 2.0, 5.0  # on 12 megapixels: of itself with every file decoded whole, and of stock
WHOLE_PIXELS = "1"  # what eager torch is held to: its own code decodes every file whole
LARGE_PACK = 4  # photographs of 2 MB that a request holds: 32 would be over 60 MB


def main() -> int:
    """Measure, add to the record, report."""
    asked = _arguments()
    BENCH.mkdir(parents=True, exist_ok=True)
    if asked.quick:
        return quick(asked)
    record = Record(BENCH / f"{asked.data}.jsonl")
    if asked.fresh:
        record.forget()
    failed = [] if asked.report else race(asked, record)
    return report(asked, record) or int(bool(failed))


def race(asked: argparse.Namespace, record: Record) -> list[str]:
    """Measure every contestant in every round, also after one has failed; gives the names of those."""
    failed: list[str] = []
    images = images_of(asked.data)[: asked.images]
    field = STOCK_GRID if asked.stock_grid else chosen(asked.only)
    large = asked.data == "large"
    if large and not (asked.only or asked.stock_grid):
        field = [*CONTESTANTS, *WHOLE]
    if asked.data == "solar-cells" and not asked.only:
        field = [each for each in field if each.colours != "RGB"]
    with tempfile.TemporaryDirectory(prefix="imagebatch-peers-") as folder:
        ground = Ground(Path(folder), model=QUICK_MODEL if asked.quick else MODEL)
        pack = LARGE_PACK if large else PACK
        # Below the size that is scaled both versions are the same, and one reference is enough.
        eager = WHOLE_PIXELS if large else ""
        held_to = {one.name: one.pixels or (eager if one.kind == "eager" else "") for one in field}
        expected = {pixels: reference(ground, images, pixels) for pixels in set(held_to.values())}
        for number in range(asked.first_round, asked.first_round + asked.rounds):
            turn = number % len(field)
            every = number - asked.first_round < (asked.rest_rounds or asked.rounds)
            for contestant in field[turn:] + field[:turn]:
                if not every and contestant.name not in CORE:
                    continue
                # Scripts get all: Ray Data works ahead of its first answers, which start its clock.
                slow = contestant.kind == "eager" and contestant.group != "script"
                subset = images[: asked.slow_images] if slow else images
                try:
                    found = measure(contestant, ground, subset, pack)
                    agreement = check(contestant, found.answers, expected[held_to[contestant.name]])
                    record.add(contestant, number, found, agreement)
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
    if data == "large":
        files = photographs.ensure_large(BENCH / "large-files")
        return sorted(photographs.link(files, BENCH / "large", photographs.LARGE_NAMES).iterdir())
    found = sorted((VAR / "data" / "solar-cells" / "images").glob("*.png"))
    if not found:
        raise SystemExit("no photographs of solar cells: run `make demo` once")
    return found


def reference(ground: Ground, images: list[Path], pixels: str = "") -> Answers:
    """Return what the archive's modules answer without any server: the reference of these pixels."""
    (ceiling,) = chosen(["ceiling"])
    return measure(replace(ceiling, pixels=pixels), ground, images).answers


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


def quick(asked: argparse.Namespace) -> int:
    """Measure the short form, print the four ratios; a low one is said, but noise must not fail a build."""
    small = _few(asked, data="photographs", only=QUICK, images=1200, slow_images=240)
    large = _few(asked, data="large", only=QUICK_LARGE, images=240, slow_images=60, rounds=1)
    results = []
    for each, name in ((small, "quick"), (large, "quick-large")):
        record = Record(BENCH / f"{name}.jsonl")
        record.forget()
        if race(each, record):
            return 1
        results.append(standings.summary(record.entries()))
        say(standings.table(results[-1]))
    usual, huge = results
    ratios = [
        ("ratio_to_ceiling", f"{usual['ratio_to_ceiling']:.2f}", CEILING),
        ("ratio_to_stock", f"{usual['ratio_to_stock']:.1f}", STOCK),
        ("ratio_12mp_to_full_decode", f"{huge['ratio_to_full_decode']:.2f}", WHOLE_12MP),
        ("ratio_12mp_to_stock", f"{huge['ratio_to_stock']:.1f}", STOCK_12MP),
    ]
    for name, ratio, bar in ratios:
        if float(ratio) < bar:
            say(f"warning: {name} is {ratio}, below the {bar} that is aimed at")
    say(" ".join(f"{name}={ratio}" for name, ratio, _ in ratios))
    return 0


def _few(asked: argparse.Namespace, **short: Any) -> argparse.Namespace:
    """Return what was asked, with no more than the short form measures."""
    for name in ("images", "slow_images", "rounds"):
        if name in short:
            short[name] = min(short[name], getattr(asked, name))
    return argparse.Namespace(**vars(asked) | short)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data",
        choices=["photographs", "night", "large", "solar-cells"],
        default="photographs",
        help="images",
    )
    parser.add_argument("--rounds", type=int, default=3, help="of all contestants")
    parser.add_argument(
        "--rest-rounds", type=int, default=0, help="of others than ours and stock; 0: the same"
    )
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
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
