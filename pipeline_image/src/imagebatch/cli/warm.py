"""A process that has imported what the stages need, and becomes a stage by a fork for whoever asks.

Importing is most of what a small stage costs: Great Expectations takes seconds. `imagebatch --keep-warm
SOCKET SECONDS` imports once and listens on a socket that this user alone can reach. It is asked like this:

    asks (the process operator)            here                         the fork
      connect ────────────────────────────► accept, fork ─────────────► leads a process group
      ◄─────────────────────────────────────────────────────────────── its process id
      arguments, variables, folder, stdout and stderr ────────────────► becomes `imagebatch ARGUMENTS`
      ◄──────────────────────────────────── its exit code, negative after a signal

A fork that is sent nothing does nothing. Whoever asks takes an end of the connection without a process id as
"start it yourself", and without an exit code as a stage that was killed. Code that has changed on the disk is
not served any more. After SECONDS without a stage the process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from imagebatch.errors import ExitCode, UsageError

__all__ = ["keep_warm"]

NUMBER = struct.Struct("!q")  # a process id, an exit code, a length
_MODULES = (
    "imagebatch.stages.preprocess",
    "imagebatch.stages.score",
    "imagebatch.stages.postprocess",
    "imagebatch.stages.report.stage",
    "imagebatch.stages.check.suites",
    "imagebatch.stages.check.validation",
)
_ASKING = 10.0  # seconds that a fork waits for what it shall do
_PEER = struct.Struct("3i")  # process, user, group


def keep_warm(arguments: list[str], run: Callable[[], None]) -> None:
    """Import, and fork a stage for each connection, until there was none for a while.

    Args:
        arguments: Path of the socket, in a folder that is this user's alone; seconds without a stage after
            which to end.
        run: Becomes the command of `sys.argv` in a fork; does not return.

    Raises:
        UsageError: The arguments are not these two, or the folder can be reached by others.
    """
    try:
        path, seconds = Path(arguments[0]), float(arguments[1])
    except (IndexError, ValueError):
        raise UsageError("--keep-warm takes a socket's path and seconds") from None
    try:
        folder = path.parent.stat()
    except OSError as error:
        raise UsageError(f"--keep-warm {path}: {error.strerror}") from error
    if folder.st_uid != os.geteuid() or folder.st_mode & 0o077:
        raise UsageError(f"--keep-warm {path}: its folder must be this user's, with mode 700")
    with Path(f"{path}.lock").open("w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another one listens there
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(64)
            try:
                warm = _Warm(listener, run)
                if _threads() == 1:
                    warm.serve(seconds)
            finally:
                path.unlink(missing_ok=True)


class _Warm:
    """The listening process. It serves with one thread only, so that a fork finds no lock held."""

    def __init__(self, listener: socket.socket, run: Callable[[], None]) -> None:
        self._listener = listener
        self._run = run
        self._events = selectors.DefaultSelector()
        self._stages: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: process id, who asked
        for name in _MODULES:
            with contextlib.suppress(Exception):  # what is wrong is told by the stage that needs it
                importlib.import_module(name)
        self._code = _code()
        gc.collect()
        gc.freeze()  # a fork's collections do not copy the pages of what was imported

    def serve(self, seconds: float) -> None:
        self._events.register(self._listener, selectors.EVENT_READ)
        listening, idle_since = True, time.monotonic()
        while listening or self._stages:
            left = None if self._stages else max(0.0, idle_since + seconds - time.monotonic())
            ready = self._events.select(left)
            if not ready and not self._stages:
                return
            for key, _ in ready:
                if key.fd in self._stages:
                    self._ended(key.fd)
                elif listening:
                    listening = self._asked()
                    if not listening:
                        self._events.unregister(self._listener)
                        self._listener.close()
            idle_since = time.monotonic()

    def _asked(self) -> bool:
        """Fork for one connection; return whether to go on listening."""
        connection, _ = self._listener.accept()
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        if _PEER.unpack(peer)[1] != os.geteuid():
            connection.close()
            return True
        if _code() != self._code:
            connection.close()
            return False
        process = os.fork()
        if process == 0:
            self._become(connection)
        descriptor = os.pidfd_open(process)
        self._stages[descriptor] = process, connection
        self._events.register(descriptor, selectors.EVENT_READ)
        return True

    def _ended(self, descriptor: int) -> None:
        process, connection = self._stages.pop(descriptor)
        self._events.unregister(descriptor)
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with connection, contextlib.suppress(OSError):  # whoever asked may be gone
            connection.sendall(NUMBER.pack(code))

    def _become(self, connection: socket.socket) -> NoReturn:
        """Be the stage, in the fork. Nothing of the listening process stays open in it."""
        try:
            os.setpgid(0, 0)
            self._events.close()
            self._listener.close()
            for descriptor, (_, other) in self._stages.items():
                os.close(descriptor)
                other.close()
            connection.settimeout(_ASKING)
            connection.sendall(NUMBER.pack(os.getpid()))
            asked = _received(connection)
            connection.close()
            if asked:
                os.chdir(asked["folder"])
                os.umask(asked["umask"])
                os.environ.clear()
                os.environ.update(asked["variables"])
                # Great Expectations was told so by its import; a process that the stage starts is, too.
                os.environ["GX_ANALYTICS_ENABLED"] = "False"
                sys.argv = [sys.argv[0], *asked["arguments"]]
                signal.signal(signal.SIGINT, signal.default_int_handler)
                self._run()
        except SystemExit as end:  # --version and --help
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        finally:
            os._exit(int(ExitCode.UNFORESEEN))


def _received(connection: socket.socket) -> dict[str, Any] | None:
    """Take what is asked, and its output streams in place of this process's; None: nothing is."""
    try:
        start, streams, _, _ = socket.recv_fds(connection, NUMBER.size, 2)
        if len(start) != NUMBER.size or len(streams) != 2:  # noqa: PLR2004 (stdout and stderr)
            return None
        left, parts = NUMBER.unpack(start)[0], []
        while left:
            part = connection.recv(left)
            if not part:
                return None
            parts.append(part)
            left -= len(part)
    except OSError:
        return None
    for own, stream in enumerate(streams, start=1):
        os.dup2(stream, own)
        os.close(stream)
    asked: dict[str, Any] = json.loads(b"".join(parts))
    return asked


def _threads() -> int:
    """Count this process's threads: beside a second one, a fork may find a lock held for ever."""
    return len(list(Path("/proc/self/task").iterdir()))


def _code() -> tuple[float, ...]:
    """Tell whether code has changed: when its files were, and what is installed."""
    own = Path(__file__).parent.parent
    places = [Path(sysconfig.get_path("purelib")), *own.rglob("*.py"), *own.rglob("*.j2")]
    return tuple(place.stat().st_mtime for place in sorted(places) if place.exists())
