"""`make chaos`: what is done to a run, and what becomes of it. Exit code 1 if any scenario fails."""

import argparse
import importlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.support import children
from tests.system.chaos import scenario
from tests.system.chaos.ground import Ground
from tests.system.chaos.table import Outcome, Table, write_page
from tools.paths import say

FAMILIES = ("replies", "overload", "serving", "crashes", "disks", "bucket", "crowd")


def main(argv: list[str]) -> int:
    """Run scenarios.

    Args:
        argv: As after the program's name; see `--help`.

    Returns:
        0 if all passed, 1 if not.
    """
    for family in FAMILIES:
        importlib.import_module(f"tests.system.chaos.{family}")
    asked = _parse(argv)
    if asked.list:
        for one in scenario.ALL:
            say(f"{one.name:<28}{one.text}")
        return 0
    wanted = [one for one in scenario.ALL if not asked.only or one.name in asked.only]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="imagebatch-chaos-"))
    try:
        outcomes, calm_seconds = _run(wanted, folder, asked)
    finally:
        children.end_all()
    failed = [outcome for outcome in outcomes if outcome.error]
    if len(outcomes) == len(scenario.ALL):
        write_page(outcomes, asked.images, calm_seconds)
    if failed:
        say(f"{len(failed)} of {len(outcomes)} scenarios failed; their files are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    say(f"all {len(outcomes)} scenarios passed")
    return 0


def _run(
    wanted: list[scenario.Scenario], folder: Path, asked: argparse.Namespace
) -> tuple[list[Outcome], float]:
    begun = time.monotonic()
    ground = Ground(folder, images=asked.images, storm_seconds=asked.storm_seconds)
    ground.measure_calm()
    ready = time.monotonic() - begun
    say(f"ready after {ready:.0f} s; undisturbed, {asked.images} images take {ground.calm_seconds:.1f} s")
    table = Table(len(wanted))
    outcomes = []
    for one in wanted:
        table.begin(one)
        started = time.monotonic()
        outcome = _outcome(one, ground, started)
        children.end_all(ground.logs)  # what a failed scenario left must not disturb the next
        table.end(outcome)
        outcomes.append(outcome)
        ground.server.ensure()
    say(f"{time.monotonic() - begun:.0f} s in all")
    return outcomes, ground.calm_seconds


def _outcome(one: scenario.Scenario, ground: Ground, started: float) -> Outcome:
    try:
        result = one.act(ground)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a scenario is that scenario's failure
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return Outcome(one, None, text, time.monotonic() - started)
    return Outcome(one, result, "", time.monotonic() - started)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        choices=[one.name for one in scenario.ALL],
        help="run this scenario; may be repeated",
    )
    parser.add_argument("--images", type=int, default=240, help="photographs per run (default 240)")
    parser.add_argument(
        "--storm-seconds", type=float, default=60.0, help="length of the storm of 503 (default 60)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
