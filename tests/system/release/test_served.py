"""Releases on a real TorchServe and a real registry: the first, one that breaks at load, one amid a batch."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registry import mlflow_server
from tests.support.serving import serving
from tests.system.release.conftest import words
from tests.system.release.ground import Ground
from tests.training.shapes import REPOSITORY, draw

pytestmark = pytest.mark.timeout(900)
NEWER = "1.2"  # a number whose release has failed is not given away again


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
        yield Ground(root, running, registry, night, words(root), "shapes")


@pytest.fixture(autouse=True)
def _tracked(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ground.registry.url)


@pytest.fixture(scope="module")
def calm(ground: Ground) -> bytes:
    """From nothing to a served champion by one command, and the table of a run that nobody disturbed."""
    assert ground.release() == 0
    found = ground.prepare("calm")
    assert found["model"]["version"] == "1.0"
    assert found["released"]["reference"] == ground.reference
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
