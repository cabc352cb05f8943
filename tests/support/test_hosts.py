"""Hosts of their own: a name, a network of wires alone, and an end that takes everything along."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests.support import children
from tests.support.hosts import Host, impossible

ASK = """
import socket, sys
print(socket.gethostname(), flush=True)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as asked:
    asked.sendall(b"hello")
    asked.shutdown(socket.SHUT_WR)
    print(asked.makefile().read())
"""
SPAWN = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
pytestmark = pytest.mark.skipif(bool(impossible()), reason=f"no hosts here: {impossible()}")


@pytest.fixture
def echo() -> Iterator[int]:
    """A server of this machine that gives back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    while content := connection.recv(100):
                        connection.sendall(content)

        Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def host(tmp_path: Path, echo: int) -> Iterator[Host]:
    yield Host("worker-a", tmp_path / "host", [echo])
    children.end_all(tmp_path / "logs")


def _ask(host: Host, port: int, folder: Path) -> children.Child:
    argv = [sys.executable, "-c", ASK, str(port)]
    return host.start(argv, {"PATH": os.environ["PATH"]}, folder / "logs" / "ask.log")


def test_a_host_has_a_name_and_reaches_what_it_is_wired_to(host: Host, echo: int, tmp_path: Path) -> None:
    """A port of this machine answers under its number; another one, that listens here, does not."""
    asked = _ask(host, echo, tmp_path)
    assert asked.wait(30) == 0, asked.err
    assert asked.log.with_suffix(".out").read_text() == "worker-a\nhello\n"
    with socket.create_server(("127.0.0.1", 0)) as other:
        asked = _ask(host, int(other.getsockname()[1]), tmp_path)
        assert asked.wait(30) == 1
    assert "refused" in asked.err


def test_a_cut_wire_delivers_nothing_until_it_is_mended(host: Host, echo: int, tmp_path: Path) -> None:
    """Nothing is refused and nothing lost: the answer comes when the wire is whole again."""
    host.wires[echo].cut()
    asked = _ask(host, echo, tmp_path)
    told = asked.log.with_suffix(".out")
    while not told.read_text():
        time.sleep(0.02)
    time.sleep(0.3)
    assert (asked.running, told.read_text()) == (True, "worker-a\n")
    host.wires[echo].mend()
    assert asked.wait(30) == 0, asked.err
    assert told.read_text() == "worker-a\nhello\n"


def test_a_killed_host_takes_along_what_it_has_started(host: Host, tmp_path: Path) -> None:
    """As a machine that loses its power: also a process in a session of its own is gone."""
    argv = [sys.executable, "-c", SPAWN.replace("600'])", "600'], start_new_session=True)")]
    running = host.start(argv, {"PATH": os.environ["PATH"]}, tmp_path / "logs" / "spawn.log")
    while not running.log.with_suffix(".out").read_text():
        time.sleep(0.02)
    assert running.memory > 0
    running.kill()
    deadline = time.monotonic() + 10
    while _alive(host):  # the kernel ends them one after the other
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(host: Host) -> list[Path]:
    mark = str(host.folder).encode()
    return [path for path in Path("/proc").glob("[0-9]*/environ") if mark in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
