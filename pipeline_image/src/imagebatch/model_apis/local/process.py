"""A worker process, seen from its parent: the local backend's, and those that make pixels."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

from imagebatch.errors import ConfigurationError, one_line
from imagebatch.model_apis.base import ApiFaultError, Fault, ImagePayload

Operation = Literal["predict", "timed", "pixels"]

# Importing torch and compiling the model on a machine whose every core is busy.
_LOADING_SECONDS = 300.0
_ENDING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Program:
    """What a worker runs.

    Attributes:
        script: A Python file; it is given a descriptor of its socket, `argument`, and an empty folder.
        argument: What it works with.
        refusal: Makes what a person is told when it cannot, out of the worker's own words.
    """

    script: Path
    argument: str
    refusal: Callable[[str], str]


class Child(Protocol):
    """A process of ours, as `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None as long as nobody has waited for its end."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not, in that many seconds.
        """


Launch = Callable[[Program, int, str], Child]
"""Starts a program's process with a descriptor of its socket and an empty folder."""


def launched(program: Program, descriptor: int, folder: str) -> Child:
    """Start a program's process."""
    return subprocess.Popen(  # noqa: S603 (this package's own script)
        [sys.executable, "-I", str(program.script), str(descriptor), program.argument, folder],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
    )


class WorkerProcess:
    """One worker. Not safe to use from two threads at once.

    Args:
        program: What it runs.
        timeout: Seconds after which a request is given up and its worker replaced.
        launch: How its process is started.
    """

    def __init__(self, program: Program, timeout: float, launch: Launch = launched) -> None:
        self._program = program
        self._timeout = timeout
        self._launch = launch
        self._description = b""
        self._connection: Connection[Any, bytes] | None = None
        self._process: Child | None = None
        self._end: Any = None

    @property
    def pid(self) -> int:
        """Process id; 0 while there is no process."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the process, unless there is one; return while it is still loading."""
        if self._process is not None:
            return
        folder = tempfile.mkdtemp(prefix="imagebatch-local-")
        mine, its = socket.socketpair()
        try:
            with its:
                self._process = self._launch(self._program, its.fileno(), folder)
        except BaseException:
            mine.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._connection = Connection(mine.detach())
        self._description = b""
        self._end = weakref.finalize(self, _end, self._process, self._connection, folder)

    def stop(self) -> int | None:
        """End the process, if there is one; return its exit code, negative for a signal."""
        process, self._process = self._process, None
        if process is None:
            return None
        self._end()
        return process.returncode

    def describe(self) -> bytes:
        """Return what the worker said when it had loaded what it works with.

        Raises:
            ConfigurationError: It cannot be loaded.
            ApiFaultError: The worker ended while loading.
        """
        self.start()
        if not self._description:
            try:
                body = self._received(_LOADING_SECONDS)
            except (EOFError, OSError) as error:
                raise ApiFaultError(
                    Fault.UNREACHABLE, f"a worker ended while loading, {_said(self.stop())}"
                ) from error
            if body[:1] != b"+":
                self.stop()
                raise ConfigurationError(self._program.refusal(one_line(body[1:].decode(), 300)))
            self._description = body[1:]
        return self._description

    def ask(
        self, operation: Operation, images: Sequence[ImagePayload], argument: dict[str, Any] | int
    ) -> bytes:
        """Return the worker's answer to one request.

        `predict` takes the request's headers, `timed` seconds, `pixels` their form and where to leave them.

        Raises:
            ConfigurationError: What the worker works with cannot be loaded.
            ApiFaultError: The worker died, took too long, or its code raised.
        """
        self.describe()
        try:
            self.require_connection().send(
                (operation, argument, [(image.key, image.data) for image in images])
            )
            body = self._received(self._timeout)
        except (EOFError, OSError) as error:
            raise ApiFaultError(Fault.WORKER_DIED, f"worker died, {_said(self.stop())}") from error
        if body[:1] != b"+":
            raise ApiFaultError(Fault.WORKER_DIED, one_line(body[1:].decode(), 160))
        return body[1:]

    def _received(self, seconds: float) -> bytes:
        connection = self.require_connection()
        if not connection.poll(seconds):
            self.kill()
            raise ApiFaultError(Fault.TIMED_OUT, f"no answer in {seconds:g} s")
        return connection.recv_bytes()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        if self._process is not None:
            self._process.kill()
        self.stop()

    def require_connection(self) -> Connection[Any, bytes]:
        """Return this end of the worker's socket.

        Raises:
            OSError: There is no worker.
        """
        if self._connection is None:
            msg = "the worker was not started"
            raise OSError(msg)
        return self._connection


def _end(process: Child, connection: Connection[Any, bytes], folder: str) -> None:
    with contextlib.suppress(OSError):
        connection.close()
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)  # of a worker that could not do it any more


def _said(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
