"""Runs to look at: real photographs with failures among them; a model server, and an MLflow server."""

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.paths import ROOT

VAR = Path(os.environ.get("IMAGEBATCH_VAR") or ROOT / "var")
IMAGEBATCH = ROOT / "pipeline_image" / ".venv" / "bin" / "imagebatch"
PYTHON = ROOT / "pipeline_image" / ".venv" / "bin" / "python"
HOSTILE = '<img src=x onerror=alert(1)> "&.png'
# Makes the flawed files out of the good ones; Pillow lives in the pipeline's environment.
_FLAWS = """
import sys
from pathlib import Path
from PIL import Image, ImageFilter
folder = Path(sys.argv[1])
first = sorted(folder.glob("cell*.png"))[0]
data = first.read_bytes()
(folder / "broken-1.png").write_bytes(data[: len(data) // 2])
(folder / "broken-2.png").write_bytes(data[: len(data) // 4])
(folder / "empty.png").write_bytes(b"")
(folder / sys.argv[2]).write_bytes(b"no image")
with Image.open(first) as image:
    image.filter(ImageFilter.GaussianBlur(9)).save(folder / "blurred.png")
    image.point(lambda value: value // 14).save(folder / "dark.png")
    Image.new("L", image.size, 128).save(folder / "blank.png")
    image.save(folder / "again.jpg", quality=80)
"""
# Figures of 60 nights, as reports would have kept them.
_NIGHTS = """
import sys
from imagebatch.history.summary import keep_summary
from tests.support.nights import nights
for run in nights(3, slow=38, shift=27, weekly=0.3, pipeline="solar-cells"):
    keep_summary(sys.argv[1], run)
"""


@dataclass(frozen=True)
class Runs:
    """A folder of runs."""

    uri: Path
    hostile: str = HOSTILE

    def __call__(self, *arguments: object, environment: dict[str, str] | None = None) -> str:
        """Calls `imagebatch` on these runs; returns its standard error."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEBATCH_")}
        done = subprocess.run(
            [IMAGEBATCH, *map(str, arguments)],
            env=own | {"IMAGEBATCH_RUNS_URI": str(self.uri)} | (environment or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stderr


@pytest.fixture(scope="session")
def material(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """The demo's photographs and archive; made by a demo where there has been none."""
    images, archive = VAR / "data" / "solar-cells" / "images", ROOT / "model_store" / "solar-cells.mar"
    if not (images.is_dir() and archive.is_file()):
        request.getfixturevalue("first")
        images = request.getfixturevalue("stack").var / "data" / "solar-cells" / "images"
    return images, archive


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, material: tuple[Path, Path]) -> Runs:
    """A good run, the baseline made of it, and a run of other images with failures, compared with it."""
    images, archive = material
    folder = tmp_path_factory.mktemp("report")
    found = Runs(folder / "runs")
    cells = sorted(images.glob("*.png"))
    # A picture for the documentation is of more than a test needs.
    each = 2 if os.environ.get("IMAGEBATCH_WRITE_DOCS") else 8
    for name, chosen in (("before", cells[::each]), ("after", cells[each // 2 :: each])):
        (folder / name).mkdir()
        for path in chosen:
            shutil.copyfile(path, folder / name / path.name)
    subprocess.run([PYTHON, "-c", _FLAWS, folder / "after", HOSTILE], check=True)
    model = ("--backend", "local", "--model-archive", archive)
    baseline = folder / "baseline.parquet"
    found("run", "--run-id", "night-1", "--input", folder / "before", *model)
    found("baseline", "--run-id", "night-1", "--output", baseline, "--labels", images.parent / "labels.csv")
    judged = ("--baseline", baseline, "--image-sample", 0, "--ceiling", 260)
    found("run", "--run-id", "night-2", "--input", folder / "after", *model, *judged)
    return found


@pytest.fixture(scope="session")
def long_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """history.html of 60 simulated nights in which three things change."""
    found = Runs(tmp_path_factory.mktemp("history") / "runs")
    subprocess.run([PYTHON, "-c", _NIGHTS, found.uri], cwd=ROOT, check=True)
    found("trends")
    found("history")
    return found.uri / "_history" / "history.html"


@pytest.fixture(scope="session")
def fixed_server() -> Iterator[str]:
    """A model server with a fixed answer."""
    argv = [PYTHON, "-m", "benchmarks.lib.fixed_server"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = process.stdout.readline().strip()
        assert address, "the model server did not start"
        yield address
        process.kill()


@pytest.fixture(scope="session", autouse=True)
def mlflow_starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on SQLite, which starts while other tests run."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = ROOT / "training" / ".venv" / "bin" / "mlflow"
    command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder),
    ]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (folder / "server.log").open("w")
    with (
        log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        yield f"http://127.0.0.1:{port}"
        os.killpg(process.pid, 15)


@pytest.fixture(scope="session")
def mlflow(mlflow_starting: str) -> str:
    """The address of an MLflow server that answers."""
    health = f"{mlflow_starting}/health"
    _wait(lambda: urllib.request.urlopen(health, timeout=2).status == 200, 120)  # noqa: S310 - loopback
    return mlflow_starting


def _wait(ready: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except OSError:
            assert time.monotonic() < end
        time.sleep(0.5)
