"""Two TorchServes behind one --api-url get more workers for a night, and lose them after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.calls import Outcome
from tests.support.children import Child
from tests.support.handler_archives import write_archive
from tests.support.images import jpeg
from tools.local.services import base_environment
from tools.loopback import fetch
from tools.torchserve import TorchServe

MODEL = "solar-cells"
IMAGES = 96


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[TorchServe]]:
    """Two servers of a small archive, one worker each, without keys: endpoints must take the same or none."""
    (tmp_path / "store").mkdir()
    (tmp_path / "made").mkdir()
    write_archive(tmp_path / "made").rename(tmp_path / "store" / f"{MODEL}.mar")
    settings = {"default_workers_per_model": 1, "disable_token_authorization": "true"}
    both = [TorchServe(tmp_path / name, tmp_path / "store", settings) for name in ("a", "b")]
    started = []
    for server in both:
        server.configure()
        environment = {**base_environment(), **server.environment(), "OMP_NUM_THREADS": "1"}
        log = server.folder / "server.log"
        started.append(Child(server.argv, environment=environment, folder=server.folder, log=log))
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and [_ready(server) for server in both] != [1, 1]:
        assert all(child.running for child in started), [child.err[-300:] for child in started]
        time.sleep(0.2)
    yield both
    for child in started:
        child.kill()


def _ready(server: TorchServe) -> int:
    """Number of workers that are ready, as the server itself says."""
    try:
        (found,) = fetch(f"{server.management}/models/{MODEL}")
    except OSError:
        return 0
    return [worker["status"] for worker in found["workers"]].count("READY")


def _imagebatch(*arguments: object) -> Outcome:
    argv = [sys.executable, "-m", "imagebatch", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ, timeout=240)
    lines = done.stdout.splitlines()
    return Outcome(done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr, done.stdout)


@pytest.mark.timeout(400)
def test_workers_are_scaled_for_a_night_and_back(servers: list[TorchServe], tmp_path: Path) -> None:
    """`models scale` returns when all workers are ready, at each address; rows do not change with them."""
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for number in range(IMAGES):
        (photographs / f"{number:03}.jpg").write_bytes(jpeg(number))
    api = ("--api-url", ",".join(server.inference for server in servers))
    written = []
    for workers, run_id in ((2, "night"), (1, "day")):
        for server in servers:
            scaled = _imagebatch(
                "models", "scale", "--workers", workers, "--management-url", server.management
            )
            assert scaled.code == 0, scaled.err
            assert _ready(server) == workers
        where = ("--run-id", run_id, "--runs-uri", tmp_path / "runs")
        asked = ("--pack-size", 4, "--in-flight", 8)
        for stage in (
            ("preprocess", "--input", photographs, *api),
            ("score", *asked, *api),
            ("postprocess",),
        ):
            outcome = _imagebatch(*stage, *where)
            assert outcome.code == 0, outcome.err
        output = tmp_path / "runs" / run_id / "output"
        certificate = json.loads((output / "certificate.json").read_text())
        assert certificate["counts"]["predicted"] == IMAGES
        assert sorted(certificate["endpoints"]) == sorted(server.inference for server in servers)
        written.append((output / "predictions.csv").read_bytes())
    assert written[0] == written[1]
