"""Processes that the scenarios start: each leads a group of its own, and none outlives the run."""

import contextlib
import os
import signal
import subprocess
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

    Attributes:
        log: The file of its standard error.
    """

    def __init__(
        self, argv: list[str], *, environment: Mapping[str, str], log: Path, folder: Path | None = None
    ) -> None:
        self.log = log
        self._gone = False
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
        if self._process.returncode is None and self._process.poll() is not None:
            self._note_end()
        return self._process.returncode is None

    @property
    def memory(self) -> float:
        """What all processes of its session take now: proportional set size in MB (10^6 bytes)."""
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == self._process.pid:
                    found = (folder / "smaps_rollup").read_text().partition("\nPss:")[2].split()
                    total += int(found[0]) * 1024
        return total / 1e6

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float = 240.0) -> int:
        """Waits for its end; returns its exit code, negative for a signal.

        Raises:
            TimeoutError: It has not ended; it is killed.
        """
        if not self.running:
            return int(self._process.returncode)
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"not done after {seconds:.0f} s: {last_line(self.err)}") from None
        self._note_end()
        return code

    def signal(self, number: int) -> None:
        """Signals the whole group."""
        if not self._gone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kills the group (SIGKILL) and waits for its leader."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._gone = True

    def _note_end(self) -> None:
        # An empty group's number may soon be a stranger's.
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            self._gone = True


def end_all(logs: Path | None = None) -> None:
    """Kills every group that was started, also where only the leader has ended.

    Args:
        logs: Only those that log into this folder.
    """
    for child in [child for child in _STARTED if logs in {None, child.log.parent}]:
        _STARTED.remove(child)
        child.kill()


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "(nothing was said)")
