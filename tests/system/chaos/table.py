"""The table of a chaos run: live on the terminal, and as docs/reference/reliability.md."""

import math
import os
import sys
import threading
import time
from dataclasses import dataclass

from tests.system.chaos.scenario import Result, Scenario
from tools.paths import ROOT, say

PAGE = ROOT / "docs" / "reference" / "reliability.md"


@dataclass(frozen=True)
class Outcome:
    """How one scenario ended; `error` is empty if it passed."""

    scenario: Scenario
    result: Result | None
    error: str
    seconds: float


class Table:
    """Prints one line per scenario as it ends, and what is under way on a terminal.

    Args:
        count: Scenarios to come.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._number = 0
        self._moving = sys.stdout.isatty()
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None
        say(
            f"{'':8}{'scenario':<28}{'images':>7}{'lost':>6}{'doubled':>8}{'extra s':>9}{'took s':>8}  result"
        )

    def begin(self, scenario: Scenario) -> None:
        """Shows a scenario as under way."""
        self._number += 1
        if self._moving:
            self._ended.clear()
            self._ticker = threading.Thread(target=self._tick, args=(scenario.name,), daemon=True)
            self._ticker.start()

    def end(self, outcome: Outcome) -> None:
        """Prints a scenario's line."""
        if self._ticker:
            self._ended.set()
            self._ticker.join()
            sys.stdout.write("\r\x1b[K")
        say(f"{self._place():8}{line_of(outcome)}")

    def _tick(self, name: str) -> None:
        begun = time.monotonic()
        while not self._ended.wait(0.5):
            sys.stdout.write(f"\r\x1b[K{self._place():8}{name:<28}{time.monotonic() - begun:6.0f} s …")
            sys.stdout.flush()

    def _place(self) -> str:
        return f"[{self._number}/{self._count}]"


def line_of(outcome: Outcome) -> str:
    """A scenario's line on the terminal."""
    result = outcome.result
    if result is None:
        return f"{outcome.scenario.name:<28}{'':30}{outcome.seconds:8.1f}  FAILED: {outcome.error}"
    counts = f"{result.images:>7}{result.lost:>6}{result.doubled:>8}{_seconds(result):>9}"
    return f"{outcome.scenario.name:<28}{counts}{outcome.seconds:8.1f}  passed: {result.seen}"


def page(outcomes: list[Outcome], images: int, calm_seconds: float) -> str:
    """The page's text."""
    rows = "".join(_row(outcome) for outcome in outcomes)
    passed = sum(not outcome.error for outcome in outcomes)
    cores = len(os.sched_getaffinity(0))
    minutes = sum(outcome.seconds for outcome in outcomes) / 60
    summary = f"Of {len(outcomes)} scenarios {passed} passed, in {minutes:.0f} minutes on {cores} cores."
    return f"""# What happens to a run when things go wrong

This page is written by `make chaos` (`tests/system/chaos/`), which does each of these things to a run over
{images} photographs of solar cells, with a real TorchServe of its own and, where a request or a reply is to
be spoilt, a proxy in front of it. {summary}

A scenario passes only if every command ended with the exit code that the [protocol](protocol.md) promises,
the certificate balances, `imagebatch verify` proves the run again, and `predictions.csv` is, byte for byte,
that of a run that nobody disturbed (without the row of an image that the scenario made unscorable).

*Lost*: listed, but neither predicted nor reported as failed. *Doubled*: more than one row. *Extra seconds*:
wall time of scoring, with all its restarts and waits, beyond the {calm_seconds:.1f} s of the undisturbed run
(measured once: on a busy machine a few seconds mean nothing).

| scenario | what is done | images | lost | doubled | extra seconds | result |
|---|---|---|---|---|---|---|
{rows}
One scenario: `python3.11 -m tests.system.chaos --only scorer-killed`; `--list` names them all. They need
`make demo` once, for the model and the photographs, and root for the two that mount a small disk.
"""


def write_page(outcomes: list[Outcome], images: int, calm_seconds: float) -> None:
    """Writes docs/reference/reliability.md."""
    PAGE.write_text(page(outcomes, images, calm_seconds))


def _row(outcome: Outcome) -> str:
    result = outcome.result
    if result is None:
        return (
            f"| {outcome.scenario.name} | {outcome.scenario.text} | | | | | failed: {outcome.error[:200]} |\n"
        )
    counts = f"{result.images} | {result.lost} | {result.doubled} | {_seconds(result)}"
    return f"| {outcome.scenario.name} | {outcome.scenario.text} | {counts} | passed: {result.seen} |\n"


def _seconds(result: Result) -> str:
    return "-" if math.isnan(result.extra_seconds) else f"{max(0.0, result.extra_seconds):.1f}"
