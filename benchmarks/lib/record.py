"""Measurements, a line of JSON each, so that rounds may be taken one by one; whether answers are right."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarks.lib.contestants import Contestant
from benchmarks.lib.race import Answers, Measurement
from tools.paths import say

AGREEMENT = 0.99  # eager torch and Pillow make other pixels: fewer equal classes than this is another model


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


class Record:
    """The measurements of one data set.

    Args:
        path: A file that grows by a line per measurement.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._race = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def forget(self) -> None:
        """Throw all measurements away."""
        self._path.unlink(missing_ok=True)

    def entries(self) -> list[dict[str, Any]]:
        """All measurements, in the order in which they were made.

        Raises:
            SystemExit: There are none.
        """
        if not self._path.exists():
            raise SystemExit(f"no measurements in {self._path}")
        return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]

    def add(self, contestant: Contestant, number: int, found: Measurement, agreement: float) -> None:
        """Print a measurement and add it."""
        rate, each = found.images / found.seconds, 1000 * found.cpu / found.images
        say(
            f"round {number}  {contestant.name:<18}{rate:7.1f} images/s {each:7.2f} CPU-ms an image"
            f" {found.cpu / found.seconds:5.2f} cores  start {found.startup:5.1f} s  agrees {agreement:.2%}"
        )
        entry: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "race": self._race,
            "round": number,
            "name": contestant.name,
            "images": found.images,
            "seconds": round(found.seconds, 3),
            "cpu": round(found.cpu, 2),
            "startup": round(found.startup, 2),
            "agreement": round(agreement, 5),
        }
        with self._path.open("a", encoding="utf-8") as record:
            record.write(json.dumps(entry) + "\n")
