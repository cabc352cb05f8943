"""The predictor as its image starts it, on loopback, with a small real archive behind it."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.children import Child
from tests.support.handler_archives import write_archive
from tools.loopback import ask, free_ports

MODEL = "solar-cells"
MOST = 1 << 20
COMMAND = str(Path(sys.executable).with_name("imagebatch-kserve"))


@dataclass(frozen=True)
class Running:
    """A predictor that is up.

    Attributes:
        child: Its process.
        url: Of its REST API.
        grpc: Address of its gRPC API.
        archive: What it serves.
    """

    child: Child
    url: str
    grpc: str
    archive: Path


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as KServe mounts it for TorchServe: `model-store/solar-cells.mar`."""
    made = write_archive(tmp_path_factory.mktemp("archive"))
    folder = tmp_path_factory.mktemp("storage")
    (folder / "model-store").mkdir()
    made.rename(folder / "model-store" / made.name)
    return folder


@pytest.fixture(scope="session")
def predictor(storage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start it once for all tests that only ask."""
    rest, grpc = free_ports(2)
    flags = [f"--model_name={MODEL}", f"--model_dir={storage}", f"--http_port={rest}", f"--grpc_port={grpc}"]
    child = Child(
        [COMMAND, *flags, f"--max_request_bytes={MOST}"],
        environment={**os.environ, "IMAGEBATCH_WORKERS": "2", "PYTHONDONTWRITEBYTECODE": "1"},
        log=tmp_path_factory.mktemp("server") / "server.log",
    )
    url = f"http://127.0.0.1:{rest}"
    try:
        wait_until_ready(child, url)
        yield Running(child, url, f"127.0.0.1:{grpc}", storage / "model-store" / f"{MODEL}.mar")
    finally:
        child.kill()


def wait_until_ready(child: Child, url: str) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and child.running:
        with contextlib.suppress(OSError):
            ask(f"{url}/v2/models/{MODEL}/ready", seconds=5)
            return
        time.sleep(0.1)
    pytest.fail(f"it does not start: {child.err[-2000:]}")
