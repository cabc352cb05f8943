"""Images per second, and the CPU time that an image costs the whole machine."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
# user, nice, system, irq, softirq of the first line of /proc/stat (proc(5)): not idle, iowait, steal.
_BUSY = (1, 2, 3, 6, 7)


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement.

    Attributes:
        rate: Images per second of wall time.
        cpu: CPU milliseconds per image, of everything that ran on this machine meanwhile.
    """

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Figure:
    """Several measurements of one thing.

    Attributes:
        rate: Median, images per second.
        lowest: Images per second.
        highest: Images per second.
        cpu: Median, CPU milliseconds per image.
    """

    rate: float
    lowest: float
    highest: float
    cpu: float

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> Figure:
        """Make a figure out of at least one reading: median and range."""
        rates = [reading.rate for reading in readings]
        cpu = statistics.median(reading.cpu for reading in readings)
        return cls(statistics.median(rates), min(rates), max(rates), cpu)

    @property
    def spread(self) -> float:
        """Half the range, as a share of the median."""
        return (self.highest - self.lowest) / 2 / self.rate if self.rate else 0.0

    def as_json(self) -> dict[str, float]:
        """Return the figure as JSON, short enough for a command's last line."""
        found = {"median": self.rate, "lowest": self.lowest, "highest": self.highest, "cpu_ms": self.cpu}
        return {name: round(value, 2) for name, value in found.items()}


class Clock:
    """Wall and CPU time since it was made."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._cpu = machine_cpu_seconds()

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.perf_counter() - self._begun

    def reading(self, images: int, *, rate: float | None = None) -> Reading:
        """Return the measurement of `images` done since; `rate` replaces images / seconds if it is given."""
        busy = 1000 * (machine_cpu_seconds() - self._cpu) / max(1, images)
        return Reading(images / self.seconds if rate is None else rate, busy)


def machine_cpu_seconds() -> float:
    """Return the CPU seconds that the machine has spent; if unknown, those of this process and its children.

    The server's processes are not this command's children, so only the machine's own count holds them.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = _STAT.read_text("ascii").partition("\n")[0].split()
        return sum(int(fields[index]) for index in _BUSY) / os.sysconf("SC_CLK_TCK")
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
