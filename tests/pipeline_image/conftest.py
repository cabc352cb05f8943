"""What the pipeline's tests share: a model server, images, and the command line called in this process."""

from __future__ import annotations

import importlib
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from imagebatch import cli
from model_server import ModelServer
from PIL import Image

# The machine is shared: a slow example is no failure.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    running = ModelServer()
    yield running
    running.close()


def jpeg(seed: int, size: tuple[int, int] = (24, 16)) -> bytes:
    """A small JPEG that no other seed gives."""
    noise = random.Random(seed).randbytes(size[0] * size[1] * 3)
    stream = io.BytesIO()
    Image.frombytes("RGB", size, noise).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 40 good images, some in a folder below."""
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for seed in range(40):
        name = f"b/{seed:03}.jpg" if seed % 3 == 0 else f"{seed:03}.jpg"
        (folder / name).write_bytes(jpeg(seed))
    return folder


@dataclass
class Outcome:
    """What a command left: exit code, the JSON of its last line, its standard error and output."""

    code: int
    last: dict[str, Any]
    err: str
    out: str = ""


Call = Callable[..., Outcome]


@pytest.fixture
def call(
    server: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Call:
    """Calls `imagebatch` with settings that fit the test's server and folders."""
    monkeypatch.setenv("IMAGEBATCH_API_URL", server.url)
    monkeypatch.setenv("IMAGEBATCH_RUNS_URI", str(tmp_path / "runs"))
    monkeypatch.setenv("IMAGEBATCH_RETRY_SECONDS", "3")

    def run(*arguments: object) -> Outcome:
        if arguments[0] == "run":  # loaded once for all tests, and not by a process of each run
            importlib.import_module("imagebatch.stages.check.validation")
        capsys.readouterr()
        code = cli.call([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        lines = out.splitlines()
        return Outcome(code, json.loads(lines[-1]) if lines else {}, err, out)

    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"
