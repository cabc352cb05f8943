"""A real TorchServe with the shipped configuration, on ports and in folders of its own."""

import contextlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.children import Child, last_line
from tools import torchserve
from tools.local.services import base_environment
from tools.paths import fail

MODEL = "solar-cells"
WORKERS = 2
PATIENCE = 150.0  # seconds for a call that waits until a model is loaded


class TorchServe:
    """A server of `solar-cells`, tokens on.

    Args:
        folder: For its configuration, keys, logs and temporary files.
        store: The model store; it serves `solar-cells.mar` and may register the others.
        settings: Lines of `config.properties` that differ from the shipped ones.

    Attributes:
        inference: URL of the inference API.
        management: URL of the management API.
        key_file: Its `key_file.json`.
        metrics_port: Where it exposes its metrics.
    """

    def __init__(self, folder: Path, store: Path, **settings: object) -> None:
        models = {"load_models": f"{MODEL}.mar", "default_workers_per_model": WORKERS}
        self._server = torchserve.TorchServe(folder, store, models | settings)
        self._server.configure()
        self._starts = 0
        self.metrics_port = self._server.ports["metrics"]
        self.inference, self.management = self._server.inference, self._server.management
        self.key_file = self._server.key_file
        self.start()

    def start(self) -> None:
        """Starts the process; `wait_until_ready` waits for its model."""
        self._starts += 1
        folder = self._server.folder
        self._process = Child(
            self._server.argv,
            environment={**base_environment(), **self._server.environment(), "OMP_NUM_THREADS": "1"},
            folder=folder,
            log=folder / f"server-{self._starts}.log",
        )

    def kill(self) -> None:
        """Kills the server and its workers (SIGKILL)."""
        self._process.kill()
        (self._server.temporary / ".model_server.pid").unlink(missing_ok=True)

    def ensure(self) -> None:
        """Starts it again if a failed scenario left it dead."""
        if not self._process.running:
            self.start()
            self.wait_until_ready()

    def wait_until_ready(self, version: str = "1.0", seconds: float = 150.0) -> None:
        """Waits until every worker of the model is ready."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                workers = self.workers(version)
                if workers and all(worker["status"] == "READY" for worker in workers):
                    return
            if not self._process.running:
                break
            time.sleep(0.2)
        said = last_line(self._process.err)
        fail(f"TorchServe did not start: {said}; its files are in {self._server.folder}", 1)

    def workers(self, version: str = "1.0") -> list[dict[str, Any]]:
        """The model's workers, each with its `pid` and `status`."""
        return self._server.workers(f"{MODEL}/{version}")

    def manage(self, method: str, path: str, **parameters: object) -> Any:
        """Asks the management API."""
        return self._server.manage(f"{path}?{urlencode(parameters)}", method, PATIENCE)

    def register(self, archive: str) -> None:
        """Loads an archive of the model store, with all its workers."""
        self.manage("POST", "/models", url=archive, initial_workers=WORKERS, synchronous="true")

    def unregister(self, version: str) -> None:
        """Takes a version of the model away."""
        self.manage("DELETE", f"/models/{MODEL}/{version}")
