"""What the pipeline's tests share: a model server, images, and the command line called in this process."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagebatch import cli

from tests.support import examples  # noqa: F401 - sets the profile of hypothesis
from tests.support.calls import Call, Outcome
from tests.support.images import jpeg
from tests.support.model_server import ModelServer


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 40 good images, some in a folder below."""
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for seed in range(40):
        name = f"b/{seed:03}.jpg" if seed % 3 == 0 else f"{seed:03}.jpg"
        (folder / name).write_bytes(jpeg(seed))
    return folder


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
