"""Hosts of their own on one machine: a network, a process table and a name each, and wires that can be cut.

A host has nothing but its loopback. On some of its ports answers what listens on the same port of this
machine's loopback, by a wire through a socket file; a wire that is cut delivers nothing and closes nothing,
as a network that drops packets. Needs root, or user namespaces; standard library only.
"""

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread

from tests.support.children import Child
from tools.paths import ROOT

_CHUNK = 65_536
_UP = 0x41  # IFF_UP and IFF_RUNNING
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914  # of an interface, linux/sockios.h
_APART = ("--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")


class Wire:
    """Carries connections from a socket file to a port of this machine.

    Args:
        path: The socket file.
        port: Of this machine's loopback.
    """

    def __init__(self, path: Path, port: int) -> None:
        self._whole = Event()
        self._whole.set()
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(128)
        _serve(server, lambda: socket.create_connection(("127.0.0.1", port)), self._whole)

    def cut(self) -> None:
        """Delivers nothing from now on; connections stay open."""
        self._whole.clear()

    def mend(self) -> None:
        """Delivers again, what has waited first."""
        self._whole.set()


class Host:
    """One host.

    Args:
        name: Its host name.
        folder: An empty folder for its home, temporary files and the wires' ends.
        ports: Ports of this machine that it reaches, under the same numbers of its own loopback.

    Attributes:
        wires: By port.
    """

    def __init__(self, name: str, folder: Path, ports: Sequence[int]) -> None:
        self.name = name
        self.folder = folder
        for own in ("home", "tmp", "wires"):
            (folder / own).mkdir(parents=True)
        self.wires = {port: Wire(folder / "wires" / str(port), port) for port in ports}

    def start(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
        """Starts a program as the only one of the host; killing it kills whatever it has started."""
        inside = [sys.executable, "-m", "tests.support.hosts", self.name, str(self.folder / "wires"), *argv]
        own = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), "PYTHONPATH": str(ROOT)}
        told = {f"INSIDE_{name}": value for name, value in environment.items() if name == "PYTHONPATH"}
        return Child([*apart(), *inside], environment={**environment, **told, **own}, log=log, folder=ROOT)


def apart() -> list[str]:
    """Gives what stands before a command that is to run on a host of its own."""
    program = shutil.which("unshare") or "unshare"
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [program, *as_root, *_APART]


def impossible() -> str:
    """Tells why hosts cannot be made here; empty where they can."""
    try:
        done = subprocess.run([*apart(), "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unshare is not installed (Debian: util-linux)"
    return done.stderr.strip()


def main(name: str, wires: str, *argv: str) -> int:
    """Be the first process of a host: raise its loopback, hold its ends of the wires, run a program."""
    socket.sethostname(name)
    with socket.socket() as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(control, _GET_FLAGS, asked), 16)
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))
    for path in Path(wires).iterdir():
        server = socket.create_server(("127.0.0.1", int(path.name)), backlog=128)
        _serve(server, partial(_connected, path), None)
    environment = dict(os.environ)
    del environment["PYTHONPATH"]
    if (wanted := environment.pop("INSIDE_PYTHONPATH", None)) is not None:
        environment["PYTHONPATH"] = wanted
    child = subprocess.Popen(argv, env=environment)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while True:  # the first process inherits, and buries, the children of all that die
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


def _connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(path))
    return made


def _serve(server: socket.socket, connect: Callable[[], socket.socket], whole: Event | None) -> None:
    def accept() -> None:
        while True:
            near, _ = server.accept()
            Thread(target=join, args=(near,), daemon=True).start()

    def join(near: socket.socket) -> None:
        if whole:
            whole.wait()
        try:
            far = connect()
        except OSError:
            near.close()
            return
        with near, far:
            there = Thread(target=_pump, args=(near, far, whole), daemon=True)
            there.start()
            _pump(far, near, whole)
            there.join()

    Thread(target=accept, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, whole: Event | None) -> None:
    """Carry bytes one way until the end of either; an end is carried, too."""
    with suppress(OSError):
        while content := source.recv(_CHUNK):
            if whole:
                whole.wait()
            target.sendall(content)
    if whole:
        whole.wait()
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        source.shutdown(socket.SHUT_RD)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
