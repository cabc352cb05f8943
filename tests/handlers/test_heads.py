"""Heads: from logits to what is answered, what an archive may declare, and both on a real TorchServe."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from imagebatch_heads import Declared, LabelSet, OutOfRangeError, Score, make_head
from imagebatch_model import ImageModel, Settings
from PIL import Image

from tests.support.handler_archives import LABELS, write_archive
from tests.support.images import encoded, photograph
from tools.paths import program
from tools.torchserve import TorchServe

THICKNESS = {"name": "thickness", "unit": "mm", "lowest": 0, "highest": 12.5}
HEADS: dict[str, dict[str, Any]] = {
    "sets": {"head": "multilabel", "thresholds": {"poly-sound": 0.7}},
    "scores": {"head": "regression", "quantity": {"name": "red", "lowest": 0, "highest": 254}},
}
IMAGES = 16


def test_sigmoids_that_reach_their_thresholds_are_labels() -> None:
    """Each logit by itself; a threshold that is met exactly counts; huge logits overflow nothing."""
    head = make_head("multilabel", ["a", "b", "c"], Declared(threshold=0.7, thresholds={"b": 0.5}))
    answer = head.predict(np.array([1e4, 0, -1e4], np.float32), 1)
    assert answer == LabelSet(["a", "b"], [1.0, 0.5, 0.0])
    edge = float(np.log(0.7 / 0.3))
    assert head.predict(np.array([edge + 1e-5, -1, edge - 1e-5], np.float32), 1)[0] == ["a"]
    assert head.entry(answer) == {"labels": ["a", "b"], "probabilities": [1.0, 0.5, 0.0]}
    assert head.describe() == {"head": "multilabel", "thresholds": [0.7, 0.5, 0.7]}


def test_a_score_is_the_models_number() -> None:
    """As it is, in its shortest form; one that the quantity cannot have is this image's failure."""
    head = make_head("regression", [], Declared(quantity=THICKNESS))
    assert head.entry(head.predict(np.array([0.1], np.float32), 1)) == {"score": 0.1}
    assert head.predict(np.array([12.5], np.float32), 1) == Score(12.5)
    with pytest.raises(OutOfRangeError, match=r"thickness 12.6 is not within 0 to 12.5"):
        head.predict(np.array([12.6], np.float32), 1)
    assert head.describe() == {"head": "regression", "quantity": THICKNESS}
    anything = make_head("regression", [], Declared(quantity={"name": "x"}))
    assert anything.predict(np.array([-3e38], np.float32), 1) == Score(-3e38)


@pytest.mark.parametrize("head", ["multilabel", "regression"])
@pytest.mark.parametrize("logits", [[np.nan], [np.inf], [1, 2], []])
def test_a_broken_model_is_not_believed(head: str, logits: list[float]) -> None:
    """Numbers that are not finite, or are not as many as they must be, are never an answer."""
    labels, quantity = (["a"], {}) if head == "multilabel" else ([], THICKNESS)
    with pytest.raises(ValueError, match="the model answers"):
        make_head(head, labels, Declared(quantity=quantity)).predict(np.array(logits, np.float32), 1)


@pytest.mark.parametrize(
    ("head", "labels", "declared", "message"),
    [
        (
            "ranking",
            ["a"],
            {},
            "imagebatch.head must be one of softmax, multilabel, regression: got 'ranking'",
        ),
        ("softmax", ["a"], {"threshold": 0.6}, "imagebatch.threshold says nothing about head softmax"),
        ("regression", [], {"thresholds": {"a": 0.5}}, "imagebatch.thresholds says nothing"),
        ("multilabel", ["a"], {"quantity": THICKNESS}, "imagebatch.quantity says nothing"),
        ("multilabel", ["a", "b", "a"], {}, 'two classes of a multilabel head are named "a"'),
        ("multilabel", ["a"], {"thresholds": {"b": 0.5}}, 'thresholds names "b", which is no label'),
        ("multilabel", ["a"], {"thresholds": {"a": 0}}, 'at most 1: got 0 for "a"'),
        ("multilabel", ["a"], {"thresholds": {"a": "0.5"}}, "above 0 and at most 1"),
        ("multilabel", ["a"], {"threshold": 1.5}, "above 0 and at most 1"),
        ("multilabel", ["a"], {"threshold": float("nan")}, "above 0 and at most 1"),
        ("regression", ["a"], {"quantity": THICKNESS}, "a regression head has no labels"),
        ("regression", [], {}, "quantity.name must say what the score"),
        ("regression", [], {"quantity": {"name": "x", "min": 0}}, "unknown min: use name, unit"),
        ("regression", [], {"quantity": {"name": "x", "unit": "\n"}}, "unit must be printable"),
        ("regression", [], {"quantity": {"name": "x", "lowest": "0"}}, "must be numbers"),
        ("regression", [], {"quantity": {"name": "x", "lowest": 1, "highest": 1}}, "lowest must be below"),
    ],
)
def test_a_declaration_that_cannot_be_stops_the_load(
    head: str, labels: list[str], declared: dict[str, Any], message: str
) -> None:
    """The line names the key, or the label, and what it must be."""
    with pytest.raises(ValueError, match=message):
        make_head(head, labels, Declared(**declared))


def test_an_archive_is_loaded_with_its_head(archive_folder: Path, tmp_path: Path) -> None:
    """The configuration decides; a graph with more numbers than the head wants stops the load."""
    settings = Settings.from_config({"imagebatch": {"head": "multilabel", "threshold": 0.25}})
    model = ImageModel(archive_folder, settings)
    described = model.describe()
    assert (described["head"], described["thresholds"]) == ("multilabel", [0.25] * 5)
    regression = Settings.from_config({"imagebatch": {"head": "regression", "quantity": {"name": "x"}}})
    with pytest.raises(ValueError, match="a regression head has no labels"):
        ImageModel(archive_folder, regression)
    folder = shutil.copytree(archive_folder, tmp_path / "archive")
    (folder / "index_to_name.json").unlink()
    with pytest.raises(ValueError, match=r"the model answers \(5,\) logits for one score"):
        ImageModel(folder, regression)


def test_a_cascade_is_for_a_softmax(archive_folder: Path, tmp_path: Path) -> None:
    """It compares the two best classes, which says nothing about sets of labels."""
    folder = shutil.copytree(archive_folder, tmp_path / "archive")
    for suffix in ("xml", "bin"):
        shutil.copy(folder / f"model.{suffix}", folder / f"int8.{suffix}")
    (folder / "cascade.json").write_text('{"margin": 1}')
    settings = Settings(engine="openvino-int8-cascade", head="multilabel")
    with pytest.raises(ValueError, match="compares the two best classes"):
        ImageModel(folder, settings)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of both heads."""
    folder = tmp_path_factory.mktemp("store")
    for name, head in HEADS.items():
        shutil.copy(write_archive(tmp_path_factory.mktemp(name), name=name, **head), folder)
    return folder


@pytest.fixture(scope="module")
def serving(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """A real TorchServe with both, keys on."""
    folder = tmp_path_factory.mktemp("server")
    settings = {"load_models": "sets.mar,scores.mar", "default_workers_per_model": 1}
    made = TorchServe(folder, store, settings, programs=Path(sys.executable).parent)
    made.configure()
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            made.argv,
            cwd=folder,
            env=os.environ | made.environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None and not _ready(made):
            time.sleep(0.5)
        yield made
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ready(server: TorchServe) -> bool:
    with suppress(OSError, ValueError, KeyError):
        key = json.loads(server.key_file.read_text())["inference"]["key"]
        asked = [
            requests.post(
                f"{server.inference}/predictions/{name}",
                json={"describe": True},
                headers={"Authorization": f"Bearer {key}"},
                timeout=30,
            )
            for name in HEADS
        ]
        return all(answer.status_code == 200 for answer in asked)
    return False


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", HEADS)
def test_a_whole_run_on_torchserve(name: str, store: Path, serving: TorchServe, tmp_path: Path) -> None:
    """From a folder to a certificate and back: the table holds what the archive answers in this process."""
    images = tmp_path / "images"
    images.mkdir()
    for seed in range(IMAGES):
        picture = photograph(seed, (96, 80)).point(lambda value, seed=seed: value * (0.4 + seed / 25))
        (images / f"{seed:02}.png").write_bytes(encoded(picture))
    (images / "white.png").write_bytes(encoded(Image.new("RGB", (96, 80), "white")))
    run = [
        program("pipeline_image", "imagebatch"),
        "run",
        "--run-id",
        "r",
        "--input",
        images,
        "--model",
        name,
    ]
    run += ["--runs-uri", tmp_path, "--api-url", serving.inference, "--key-file", serving.key_file]
    run += ["--management-url", serving.management, "--max-failures", "1"]
    done = subprocess.run([str(part) for part in run], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "unpacked"
    shutil.unpack_archive(store / f"{name}.mar", folder, "zip")
    config = yaml.safe_load((folder / "model-config.yaml").read_text())
    model = ImageModel(folder, Settings.from_config(config))
    with (tmp_path / "r/output/predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["model_digest"] == model.digest
    assert len(rows) == IMAGES + (name == "sets")
    for row in rows:
        wanted = model.predict(model.infer(model.decode((images / row["image_id"]).read_bytes())), 1)
        if name == "sets":
            assert row["labels"].split("|") == wanted.labels
            found = [float(row[f"probability_{label}"]) for label in LABELS]
            assert found == pytest.approx(wanted.probabilities, abs=6e-7)
        else:
            assert np.float32(row["score"]) == np.float32(wanted.score)
    failures = (tmp_path / "r/output/failures.csv").read_text()
    assert ("white.png" in failures, "out_of_range" in failures) == (name == "scores",) * 2
    verify = [program("pipeline_image", "imagebatch"), "verify", "--run-id", "r", "--runs-uri", tmp_path]
    assert subprocess.run([str(part) for part in verify], capture_output=True, check=False).returncode == 0
