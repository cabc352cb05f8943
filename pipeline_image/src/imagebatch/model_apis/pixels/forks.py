"""Workers that are copies of one process, which has loaded torch: seconds for the first, none for the others.

Python's own `forkserver` would load the module that the command was started as into each of them, too.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from multiprocessing.reduction import send_handle

from imagebatch.model_apis.base import ApiFaultError, Fault
from imagebatch.model_apis.local.process import Child, Program, WorkerProcess

_POLL_SECONDS = 0.01
_GONE = -9  # what is said of a copy that cannot be asked about any more


class Original:
    """The process that is copied, started when the first copy is asked for. Safe to use from several threads.

    Args:
        program: What it runs: a script that answers as `worker.py` does.
        timeout: Seconds that it may take to answer once it has loaded.
    """

    def __init__(self, program: Program, timeout: float) -> None:
        self._timeout = timeout
        self._process = WorkerProcess(program, timeout)
        self._asking = threading.Lock()

    def launch(self, program: Program, descriptor: int, folder: str) -> Child:
        """Make a copy that works at a socket; as `imagebatch.model_apis.local.process.launched`.

        Raises:
            ConfigurationError: What the original works with cannot be loaded.
            ApiFaultError: It ended, or does not answer.
        """
        del program, folder  # the original has loaded the one, and the other belongs to nobody
        with self._asking:
            self._process.describe()
            try:
                return _Copy(self, self._process.pid, int(self._asked("copy", descriptor)))
            except (EOFError, OSError) as error:
                self._process.kill()
                raise ApiFaultError(Fault.UNREACHABLE, "what makes workers ended") from error

    def ask(self, what: str, pid: int, parent: int) -> bytes:
        """Ask about a copy; empty: nothing is known of it now.

        Args:
            what: `status`, whose answer is the exit code of a copy that has ended; or `kill`.
            pid: Of the copy.
            parent: Of the original that made it: another one would speak of another process.
        """
        with self._asking:
            if self._process.pid != parent:
                return b"%d" % _GONE
            try:
                return self._asked(what, pid)
            except (EOFError, OSError):
                self._process.kill()  # its copies end with their connections
                return b"%d" % _GONE

    def close(self) -> None:
        """End it. Copies go on until their connections are closed."""
        with self._asking:
            self._process.stop()

    def _asked(self, what: str, number: int) -> bytes:
        connection = self._process.require_connection()
        connection.send((what, number))
        if what == "copy":
            send_handle(connection, number, self._process.pid)  # type: ignore[arg-type,unused-ignore]  # typed for other connections in some releases
        if not connection.poll(self._timeout):
            msg = "no answer"
            raise OSError(msg)
        return connection.recv_bytes()


class _Copy:
    """A copy, as its parent's parent sees it."""

    def __init__(self, original: Original, parent: int, pid: int) -> None:
        self._original, self._parent = original, parent
        self.pid = pid
        self.returncode: int | None = None

    def kill(self) -> None:
        """End it at once."""
        if self.returncode is None:
            self._original.ask("kill", self.pid, self._parent)

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended."""
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            told = self._original.ask("status", self.pid, self._parent)
            if told:
                self.returncode = int(told)
            elif time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"{os.getpid()}'s worker", timeout or 0)
            else:
                time.sleep(_POLL_SECONDS)
        return self.returncode
