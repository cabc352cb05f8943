"""A real TorchServe that may be given further archives, stopped and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.handler_archives import write_archive
from tools.torchserve import TorchServe

MODEL = "solar-cells"
PATIENCE = 300.0  # seconds until a server has its workers


def pack(store: Path, version: str, **kind: Any) -> Path:
    """Puts a small archive of a version into a model store."""
    store.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = store.parent / f"pack-{version}"
        folder.mkdir()
        stack.callback(shutil.rmtree, folder)
        made = write_archive(folder, version=version, **kind)
        return Path(shutil.move(made, store / made.name))


@dataclass
class Running:
    """A server with the archives of its store, one worker each."""

    server: TorchServe
    process: subprocess.Popen[bytes]
    model: str = MODEL

    def restart(self) -> None:
        """Ends it as a power cut would, and starts it with what lies in its store now."""
        self.kill()
        self.server.configure()
        self.process = _start(self.server)
        self.wait_until_ready()

    def kill(self) -> None:
        """Kills the server and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        (self.server.temporary / ".model_server.pid").unlink(missing_ok=True)
        self.server.key_file.unlink(missing_ok=True)

    def wait_until_ready(self) -> None:
        """Waits until the default version's workers are ready; where nothing is served, for the server."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if not self.server.manage("/models")["models"] and not list(self.server.store.glob("*.mar")):
                    return
                workers = self.server.workers(self.model)
                if workers and all(worker["status"] == "READY" for worker in workers):
                    return
            time.sleep(0.1)
        said = (self.server.folder / "output.log").read_text()[-3000:]
        raise AssertionError(f"TorchServe did not start:\n{said}")

    def versions(self) -> dict[str, bool]:
        """The registered versions, and whether each is the default."""
        default = self.server.manage(f"/models/{self.model}")[0]["modelVersion"]
        found = self.server.manage(f"/models/{self.model}/all")
        return {one["modelVersion"]: one["modelVersion"] == default for one in found}

    def environment(self) -> dict[str, str]:
        """The variables that let `imagebatch` in."""
        return {
            "IMAGEBATCH_API_URL": self.server.inference,
            "IMAGEBATCH_MANAGEMENT_URL": self.server.management,
            "IMAGEBATCH_KEY_FILE": str(self.server.key_file),
        }


def _start(server: TorchServe) -> subprocess.Popen[bytes]:
    with (server.folder / "output.log").open("ab") as log:
        return subprocess.Popen(
            server.argv,
            cwd=server.folder,
            env=os.environ | server.environment() | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextlib.contextmanager
def serving(folder: Path, store: Path, model: str = MODEL) -> Iterator[Running]:
    """Serves what lies in a store, until the block ends."""
    server = TorchServe(folder, store, {"load_models": "all", "default_workers_per_model": 1})
    server.configure()
    running = Running(server, _start(server), model)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.kill()
