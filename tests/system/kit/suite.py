"""One way to run scenarios, from the command line to the exit code; a suite adds what is its own."""

import argparse
import shutil
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic

from tests.system.kit.scenario import Kind, choose
from tests.system.kit.table import Table
from tests.system.kit.verdict import R, Verdict, judge
from tools.paths import say

Judge = Callable[[Kind], Verdict[R]]


class Suite(ABC, Generic[Kind, R]):
    """A suite of scenarios.

    Attributes:
        verb: Of the Makefile.
        text: What it does.
        scenarios: All, in the order of its table.
        head: Names of its figures on the terminal.
        goes_on: Whether what comes after a scenario that failed still means something.
        folder: Its files; they are kept where a scenario failed.
    """

    verb: str
    text: str
    scenarios: Sequence[Kind]
    head: str = ""
    goes_on: bool = True
    folder: Path | None = None

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add options of its own."""

    @abstractmethod
    def system(self, asked: argparse.Namespace) -> AbstractContextManager[None]:
        """Start what the scenarios act on, and end it whatever happens."""

    @abstractmethod
    def act(self, scenario: Kind) -> R:
        """Play one scenario."""

    def after(self) -> None:
        """Make ready for the next scenario, after the end of one."""

    def play(self, scenarios: Sequence[Kind], judged: "Judge[Kind, R]") -> list[Verdict[R]]:
        """Play scenarios one after the other."""
        verdicts: list[Verdict[R]] = []
        for one in scenarios:
            verdicts.append(judged(one))
            if verdicts[-1].error and not self.goes_on:
                break
        return verdicts

    def finish(self, verdicts: Sequence[Verdict[R]], *, complete: bool) -> list[str]:
        """Write the page of a complete run.

        Returns:
            What is wrong beside the verdicts.
        """
        del verdicts, complete
        return []

    def stop(self, *_: object) -> None:
        """End on SIGTERM."""
        sys.exit(143)


def run(suite: Suite[Kind, R], argv: list[str]) -> int:
    """Run a suite, or what is chosen of it.

    Args:
        suite: The suite.
        argv: As after the program's name; see `--help`.

    Returns:
        0 if all scenarios passed and nothing else is wrong, 1 if not.
    """
    parser = argparse.ArgumentParser(prog=f"make {suite.verb}", description=suite.text)
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--part", default="", metavar="PARTS", help="scenarios of these parts only")
    parser.add_argument(
        "-k", default="", metavar="NAMES", help="scenarios with such names only: `late or killed`"
    )
    suite.add_options(parser)
    asked = parser.parse_args(argv)
    wanted = choose(suite.scenarios, asked.part, asked.k)
    if asked.list:
        for one in wanted:
            say(f"{one.name:<27} {one.text}")
        return 0
    signal.signal(signal.SIGTERM, suite.stop)
    begun = time.monotonic()
    with suite.system(asked):
        say(f"ready after {time.monotonic() - begun:.0f} s")
        table = Table(len(wanted), suite.head)

        def judged(one: Kind) -> Verdict[R]:
            table.begin(one.name)
            verdict = judge(one, suite.act)
            table.end(verdict)
            suite.after()
            return verdict

        verdicts = suite.play(wanted, judged)
        complaints = suite.finish(verdicts, complete=len(verdicts) == len(suite.scenarios))
    for complaint in complaints:
        say(f"FAILED: {complaint}")
    say(f"{time.monotonic() - begun:.0f} s in all")
    failed = sum(bool(verdict.error) for verdict in verdicts)
    if failed or complaints:
        kept = f"; their files are in {suite.folder}" if suite.folder else ""
        say(f"{failed} of {len(verdicts)} scenarios failed, {len(complaints)} other complaints{kept}")
        return 1
    if suite.folder:
        shutil.rmtree(suite.folder, ignore_errors=True)
    say(f"all {len(verdicts)} scenarios passed")
    return 0
