"""How often `imagebatch trends` is right, on simulated histories of 60 nights: docs/how-to/history.md.

    pipeline_image/.venv/bin/python -m benchmarks.cases.trends [--histories 200] [--publish]

Quiet histories, with nights independent of each other and with nights that resemble the one before, where
every sentence is a false one; and histories with a slow-down by a fifth, half as many defective mono cells
more, and a third fewer images at weekends, all three at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
from imagebatch.history.findings import findings

from benchmarks.lib import published
from tests.support.nights import nights
from tools.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "history.md"
ALPHA = 0.002
RESEMBLANCES = (0.0, 0.3, 0.6)
NEAR = 2
MOST = 0.02


@dataclass(frozen=True, slots=True)
class Named:
    """What was said of a history with three things planted: which of them, and how much else."""

    slow: bool
    shift: bool
    weekly: bool
    false: int


def main() -> int:
    """Measures, prints, publishes; exits 1 if of more than 2 % of the quiet histories anything is said."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--histories", type=int, default=200)
    options.add_argument("--publish", action="store_true")
    asked = options.parse_args()
    seeds = range(10_000, 10_000 + asked.histories)
    with multiprocessing.Pool() as pool:
        alarms = {r: sum(pool.map(partial(alarm, resemblance=r), seeds)) for r in RESEMBLANCES}
        planted = {r: pool.map(partial(named, resemblance=r), seeds) for r in RESEMBLANCES}
    lines = table(asked.histories, alarms, planted)
    print(lines)
    if asked.publish:
        counts = {
            str(r): {name: sum(getattr(one, name) for one in found) for name in Named.__slots__}
            for r, found in planted.items()
        }
        kept = {"alpha": ALPHA, "histories": asked.histories, "planted": counts}
        published.keep("trends", kept | {"false_alarms": {str(r): count for r, count in alarms.items()}})
        published.show("trends", lines, PAGE)
    return 0 if alarms[0.0] <= MOST * asked.histories else 1


def alarm(seed: int, resemblance: float) -> bool:
    """Whether anything is said of a quiet history."""
    return bool(findings(nights(seed, resemblance=resemblance), ALPHA)[1])


def named(seed: int, resemblance: float) -> Named:
    """Return what is said of a history with three things planted."""
    slow, shift = (int(night) for night in np.random.default_rng(seed).integers(12, 48, 2))
    texts = [
        one.text
        for one in findings(nights(seed, slow=slow, shift=shift, weekly=0.3, resemblance=resemblance), ALPHA)[
            1
        ]
    ]
    right = {
        "slow": [text for text in texts if _is_of(text, "The throughput fell", slow)],
        "shift": [text for text in texts if _is_of(text, "The share of mono-defective rose", shift)],
        "weekly": [text for text in texts if "number of images is lower on Saturdays and Sundays" in text],
    }
    # More of one class is less of the others, and says so.
    true = {text for found in right.values() for text in found} | {
        text for text in texts if text.startswith("The share of ")
    }
    return Named(**{name: bool(found) for name, found in right.items()}, false=len(set(texts) - true))


def _is_of(text: str, beginning: str, night: int) -> bool:
    found = re.search(r"night-(\d\d)", text)
    return text.startswith(beginning) and found is not None and abs(int(found[1]) - night) <= NEAR


def table(histories: int, alarms: dict[float, int], planted: dict[float, list[Named]]) -> str:
    """Return the table that is published."""
    lines = ["| correlation with the night before | quiet histories with any sentence | slow-down named |"]
    lines[0] += " class shift named | weekend named | other, false sentences |"
    lines.append("|---|---|---|---|---|---|")
    for r, count in alarms.items():
        found = planted[r]
        cells = [f"{r:g}", f"**{count} of {histories}** ({count / histories:.1%})"]
        right = (sum(getattr(one, what) for one in found) for what in ("slow", "shift", "weekly"))
        cells += [f"{number} of {histories}" for number in right]
        cells.append(str(sum(one.false for one in found)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
