"""The whole circle on three classes: fit, archive, batch, review, labels back, fit again."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import review_exports
from tools.paths import ROOT, program

pytestmark = pytest.mark.timeout(1800)  # two trainings

# Runs where the training's libraries are: a folder per class, pictures between two classes, and weights.
_MATERIAL = """
import sys
from pathlib import Path
from PIL import Image
from imagebatch_training.configuration import load_settings
from imagebatch_training.configuration import CONFIG_DIR
from tests.training.shapes import CLASSES, draw, draw_folder, write_random_weights
root = Path(sys.argv[1])
draw_folder(root / "old", per_class=24)
(root / "new").mkdir()
for seed in range(900, 930):
    for at, name in enumerate(CLASSES):
        other = draw(CLASSES[(at + 1) % 3], seed + 100)
        share = 0.45 * (seed % 3) / 2
        Image.blend(draw(name, seed), other, share).save(root / "new" / f"{name}-{seed}.png")
write_random_weights(load_settings(CONFIG_DIR, sys.argv[2:]))
"""
Train = Callable[..., dict[str, Any]]


def told(command: list[str | Path]) -> dict[str, Any]:
    """The last line of a command that must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


def overrides(root: Path) -> list[str]:
    """A training of seconds, all of whose files lie in one folder."""
    paths = [f"paths.{name}='{root / name}'" for name in ("weights", "data", "training", "model_store")]
    quick = ["model.resize=72", "model.crop=64", "finetune.first_block=17", "finetune.epochs=1"]
    quick += ["finetune.batch_size=8", "finetune.learning_rates=[1e-4]", "probe.penalties=[0.01,0.1]"]
    tracking = [f"tracking.uri='sqlite:///{root}/mlflow.db'", f"tracking.artifacts='{root}/artifacts'"]
    data = ["data=csv", "data.name=shapes", f"data.images='{root}'", "data.blocks=files", "data.block_size=3"]
    return [*paths, *quick, *tracking, *data, f"paths.handlers='{ROOT / 'handlers'}'"]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    def verb(name: str, table: Path, *more: str) -> dict[str, Any]:
        command = [program("training", "imagebatch-train"), name, "--json"]
        return told([*command, *overrides(tmp_path), f"data.csv='{table}'", *more])

    return verb


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_what_people_say_trains_the_next_model(train: Train, tmp_path: Path) -> None:
    """Each step takes what the one before has left: threshold, queue, labels, table, other weights."""
    known = tmp_path / "known.csv"
    script = [
        program("training", "python"),
        "-c",
        _MATERIAL,
        tmp_path,
        *overrides(tmp_path),
        f"data.csv='{known}'",
    ]
    subprocess.run(script, cwd=ROOT, check=True)
    old = sorted((tmp_path / "old").rglob("*.png"))
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in old]
    known.write_text("\n".join(["image,label", *lines]) + "\n")

    train("data", known)
    before = train("train", known)
    # Random weights learn little: what is proven is the way, not how good the models are.
    anyhow = "release.allow_unpredicted=true"
    first = train("archive", known, anyhow, "release.review_accuracy=0.3", "release.review_images=5")
    assert 0 < first["review"] < 1

    def imagebatch(command: str, *flags: object) -> dict[str, Any]:
        own = ["--run-id", "night-1", "--runs-uri", str(tmp_path / "runs"), "--pipeline", "nightly"]
        return told([program("pipeline_image", "imagebatch"), *command.split(), *own, *map(str, flags)])

    local = (
        "--model",
        "shapes",
        "--backend",
        "local",
        "--local-workers",
        1,
        "--model-archive",
        first["path"],
    )
    asked = ("--input", tmp_path / "new", "--max-class-share", 1, "--review-below", "auto")
    done = imagebatch("run", *asked, *local)
    assert (done["predicted"], done["model_digest"]) == (90, first["digest"])
    asked_for = json.loads((tmp_path / "runs/night-1/run.json").read_bytes())["review_below"]
    assert asked_for == first["review"]

    out = tmp_path / "review"
    handed = imagebatch("review export", "--format", "label-studio", "--out", out, "--sample", 40)
    assert handed["sampled"] == 40
    (tmp_path / "export.json").write_bytes(
        review_exports.label_studio(out, lambda image_id: image_id.partition("-")[0])
    )
    back = imagebatch(
        "labels import",
        *("--format", "label-studio", "--file", tmp_path / "export.json"),
        *("--images", tmp_path, "--training-csv", known),
    )
    predictions = {
        row["image_id"]: row["label_1"] for row in rows_of(tmp_path / "runs/night-1/output/predictions.csv")
    }
    labels = rows_of(tmp_path / "runs/_labels/night-1.csv")
    sample = [row for row in labels if row["part"] == "test"]
    right = [row for row in sample if predictions[row["image_id"]] == row["image_id"].partition("-")[0]]
    assert (len(sample), back["accuracy"]) == (40, len(right) / 40)
    assert "Accuracy, by people" in (tmp_path / "runs/_history/history.html").read_text()

    assert len(rows_of(known)) == 72 + handed["pictures"]
    assert train("data", known)["counts"]["images"] == 72 + handed["pictures"]
    again = train("train", known)
    assert again["data"]["images"] == 72 + handed["pictures"]
    assert again["served"]["weights_sha256"] != before["served"]["weights_sha256"]
