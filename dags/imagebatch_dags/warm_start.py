"""Start a stage from a process that has imported everything already, or plainly where there is none.

Importing is most of what a stage of a small run costs. `imagebatch --keep-warm` (imagebatch.cli.warm, where
the conversation is drawn) imports once and forks. The first stage starts it, beside itself, and the
stages after it find it; it ends by itself when none has come for a while. Whatever is wrong with it, the
stage is started plainly instead.
"""

import contextlib
import hashlib
import json
import os
import socket
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Protocol

NUMBER = struct.Struct("!q")  # a process id, an exit code, a length
READY = 5.0  # seconds to wait for a process id: as long as importing everything takes, and some
KILLED = -9
# What forks has one thread: OpenBLAS would start some, and Arrow's allocator one that gives memory back.
ONE_THREAD = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


class Started(Protocol):
    """What `subprocess.Popen` offers of a stage that was started."""

    @property
    def pid(self) -> int:
        """Its process id, and its group's."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Its standard output."""

    @property
    def stderr(self) -> IO[bytes] | None:
        """Its standard error."""

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit code; `subprocess.TimeoutExpired` after so many seconds."""


def start(arguments: list[str], environment: dict[str, str], warm_seconds: float = 0) -> Started:
    """Start a stage as the leader of a process group.

    Args:
        arguments: the executable and its arguments; no shell sees them.
        environment: all of its variables.
        warm_seconds: how long a process that is warm may wait for the next stage; 0: there is none.

    Returns:
        The stage, its output to be read from pipes.
    """
    if warm_seconds > 0 and hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            path = socket_of(arguments[0], environment)
            if stage := _forked(path, arguments[1:], environment):
                return stage
            _keep_warm(arguments[0], environment, path, warm_seconds)
    return subprocess.Popen(  # noqa: S603 - a list of templated arguments, no shell
        arguments,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A group of its own is stopped as a whole; the session stays Airflow's, so that whoever
        # stops Airflow finds this process too.
        process_group=0,
    )


class Forked:
    """A stage that a warm process has become; its exit code comes from that one.

    Args:
        connection: on which the exit code arrives.
        pid: of the stage.
        stdout: the end of its pipe to read from.
        stderr: the same of its standard error.
    """

    def __init__(self, connection: socket.socket, pid: int, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.stdout: IO[bytes] = os.fdopen(stdout, "rb")
        self.stderr: IO[bytes] = os.fdopen(stderr, "rb")
        self._connection = connection
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit code; -9 where the warm process was killed, and nobody else can know it.

        Raises:
            TimeoutExpired: it still runs.
        """
        if self._code is None:
            self._connection.settimeout(timeout)
            try:
                self._code = _number(self._connection)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("imagebatch", timeout or 0) from None
            except OSError:
                self._code = None
            if self._code is None:
                self._code = KILLED
            self._connection.close()
        return self._code


def _forked(path: Path, arguments: list[str], environment: dict[str, str]) -> Forked | None:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(READY)
    try:
        connection.connect(str(path))
        pid = _number(connection)
    except OSError:
        pid = None
    if pid is None:
        connection.close()
        return None
    asked = {
        "arguments": arguments,
        "variables": environment,
        "folder": os.getcwd(),  # noqa: PTH109 - JSON takes a string
        "umask": _umask(),
    }
    text = json.dumps(asked).encode()
    (stdout, their_stdout), (stderr, their_stderr) = os.pipe(), os.pipe()
    stage = Forked(connection, pid, stdout, stderr)
    try:
        socket.send_fds(connection, [NUMBER.pack(len(text))], [their_stdout, their_stderr])
        connection.sendall(text)
    except OSError:  # it died just now: the exit code will say so
        pass
    finally:
        os.close(their_stdout)
        os.close(their_stderr)
    return stage


def _keep_warm(executable: str, environment: dict[str, str], path: Path, seconds: float) -> None:
    # What is asked of it brings its own settings: it keeps none, and so no secret of a run's.
    own = {name: value for name, value in environment.items() if not name.startswith("IMAGEBATCH_")}
    own |= ONE_THREAD
    nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    # It outlives this task, which therefore keeps no object of it. Session and folder stay Airflow's: by both
    # `make down` finds it.
    os.posix_spawnp(
        executable,
        [executable, "--keep-warm", str(path), str(seconds)],
        own,
        file_actions=nowhere,
        setpgroup=0,
    )


def socket_of(executable: str, environment: dict[str, str]) -> Path:
    """Name the socket of a warm process that was started with the same variables, ours apart.

    Libraries read some variables when they are imported, so another set of them wants another process.

    Raises:
        OSError: there is no folder that is this user's alone.
    """
    folder = Path(tempfile.gettempdir(), f"imagebatch-warm-{os.geteuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077 or folder.is_symlink():
        raise PermissionError(f"{folder} is not this user's alone")
    same = sorted(item for item in environment.items() if not item[0].startswith("IMAGEBATCH_"))
    return folder / hashlib.sha256(json.dumps([executable, same]).encode()).hexdigest()[:32]


def _number(connection: socket.socket) -> int | None:
    """Read one number; None where the connection ends first."""
    got = connection.recv(NUMBER.size, socket.MSG_WAITALL)
    return int(NUMBER.unpack(got)[0]) if len(got) == NUMBER.size else None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
