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
from typing import Any, Literal

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


class WorkerProcess:
    """One worker. Not safe to use from two threads at once.

    Args:
        program: What it runs.
        timeout: Seconds after which a request is given up and its worker replaced.
    """

    def __init__(self, program: Program, timeout: float) -> None:
        self._program = program
        self._timeout = timeout
        self._description = b""
        self._connection: Connection[Any, bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
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
        with its:
            descriptor = its.fileno()
            program = self._program
            self._process = subprocess.Popen(  # noqa: S603 (this package's own script)
                [sys.executable, "-I", str(program.script), str(descriptor), program.argument, folder],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
            )
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
        self, operation: Operation, images: Sequence[ImagePayload], argument: dict[str, str] | int | str
    ) -> bytes:
        """Return the worker's answer to one request.

        `predict` takes the request's headers, `timed` seconds, `pixels` their form.

        Raises:
            ConfigurationError: What the worker works with cannot be loaded.
            ApiFaultError: The worker died, took too long, or its code raised.
        """
        self.describe()
        try:
            self._require_connection().send(
                (operation, argument, [(image.key, image.data) for image in images])
            )
            body = self._received(self._timeout)
        except (EOFError, OSError) as error:
            raise ApiFaultError(Fault.WORKER_DIED, f"worker died, {_said(self.stop())}") from error
        if body[:1] != b"+":
            raise ApiFaultError(Fault.WORKER_DIED, one_line(body[1:].decode(), 160))
        return body[1:]

    def _received(self, seconds: float) -> bytes:
        connection = self._require_connection()
        if not connection.poll(seconds):
            self.kill()
            raise ApiFaultError(Fault.TIMED_OUT, f"no answer in {seconds:g} s")
        return connection.recv_bytes()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        if self._process is not None:
            self._process.kill()
        self.stop()

    def _require_connection(self) -> Connection[Any, bytes]:
        if self._connection is None:
            msg = "the worker was not started"
            raise OSError(msg)
        return self._connection


def _end(process: subprocess.Popen[bytes], connection: Connection[Any, bytes], folder: str) -> None:
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
