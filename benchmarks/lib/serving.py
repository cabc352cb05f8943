"""A TorchServe as shipped, both workers ready, and the variables that lead `imagebatch` to it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lib.model import MODEL
from benchmarks.lib.servers import WORKERS, started, wait_for_workers
from benchmarks.peers.stopwatch import MARK, cpu_seconds
from tools.paths import program
from tools.torchserve import TorchServe


@dataclass(frozen=True)
class Served:
    """A running server: seconds until it was ready, and the variables of a command that asks it."""

    startup: float
    variables: dict[str, str]


@contextmanager
def served(store: Path, folder: Path, variables: Mapping[str, str]) -> Iterator[Served]:
    """Serve the archive for as long as the block runs.

    Args:
        store: Model store with the archive in it.
        folder: For the server's files and log.
        variables: Marked, see `stopwatch`.
    """
    models = {"load_models": MODEL.archive.name, "default_workers_per_model": WORKERS}
    server = TorchServe(folder / "server", store, models)
    server.configure()
    api = {
        "IMAGEBATCH_API_URL": server.inference,
        "IMAGEBATCH_MANAGEMENT_URL": server.management,
        "IMAGEBATCH_KEY_FILE": str(server.key_file),
        "IMAGEBATCH_RUNS_URI": str(folder / "runs"),
        "IMAGEBATCH_LOG_LEVEL": "error",
    }
    with started(server.argv, {**variables, **server.environment()}, server.folder, folder) as begun:
        yield Served(wait_for_workers(server, begun, folder), {**variables, **api})


def command(
    variables: Mapping[str, str], *arguments: object, executable: Path | None = None
) -> dict[str, Any]:
    """Run one command of `imagebatch`; give its last line, with wall and CPU seconds and its peak memory.

    Args:
        variables: Its environment.
        arguments: After the program's name.
        executable: Another checkout's `imagebatch`; this one's if not given.

    Raises:
        SystemExit: It failed; it has said why.
    """
    argv = [str(executable or program("pipeline_image", "imagebatch")), *map(str, arguments)]
    cpu, begun = cpu_seconds(variables[MARK]), time.monotonic()
    process = subprocess.Popen(argv, env=dict(variables), stdout=subprocess.PIPE)  # noqa: S603 - a list built here
    output = process.stdout.read() if process.stdout else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    server = cpu_seconds(variables[MARK]) - cpu  # the command itself has ended: the kernel told its share
    return json.loads(output.splitlines()[-1]) | {
        "seconds": time.monotonic() - begun,
        "cpu": server + usage.ru_utime + usage.ru_stime,
        "peak_mb": _megabytes(usage),
    }


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / 1024
