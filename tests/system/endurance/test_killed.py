"""10,000 images, and every stage killed once halfway: the same bytes, and few images asked about twice."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.model_server import ModelServer

IMAGES = 10_000
SHARD_SIZE = 1000
PACK_SIZE = 32
IN_FLIGHT = 6
# All that a killed scorer loses: the requests that were under way.
LOST_AT_MOST = IN_FLIGHT * PACK_SIZE
STAGES = {
    "preprocess": ("--shard-size", SHARD_SIZE),
    "check manifest": ("--suite", "manifest"),
    "score": ("--pack-size", PACK_SIZE, "--in-flight", IN_FLIGHT),
    "check predictions": ("--suite", "predictions"),
    "postprocess": (),
    "verify": (),
}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Images of 8x8 that differ from each other, as BMP: quick to write."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    noise = random.Random(7)
    for number in range(IMAGES):
        stream = io.BytesIO()
        Image.frombytes("L", (8, 8), noise.randbytes(64)).save(stream, "BMP")
        (folder / f"{number:05}.bmp").write_bytes(stream.getvalue())
    return folder


class Batch:
    """One run of the photographs, each stage a process of its own."""

    def __init__(self, run_id: str, photographs: Path, runs: Path, server: ModelServer) -> None:
        self.folder = runs / run_id
        self.temporary = runs / f"{run_id}-temporary"
        self.temporary.mkdir(parents=True)
        self._photographs = photographs
        self._server = server

    def start(self, stage: str) -> subprocess.Popen[bytes]:
        """Starts a stage."""
        command = stage.partition(" ")[0]
        where = ("--run-id", self.folder.name, "--runs-uri", self.folder.parent)
        more = ("--input", self._photographs) if command == "preprocess" else ()
        api = ("--api-url", self._server.url) if command in {"preprocess", "score"} else ()
        arguments = [command, *where, *STAGES[stage], *more, *api, "--log-level", "error"]
        variables = os.environ | {"TMPDIR": str(self.temporary)}
        program = [sys.executable, "-m", "imagebatch", *map(str, arguments)]
        return subprocess.Popen(program, env=variables, stdout=subprocess.DEVNULL)

    def finish(self, stage: str) -> None:
        """Runs a stage to its end."""
        assert self.start(stage).wait(120) == 0, stage

    def kill_halfway(self, stage: str, halfway: Callable[[Batch], bool]) -> None:
        """Kills a stage (SIGKILL) as soon as it is halfway through."""
        process = self.start(stage)
        while not halfway(self):
            assert process.poll() is None, f"{stage} was done before it could be killed"
            time.sleep(0.001)
        process.kill()
        assert process.wait(30) == -signal.SIGKILL

    def files(self, pattern: str) -> list[Path]:
        """Files of the run, unfinished ones too."""
        return list(self.folder.glob(pattern))

    @property
    def product(self) -> bytes:
        """Its CSV."""
        return (self.folder / "output/predictions.csv").read_bytes()


def test_each_stage_killed_once_halfway(photographs: Path, tmp_path: Path, server: ModelServer) -> None:
    """The CSV is that of an undisturbed run, and all that was asked twice is what one kill can lose."""
    runs = tmp_path / "runs"
    calm = Batch("calm", photographs, runs, server)
    for stage in STAGES:
        calm.finish(stage)
    asked = server.requests
    assert len(server.images) == len(set(server.images)) == IMAGES
    server.images.clear()

    batch = Batch("killed", photographs, runs, server)
    shards, size = IMAGES // SHARD_SIZE, len(calm.product)
    halfway: dict[str, Callable[[Batch], bool]] = {
        "preprocess": lambda one: len(one.files("manifest/shard-*.parquet")) >= shards // 2,
        "check manifest": lambda one: any(one.temporary.glob("imagebatch-quality-*")),
        "score": lambda _: server.requests >= asked + asked // 2,
        "check predictions": lambda one: bool(one.files("quality/docs/predictions/**/*.html")),
        "postprocess": lambda one: any(
            file.stat().st_size > size // 2 for file in one.files("output/.predictions.csv.*")
        ),
    }
    for stage in STAGES:
        if stage in halfway:
            batch.kill_halfway(stage, halfway[stage])
        batch.finish(stage)

    assert batch.product == calm.product
    assert set(Counter(server.images).values()) <= {1, 2}
    assert IMAGES <= len(server.images) <= IMAGES + LOST_AT_MOST
