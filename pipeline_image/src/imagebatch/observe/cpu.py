"""CPU time of a stage: its own and that of every process that it has started, ended or not."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_PROC = Path("/proc")
# Fields of /proc/PID/stat after the name, from 0: user, system, both of children waited for (proc(5)).
_TIMES = slice(11, 15)


def tree_cpu_seconds() -> float:
    """Return user and system seconds of this process and its descendants, as far as Linux shows them."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + _of_living(os.getpid())


def _of_living(pid: int) -> float:
    """Return the CPU time of child processes that still run: getrusage counts only those that have ended."""
    total = 0.0
    with contextlib.suppress(OSError):
        for thread in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                for child in (thread / "children").read_text().split():
                    total += _of(int(child)) + _of_living(int(child))
    return total


def _of(pid: int) -> float:
    with contextlib.suppress(OSError):
        # The name is in brackets and may hold any character, brackets as well.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[_TIMES])) / os.sysconf("SC_CLK_TCK")
    return 0.0
