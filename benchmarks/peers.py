"""imagebatch beside its peers: same photographs, same weights, two cores for everyone, interleaved rounds.

    python3 benchmarks/run.py peers -- [--rounds 3] [--images 2400] [--slow-images 2400] [--only NAME …]

Every contestant is started afresh in every round, warmed up, asked about all photographs, and ended; the
order is rotated from round to round. Whoever has our engine must answer exactly as the in-process reference
does, on every image. Measurements are added to VAR/bench/peers.jsonl, so that rounds may be taken one by one;
`--fresh` throws them away first, `--report` measures nothing and makes results, table and plot of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "embedded"), str(HERE / "peers")]

import photographs  # noqa: E402 - found beside this file
from contestants import STOCK_GRID, Contestant, chosen  # noqa: E402 - found through the lines above
from environment import VAR, say  # noqa: E402 - the same
from ground import Ground  # noqa: E402 - the same
from race import Answers, Measurement, measure  # noqa: E402 - the same

BENCH = VAR / "bench"
RECORD = BENCH / "peers.jsonl"
AGREEMENT = 0.99  # eager torch and Pillow make other pixels: fewer equal classes than this is another model


def main() -> int:
    """Measure, add to the record, report."""
    asked = _arguments()
    BENCH.mkdir(parents=True, exist_ok=True)
    if asked.fresh:
        RECORD.unlink(missing_ok=True)
    if not asked.report:
        race(asked)
    return 0


def race(asked: argparse.Namespace) -> None:
    """Measure every contestant in every round."""
    images = photographs.ensure(BENCH / "photographs")[: asked.images]
    field = STOCK_GRID if asked.stock_grid else chosen(asked.only)
    with tempfile.TemporaryDirectory(prefix="imagebatch-peers-") as folder:
        ground = Ground(Path(folder))
        expected = reference(ground, images)
        for number in range(asked.first_round, asked.first_round + asked.rounds):
            turn = number % len(field)
            for contestant in field[turn:] + field[:turn]:
                subset = images[: asked.slow_images] if contestant.slow else images
                found = measure(contestant, ground, subset)
                note(contestant, number, found, check(contestant, found.answers, expected))


def reference(ground: Ground, images: list[Path]) -> Answers:
    """What the archive answers in this process's own children: the answers that count."""
    (ceiling,) = chosen(["ceiling"])
    return measure(ceiling, ground, images).answers


def check(contestant: Contestant, answers: Answers, expected: Answers) -> float:
    """Share of equal first labels; whoever has our engine must answer the very same numbers.

    Raises:
        SystemExit: The answers are not those of this model.
    """
    same = sum(answers[name][0][0] == expected[name][0][0] for name in answers) / len(answers)
    if contestant.kind == "ours":
        other = [name for name in answers if list(answers[name]) != list(expected[name])]
        if other:
            raise SystemExit(f"{contestant.name} answers otherwise on {len(other)} images, first {other[0]}")
    elif same < AGREEMENT:
        raise SystemExit(f"{contestant.name} agrees on {same:.1%} of the first labels: another model")
    return same


def note(contestant: Contestant, number: int, found: Measurement, agreement: float) -> None:
    """Print a measurement and add it to the record."""
    rate, each = found.images / found.seconds, 1000 * found.cpu / found.images
    say(
        f"round {number}  {contestant.name:<18}{rate:7.1f} images/s {each:7.2f} CPU-ms an image"
        f"  start {found.startup:5.1f} s  same label {agreement:.2%}"
    )
    entry: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "round": number,
        "name": contestant.name,
        "images": found.images,
        "seconds": round(found.seconds, 3),
        "cpu": round(found.cpu, 2),
        "startup": round(found.startup, 2),
        "agreement": round(agreement, 5),
    }
    with RECORD.open("a", encoding="utf-8") as record:
        record.write(json.dumps(entry) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="of all contestants")
    parser.add_argument("--first-round", type=int, default=0, help="number of the first: turns the order")
    parser.add_argument("--images", type=int, default=photographs.COUNT, help="photographs per measurement")
    parser.add_argument(
        "--slow-images", type=int, default=photographs.COUNT, help="for those with eager torch"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contestants")
    parser.add_argument("--stock-grid", action="store_true", help="stock TorchServe's settings instead")
    parser.add_argument("--report", action="store_true", help="measure nothing, make the page")
    parser.add_argument("--fresh", action="store_true", help="forget earlier measurements")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
