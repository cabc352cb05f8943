"""Wall time beside the CPU time of everything that belongs to one measurement: client, server, workers.

All processes of a measurement inherit `PEER_MARK`, whatever session or group they put themselves into; that
is how they are found, and counted, in /proc. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "PEER_MARK"
_TICK = os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Runs from its making to `read`."""

    def __init__(self) -> None:
        self._mark = os.environ[MARK]
        self._cpu, self._begun = cpu_seconds(self._mark), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Wall seconds and CPU-seconds so far."""
        seconds = time.perf_counter() - self._begun
        return {"seconds": seconds, "cpu": cpu_seconds(self._mark) - self._cpu}


def cpu_seconds(mark: str) -> float:
    """User and system time of all marked processes, and of their children that have ended."""
    return sum(_spent(pid) for pid in marked(mark))


def marked(mark: str) -> Iterator[int]:
    """Return the processes that were started with this mark."""
    wanted = f"{MARK}={mark}".encode()
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is wanted
        if name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                    yield int(name)


def _spent(pid: int) -> float:
    with contextlib.suppress(OSError):
        # The command's name stands in parentheses and may contain anything, also parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICK
    return 0.0
