"""Processes that the scenarios start: each leads a group of its own, and none outlives the run."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

_STARTED: list["Child"] = []


class Child:
    """A process with its output in two files.

    Args:
        argv: Program and arguments.
        environment: All its variables.
        log: Its standard error goes to this file, its standard output to the same name with `.out`.
        folder: Where it runs; default: here.
    """

    def __init__(
        self, argv: list[str], *, environment: Mapping[str, str], log: Path, folder: Path | None = None
    ) -> None:
        self._log = log
        self._begun = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as err, log.with_suffix(".out").open("wb") as out:
            self._process = subprocess.Popen(
                argv,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        _STARTED.append(self)

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self._log.read_text(errors="replace")

    def wait(self, seconds: float = 240.0) -> int:
        """Waits for its end; returns its exit code, negative for a signal.

        Raises:
            TimeoutError: It has not ended; it is killed.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"not done after {seconds:.0f} s: {last_line(self.err)}") from None

    def signal(self, number: int) -> None:
        """Signals the whole group."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """Kills the group (SIGKILL) and waits for its leader."""
        self.signal(signal.SIGKILL)
        self._process.wait()


def end_all() -> None:
    """Kills every group that was started, also where only the leader has ended."""
    while _STARTED:
        _STARTED.pop().kill()


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "(nothing was said)")
