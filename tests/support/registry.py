"""A real MLflow server on loopback, with released versions of a model in its registry."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tools.loopback import free_ports
from tools.paths import program

PATIENCE = 300.0  # seconds until a server answers, where the cores are shared


@dataclass(frozen=True)
class MLflowServer:
    """Its address, and what a release does to its registry."""

    url: str

    def ask(self, method: str, path: str, **body: object) -> Any:
        """Asks the REST API."""
        sent = {"params": body} if method == "GET" else {"json": body}
        reply = requests.request(method, f"{self.url}/api/2.0/mlflow/{path}", timeout=30, **sent)
        reply.raise_for_status()
        return reply.json()

    def release(self, model: str, version: str, digest: str) -> str:
        """Registers a version as `imagebatch-train release` does; returns the registry's number."""
        with contextlib.suppress(requests.HTTPError):
            self.ask("POST", "registered-models/create", name=model)
        run = self.ask("POST", "runs/create", experiment_id="0")["run"]["info"]
        tags = [
            {"key": "imagebatch.version", "value": version},
            {"key": "imagebatch.digest", "value": digest},
        ]
        source = f"{run['artifact_uri']}/model"
        made = self.ask(
            "POST", "model-versions/create", name=model, source=source, run_id=run["run_id"], tags=tags
        )
        return str(made["model_version"]["version"])

    def alias(self, model: str, alias: str, number: str) -> None:
        """Moves an alias."""
        self.ask("POST", "registered-models/alias", name=model, alias=alias, version=number)

    def named(self, model: str, alias: str) -> str:
        """The number that an alias names."""
        found = self.ask("GET", "registered-models/alias", name=model, alias=alias)
        return str(found["model_version"]["version"])


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[MLflowServer]:
    """Serves an empty registry until the block ends."""
    (port,) = free_ports(1)
    argv = [str(program("training", "mlflow")), "server", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"]
    argv += ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=os.environ | quiet, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    server = MLflowServer(f"http://127.0.0.1:{port}")
    try:
        _wait(server.url, process, folder)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        time.sleep(0.2)
    raise AssertionError(f"MLflow did not start:\n{(folder / 'mlflow.log').read_text()[-3000:]}")
