"""The table of verdicts: a line for each as it comes, and rows of Markdown for a page."""

import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from tests.system.kit.verdict import Verdict
from tools.paths import say


class Table:
    """Print one line per scenario as it ends, and what is under way on a terminal.

    Args:
        count: Scenarios to come.
        head: Names of the figures.
    """

    def __init__(self, count: int, head: str) -> None:
        self._count = count
        self._head = head
        self._number = 0
        self._under_way: dict[str, float] = {}
        self._lock = threading.Lock()
        say(f"{'':8}{'scenario':<28}{head}{'took s':>8}  result")
        if sys.stdout.isatty():
            threading.Thread(target=self._tick, daemon=True).start()

    def begin(self, name: str) -> None:
        """Show a scenario as under way."""
        with self._lock:
            self._under_way[name] = time.monotonic()

    def end(self, verdict: Verdict[Any]) -> None:
        """Print a scenario's line."""
        with self._lock:
            self._under_way.pop(verdict.scenario.name, None)
            self._number += 1
            clear = "\r\x1b[K" if sys.stdout.isatty() else ""
            say(f"{clear}{f'[{self._number}/{self._count}]':8}{line_of(verdict, len(self._head))}")

    def _tick(self) -> None:
        while self._number < self._count:
            time.sleep(0.5)
            with self._lock:
                now = time.monotonic()
                names = [f"{name} {now - since:.0f} s" for name, since in self._under_way.items()]
                if names:
                    sys.stdout.write(f"\r\x1b[K{'':8}{', '.join(names)[:100]} …")
                    sys.stdout.flush()


def line_of(verdict: Verdict[Any], width: int = 0) -> str:
    """A scenario's line on the terminal, its figures in so many columns."""
    result = verdict.result
    told = f"FAILED: {verdict.error}" if result is None else f"passed: {result.seen}"
    figures = "" if result is None else result.figures
    return f"{verdict.scenario.name:<27} {figures:{width}}{verdict.seconds:8.1f}  {told}"


def head_of(columns: Iterable[str]) -> str:
    """The first two lines of a table in Markdown."""
    names = list(columns)
    return f"{row_of(names)}{'|---' * len(names)}|\n"


def row_of(cells: Iterable[str]) -> str:
    """One row of a table in Markdown."""
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"
