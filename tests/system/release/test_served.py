"""Releases on a real TorchServe and a real registry: the first, one that breaks at load, one amid a batch."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from imagebatch_training.cli import main

from tests.support.registry import MLflowServer, mlflow_server
from tests.support.relay import Asked, Relay
from tests.support.serving import Running, serving
from tests.system.release.conftest import words
from tests.training.shapes import REPOSITORY, draw
from tools.paths import program

pytestmark = pytest.mark.timeout(900)
IMAGEBATCH = str(program("pipeline_image", "imagebatch"))
CHAMPION = "models:/shapes@champion"


@dataclass(frozen=True)
class Ground:
    """A server, a registry, and images of a night."""

    root: Path
    running: Running
    registry: MLflowServer
    night: Path

    def release(self, *more: str) -> int:
        """`imagebatch-train release` with this server, in this process."""
        server = self.running.server
        where = ["--management-url", server.management, "--api-url", server.inference]
        where += ["--key-file", str(server.key_file), "--workers", "1", "--json"]
        return main(["release", *where, *words(self.root), *more])

    def start(self, *arguments: str, api: str = "") -> "subprocess.Popen[str]":
        """`imagebatch` as a process of its own."""
        own = self.running.environment() | {
            "IMAGEBATCH_RUNS_URI": str(self.root / "runs"),
            "IMAGEBATCH_TRACKING_URI": self.registry.url,
            "IMAGEBATCH_SHARED_MEMORY": "false",
        }
        own |= {"IMAGEBATCH_API_URL": api} if api else {}
        return subprocess.Popen(
            [IMAGEBATCH, *arguments],
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def do(self, *arguments: str, api: str = "") -> None:
        """`imagebatch`, to its good end."""
        process = self.start(*arguments, api=api)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said

    def prepare(self, run: str, model: str = CHAMPION) -> dict[str, Any]:
        """Begins a run; returns its run.json."""
        self.do(
            "preprocess", "--run-id", run, "--input", str(self.night), "--model", model, "--shard-size", "300"
        )
        found: dict[str, Any] = json.loads((self.root / "runs" / run / "run.json").read_text())
        return found

    def table(self, run: str) -> bytes:
        """Ends a scored run; returns its table."""
        self.do("postprocess", "--run-id", run)
        self.do("report", "--run-id", run)
        return (self.root / "runs" / run / "output/predictions.csv").read_bytes()

    def amid(self, run: str, act: Callable[[], None]) -> None:
        """Scores a run slowly, acts in the middle of it, and lets it end."""
        acted = threading.Event()

        def before(asked: Asked) -> None:
            if asked.number > FIRST:
                acted.wait(0.3)

        with Relay(self.running.server.inference, before=before) as relay:
            slow = ("--pack-size", "1", "--in-flight", "1")
            scoring = self.start("score", "--run-id", run, *slow, api=relay.url)
            try:
                while relay.requests < FIRST:
                    assert scoring.poll() is None, scoring.communicate()[1]
                    time.sleep(0.02)
                act()
                assert scoring.poll() is None, "the run was over before the release was"
            finally:
                acted.set()
            _, said = scoring.communicate(timeout=300)
            assert scoring.returncode == 0, said

    def champion(self) -> str:
        """The version that the registry's alias names."""
        number = self.registry.named("shapes", "champion")
        found = self.registry.ask("GET", "model-versions/get", name="shapes", version=number)
        tags = {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}
        return str(tags["imagebatch.version"])


NEWER = "1.2"  # a number whose release has failed is not given away again
FIRST = 20  # requests of a run before something happens


@pytest.fixture(scope="module")
def ground(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    night = tmp_path_factory.mktemp("night")
    for number in range(600):
        draw(("bright", "dark", "striped")[number % 3], 1000 + number).save(night / f"{number:04}.png")
    (root / "model_store").mkdir()
    with (
        mlflow_server(tmp_path_factory.mktemp("mlflow")) as registry,
        serving(root / "server", root / "model_store", "shapes") as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("MLFLOW_TRACKING_URI", registry.url)
        yield Ground(root, running, registry, night)


@pytest.fixture(autouse=True)
def _tracked(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ground.registry.url)


@pytest.fixture(scope="module")
def calm(ground: Ground) -> bytes:
    """From nothing to a served champion by one command, and the table of a run that nobody disturbed."""
    assert ground.release() == 0
    found = ground.prepare("calm")
    assert found["model"]["version"] == "1.0"
    assert found["released"]["reference"] == CHAMPION
    ground.do("score", "--run-id", "calm")
    return ground.table("calm")


def test_one_command_from_nothing_to_a_served_champion(ground: Ground, calm: bytes) -> None:
    """The server has it, the registry calls it champion, and a batch takes it."""
    assert calm.count(b"\n") == 601
    assert ground.running.versions() == {"1.0": True}
    assert ground.champion() == "1.0"


def test_a_version_that_breaks_at_load_changes_nothing(
    ground: Ground, calm: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its worker's own reason in one line, and a batch under way has the calm run's bytes."""
    handlers = shutil.copytree(
        REPOSITORY / "handlers", ground.root / "handlers", ignore=shutil.ignore_patterns(".venv")
    )
    handler = handlers / "imagebatch_handler.py"
    text = handler.read_text()
    head, inside, rest = text.partition("    def initialize(self, context: Any) -> None:\n")
    assert inside
    handler.write_text(
        f'{head}{inside}        raise RuntimeError("no such device as this model needs")\n{rest}'
    )
    broken = (f"paths.handlers='{handlers}'", "model.version=1.1")
    assert ground.release("--until", "gates", *broken) == 0  # the gates ask the archive here, where it works
    ground.prepare("broken")
    codes = []
    ground.amid("broken", lambda: codes.append(ground.release(*broken)))
    assert codes == [78]
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "RuntimeError: no such device as this model needs; it is not registered" in line
    assert line.endswith("1.1 is not served, 1.0 is as before")
    assert ground.running.versions() == {"1.0": True}
    assert ground.champion() == "1.0"
    assert [path.name for path in (ground.root / "model_store").glob("*.mar")] == ["shapes.mar"]
    assert ground.table("broken") == calm


def test_a_release_amid_a_batch_is_of_the_next_batch(ground: Ground, calm: bytes) -> None:
    """Default and alias move while a run goes on: it keeps its version and bytes; the next has the new."""
    better = ("probe.penalties=[0.5]", "model.version=next", f"paths.training='{ground.root / 'training-2'}'")
    assert ground.release("--until", "gates", *better) == 0
    assert ground.prepare("amid")["model"]["version"] == "1.0"
    shadow = ["--shadow-runs", str(ground.root / "runs"), "--shadow-run", "calm"]
    page = ground.root / "shadow.html"
    done = []
    ground.amid("amid", lambda: done.append(ground.release(*better, *shadow, "--shadow-page", str(page))))
    assert done == [0]
    assert "beside 1.0" in page.read_text()
    assert ground.running.versions() == {"1.0": False, NEWER: True}
    assert ground.champion() == NEWER
    assert ground.table("amid") == calm
    assert ground.prepare("after")["model"]["version"] == NEWER
    ground.running.restart()
    assert ground.running.versions() == {"1.0": False, NEWER: True}


def test_one_command_goes_back(ground: Ground, calm: bytes) -> None:
    """Server and registry together, by either command; the next batch has the bytes of the version before."""
    assert ground.champion() == NEWER, "the release amid a batch has failed"
    assert ground.release("--rollback") == 0
    assert (ground.champion(), ground.running.versions()) == ("1.0", {"1.0": True, NEWER: False})
    store = str(ground.root / "model_store")
    ground.do("models", "rollback", "--model", "shapes", "--model-store", store)
    assert (ground.champion(), ground.running.versions()) == (NEWER, {"1.0": False, NEWER: True})
    ground.do("models", "rollback", "--model", "shapes", "--model-store", store)
    ground.prepare("back")
    ground.do("score", "--run-id", "back")
    assert ground.table("back") == calm
