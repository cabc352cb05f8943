"""A real TorchServe with the shipped configuration, on ports and in folders of its own."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.children import Child, last_line
from tests.support.loopback import ask, free_ports
from tools.local import java
from tools.local.services import base_environment
from tools.paths import ROOT, fail, program

MODEL = "solar-cells"
WORKERS = 2


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
        self._folder = folder
        self._store = store
        self._settings = settings
        self._ports = free_ports(6)
        self.metrics_port = self._ports[2]
        self._starts = 0
        self.inference, self.management = (f"http://127.0.0.1:{port}" for port in self._ports[:2])
        self.key_file = folder / "key_file.json"
        (folder / "tmp").mkdir(parents=True)
        self._write_configuration()
        self.start()

    def start(self) -> None:
        """Starts the process; `wait_until_ready` waits for its model."""
        found = java.find()
        if found is None:
            fail("no Java for TorchServe: run `make setup`")
        self._starts += 1
        temporary = str(self._folder / "tmp")
        flags = ["--ts-config", str(self._folder / "config.properties"), "--model-store", str(self._store)]
        self._process = Child(
            [str(program("handlers", "torchserve")), "--start", "--foreground", "--ncs", *flags],
            environment={
                **base_environment(),
                "PATH": f"{program('handlers', '')}:{found.parent}:{os.environ['PATH']}",
                "JAVA_HOME": str(found.resolve().parent.parent),
                "TMPDIR": temporary,
                "TEMP": temporary,
                "LOG_LOCATION": str(self._folder / "logs"),
                "METRICS_LOCATION": str(self._folder / "logs"),
                "OMP_NUM_THREADS": "1",
            },
            folder=self._folder,
            log=self._folder / f"server-{self._starts}.log",
        )

    def kill(self) -> None:
        """Kills the server and its workers (SIGKILL)."""
        self._process.kill()
        (self._folder / "tmp" / ".model_server.pid").unlink(missing_ok=True)

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
        fail(f"TorchServe did not start: {last_line(self._process.err)}; its files are in {self._folder}", 1)

    def workers(self, version: str = "1.0") -> list[dict[str, Any]]:
        """The model's workers, each with its `pid` and `status`."""
        (found,) = self.manage("GET", f"/models/{MODEL}/{version}")
        workers: list[dict[str, Any]] = found["workers"]
        return workers

    def manage(self, method: str, path: str, **parameters: object) -> Any:
        """Asks the management API."""
        key = json.loads(self.key_file.read_text())["management"]["key"]
        url = f"{self.management}{path}?{urlencode(parameters)}"
        return json.loads(ask(url, method=method, headers={"Authorization": f"Bearer {key}"}))

    def register(self, archive: str) -> None:
        """Loads an archive of the model store, with all its workers."""
        self.manage("POST", "/models", url=archive, initial_workers=WORKERS, synchronous="true")

    def unregister(self, version: str) -> None:
        """Takes a version of the model away."""
        self.manage("DELETE", f"/models/{MODEL}/{version}")

    def _write_configuration(self) -> None:
        lines = (ROOT / "handlers" / "config.properties").read_text().splitlines()
        shipped = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        names = ("inference_address", "management_address", "metrics_address")
        addresses = {name: f"http://127.0.0.1:{port}" for name, port in zip(names, self._ports, strict=False)}
        ports = ("grpc_inference_port", "grpc_management_port", "initial_worker_port")
        own = {
            **addresses,
            **dict(zip(ports, self._ports[3:], strict=True)),
            "model_store": self._store,
            "load_models": f"{MODEL}.mar",
            "allowed_urls": f"file://{self._store}/.*",
            "default_workers_per_model": WORKERS,
            "vmargs": f"{shipped['vmargs']} -Djava.io.tmpdir={self._folder / 'tmp'}",
            **self._settings,
        }
        unknown = own.keys() - shipped.keys()
        if unknown:
            fail(f"handlers/config.properties has no {', '.join(sorted(unknown))}", 1)
        text = "".join(f"{name}={value}\n" for name, value in (shipped | own).items())
        (self._folder / "config.properties").write_text(text)
