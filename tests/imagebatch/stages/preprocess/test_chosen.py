"""The version that an alias of a real registry names when a run begins, and what the run makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.calls import Call
from tests.support.model_server import DIGEST, ModelServer
from tests.support.registry import MLflowServer, mlflow_server

pytestmark = pytest.mark.timeout(180)
CHAMPION = "models:/solar-cells@champion"


class Versions(ModelServer):
    """Serves 1.0 by default, and 1.1 with a digest of its own."""

    version = "1.0"

    def answer(self, request: Any) -> None:
        path: str = request.path
        self.version = path.rpartition("/")[2] if path.count("/") > 2 else "1.0"
        super().answer(request)

    def description(self) -> dict[str, Any]:
        told = super().description()
        digest = DIGEST if self.version == "1.0" else SECOND
        return told | {"model": {"name": "solar-cells", "version": self.version, "digest": digest}}


SECOND = "sha256:" + "cd" * 32


@pytest.fixture
def server() -> Iterator[Versions]:
    with Versions() as running:
        yield running


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


def begun(call: Call, images: Path, runs: Path, run_id: str, *options: object) -> dict[str, Any]:
    outcome = call("preprocess", "--input", images, "--run-id", run_id, *options)
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads((runs / run_id / "run.json").read_text())
    return found


def test_without_a_registry_a_run_is_as_it_was(
    call: Call, images: Path, runs: Path, registry: MLflowServer
) -> None:
    """No server, no such model: the server's default version, and not a byte of run.json more."""
    plain = begun(call, images, runs, "plain")
    for run_id, options in (("none", ()), ("empty", ("--tracking-uri", registry.url))):
        found = begun(call, images, runs, run_id, "--model", CHAMPION, *options)
        assert found == plain | {"run_id": run_id}
    away = call(
        "preprocess",
        "--input",
        images,
        "--run-id",
        "away",
        "--model",
        CHAMPION,
        "--tracking-uri",
        "http://127.0.0.1:1",
    )
    assert (away.code, "server's default version is taken" in away.err) == (0, True)
    assert json.loads((runs / "away/run.json").read_text()) == plain | {"run_id": "away"}


def test_a_run_keeps_the_version_that_the_alias_named(
    call: Call, images: Path, runs: Path, registry: MLflowServer
) -> None:
    """A moved alias changes neither a second attempt nor the scoring, only the next run."""
    first = registry.release("solar-cells", "1.0", DIGEST)
    second = registry.release("solar-cells", "1.1", SECOND)
    registry.alias("solar-cells", "champion", second)
    options = ("--model", CHAMPION, "--tracking-uri", registry.url)
    found = begun(call, images, runs, "night", *options)
    assert found["model"]["version"] == "1.1"
    assert found["released"] == {"reference": CHAMPION, "registry_version": second}
    registry.alias("solar-cells", "champion", first)
    assert begun(call, images, runs, "night", *options) == found
    assert call("score", "--run-id", "night").code == 0
    done = call("postprocess", "--run-id", "night")
    assert done.last["model_version"] == "1.1"
    assert begun(call, images, runs, "next", *options)["model"]["version"] == "1.0"
    asked = begun(call, images, runs, "asked", *options, "--model-version", "1.1")
    assert asked["model"]["version"] == "1.1"
    assert "released" not in asked


def test_an_archive_that_is_not_the_released_one_is_refused(
    call: Call, images: Path, registry: MLflowServer
) -> None:
    """Another digest under the version's number, a version without tags, another alias that is not there."""
    other = registry.release("solar-cells", "1.1", "sha256:" + "ef" * 32)
    registry.alias("solar-cells", "trial", other)

    def refused(model: str, *options: object) -> str:
        outcome = call("preprocess", "--input", images, "--run-id", "refused", "--model", model, *options)
        assert outcome.code == 78
        return outcome.err

    where = ("--tracking-uri", registry.url)
    assert "release it again, under another one" in refused("models:/solar-cells@trial", *where)
    assert "has no such alias" in refused("models:/solar-cells@nobody", *where)
    assert "needs --tracking-uri" in refused("models:/solar-cells@trial")
    registry.ask(
        "DELETE", "model-versions/delete-tag", name="solar-cells", version=other, key="imagebatch.digest"
    )
    assert "lacks the tags of a release" in refused("models:/solar-cells@trial", *where)
    away = call(
        "preprocess",
        "--input",
        images,
        "--run-id",
        "refused",
        "--model",
        "models:/solar-cells@trial",
        "--tracking-uri",
        "http://127.0.0.1:1",
    )
    assert away.code == 69
    assert call("preprocess", "--input", images, "--run-id", "bad", "--model", "models:/x").code == 2
