"""Servers under measurement: started with a mark, waited for, ended with everything that they started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.lib.contestants import Contestant
from benchmarks.lib.forms import FORMS
from benchmarks.peers.stopwatch import MARK, marked
from tools.torchserve import TorchServe

PATIENCE = 180.0
WORKERS = 2  # of each model of ours


@contextmanager
def started(argv: Sequence[str], variables: Mapping[str, str], where: Path, folder: Path) -> Iterator[float]:
    """Run a server in a folder `where`, its log in `folder`; return the time at which it was started."""
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - a list built here
            argv, cwd=where, env=dict(variables), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    begun = time.monotonic()
    try:
        yield begun
    finally:
        end(variables[MARK])
        process.wait()


def wait(url: str, contestant: Contestant, images: Sequence[Path], begun: float, folder: Path) -> float:
    """Seconds until a server's first answer."""
    headers, body = FORMS[contestant.form].write([images[0].read_bytes()])
    while time.monotonic() - begun < PATIENCE:
        with suppress(OSError, HTTPException):
            urlopen(Request(url, body, headers), timeout=60).read()  # noqa: S310 - loopback
            return time.monotonic() - begun
        time.sleep(0.1)
    raise SystemExit(f"{contestant.name} did not answer in {PATIENCE:.0f} s:\n{tail(folder / 'server.log')}")


def wait_for_workers(
    server: TorchServe, begun: float, folder: Path, models: Sequence[str] = ("solar-cells",)
) -> float:
    """Seconds until all workers of each model of ours are ready."""
    while time.monotonic() - begun < PATIENCE:
        with suppress(OSError, ValueError, KeyError):
            if all(_states(server, model) == ["READY"] * WORKERS for model in models):
                return time.monotonic() - begun
        time.sleep(0.1)
    raise SystemExit(f"TorchServe did not start in {PATIENCE:.0f} s:\n{tail(folder / 'server.log')}")


def _states(server: TorchServe, model: str) -> list[str]:
    return [worker["status"] for worker in server.workers(model)]


def tail(path: Path) -> str:
    """Return the end of a log."""
    return "\n".join(path.read_text("utf-8", errors="replace").splitlines()[-12:])


def end(mark: str) -> None:
    """End everything that was started with a mark."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + patience
        left = list(marked(mark))
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = list(marked(mark))
