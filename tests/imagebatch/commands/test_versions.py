"""Versions of a model side by side, on a real TorchServe: registered, made the default, taken back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.calls import Call
from tests.support.serving import MODEL, Running, pack, serving

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1.0, 1.1, and 1.2, which cannot be loaded."""
    store = tmp_path_factory.mktemp("archives") / "store"
    pack(store, "1.0")
    pack(store, "1.1", labels=["a", "b", "c", "d"])
    pack(store, "1.2", labels=None)
    return store


@pytest.fixture(scope="module")
def served(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that has begun with version 1.0 alone."""
    store = tmp_path_factory.mktemp("served") / "store"
    store.mkdir()
    shutil.copy(archives / f"{MODEL}.mar", store)
    with serving(store.parent / "server", store) as running:
        for version in ("1.1", "1.2"):
            shutil.copy(archives / f"{MODEL}-{version}.mar", store)
        yield running


@pytest.fixture
def ask(call: Call, served: Running, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`imagebatch`, let in at the server, its model store at hand."""
    for name, value in served.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IMAGEBATCH_MODEL_STORE", str(served.server.store))
    return call


def test_a_broken_version_leaves_the_other_serving(ask: Call, served: Running) -> None:
    """Its worker's own reason in one line, nothing stays registered, and the old version answers."""
    broken = ask("models", "register", "--archive", f"{MODEL}-1.2.mar", "--workers", "1")
    assert broken.code == 78
    (line,) = [one for one in broken.err.splitlines() if "cannot be loaded" in one]
    assert "the model cannot be loaded: " in line
    assert "; it is not registered" in line
    assert "Failed to start workers" not in line
    assert "Unknown exception" not in line
    assert served.versions() == {"1.0": True}
    assert ask("models", "describe").code == 0


def test_a_default_is_moved_remembered_and_taken_back(ask: Call, served: Running) -> None:
    """Both versions side by side; a restart serves the same default; rollback goes back and forth."""
    store = served.server.store
    unknown = ask("models", "rollback")
    assert (unknown.code, "no earlier default of solar-cells is remembered" in unknown.err) == (78, True)
    assert ask("models", "register", "--archive", f"{MODEL}-1.1.mar", "--workers", "1").code == 0
    assert served.versions() == {"1.0": True, "1.1": False}
    assert ask("models", "set-default", "--model-version", "1.1").code == 0
    assert served.versions() == {"1.0": False, "1.1": True}
    assert json.loads((store / "solar-cells.serving.json").read_text()) == {
        "default": {"version": "1.1", "archive": "solar-cells-1.1.mar"},
        "previous": {"version": "1.0", "archive": "solar-cells.mar"},
    }
    (store / f"{MODEL}-1.2.mar").unlink()
    served.restart()
    assert served.versions() == {"1.0": False, "1.1": True}
    back = ask("models", "rollback")
    assert back.last["answer"] == {"model": MODEL, "default": "1.0", "before": "1.1"}
    assert served.versions() == {"1.0": True, "1.1": False}
    assert ask("models", "unregister", "--model-version", "1.1").code == 0
    forth = ask("models", "rollback", "--workers", "1")  # it is registered again, from its archive
    assert forth.last["answer"]["default"] == "1.1"
    assert served.versions() == {"1.0": False, "1.1": True}
    assert ask("models", "rollback").code == 0


def test_a_default_that_cannot_be_remembered_is_not_moved(
    ask: Call, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No disk, no change: 74, and the old default serves on. Without a store it is moved and said."""
    before = served.versions()
    other = "1.1" if before["1.0"] else "1.0"
    monkeypatch.setenv("IMAGEBATCH_MODEL_STORE", str(served.server.store / "away"))
    refused = ask("models", "set-default", "--model-version", other)
    assert (refused.code, "stays the default" in refused.err) == (74, True)
    assert served.versions() == before
    missing = ask("models", "set-default", "--model-version", "7")
    assert (missing.code, served.versions() == before) == (78, True)
    monkeypatch.delenv("IMAGEBATCH_MODEL_STORE")
    assert "needs --model-store" in ask("models", "rollback").err
    told = ask("models", "set-default", "--model-version", "1.0")
    assert (told.code, "a restart of the server forgets" in told.err) == (0, True)


def test_the_golden_images_of_a_version_are_asked_about(ask: Call, tmp_path: Path) -> None:
    """A file of another archive, or with another answer, is told from the right one."""
    described = ask("models", "describe", "--model-version", "1.0").last["answer"]["customizedMetadata"]
    digest = (json.loads(described) if isinstance(described, str) else described)["model"]["digest"]
    golden = tmp_path / "golden.json"

    def probe(digest: str, labels: list[str]) -> tuple[int, str]:
        image = {"name": "grey", "b64": GREY, "labels": labels, "probabilities": [0.25] * 4}
        golden.write_text(json.dumps({"model_digest": digest, "tolerance": 0.9, "images": [image]}))
        asked = ask("models", "probe", "--model-version", "1.0", "--golden", golden)
        return asked.code, asked.err

    labels = ["mono-sound", "mono-defective", "poly-sound", "poly-defective"]
    assert probe(digest, labels)[0] == 0
    assert "belongs to sha256:0" in probe("sha256:0", labels)[1]
    assert ask("models", "probe", "--golden", tmp_path / "none.json").code == 78
    assert "needs --golden" in ask("models", "probe").err


GREY = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAD0lEQVR4nGNowAEYhpYEAILzYAGc7g8kAAAAAElFTkSuQmCC"
