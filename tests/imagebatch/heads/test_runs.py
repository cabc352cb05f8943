"""Whole runs with the other heads, by the archive's own handler: from a folder to a proven table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.calls import Call
from tests.support.handler_archives import LABELS, write_archive
from tests.support.images import encoded, photograph

pytestmark = pytest.mark.timeout(600)  # a worker loads torch, several times

# The softmax archive's logits, as four sigmoids.
THRESHOLDS = {"mono-defective": 0.7, "poly-sound": 0.7}
MULTILABEL: dict[str, Any] = {"head": "multilabel", "thresholds": THRESHOLDS}
REGRESSION: dict[str, Any] = {
    "head": "regression",
    "quantity": {"name": "mean <red>", "unit": "levels", "lowest": 0, "highest": 254},
}
OWN = ["model", "model_version", "model_digest"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(120):
        picture = photograph(seed, (96, 80)).point(lambda value, seed=seed: value * (0.4 + seed / 200))
        (folder / f"{seed:03}.png").write_bytes(encoded(picture))
    (folder / "broken.png").write_bytes(encoded(photograph(1, (96, 80)))[:900])
    return folder


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        str(head["head"]): write_archive(tmp_path_factory.mktemp(str(head["head"])), **head)
        for head in (MULTILABEL, REGRESSION)
    }


def asked(archive: Path) -> tuple[object, ...]:
    return ("--backend", "local", "--model-archive", archive, "--local-workers", 1, "--retry-seconds", 60)


def table(run: Path) -> list[dict[str, str]]:
    with (run / "output/predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def page(run: Path) -> str:
    return (run / "output/report.html").read_text("utf-8")


def expectations(run: Path) -> set[str]:
    results = json.loads((run / "quality/predictions.json").read_bytes())
    outcomes = [one for found in results.values() for result in found for one in result["results"]]
    assert all(one["success"] for one in outcomes)
    return {one["expectation_config"]["kwargs"].get("column", "") for one in outcomes}


def test_sets_of_labels_are_scored_checked_and_proven(
    call: Call, photographs: Path, archives: dict[str, Path], runs: Path, tmp_path: Path
) -> None:
    """Every class has its probability, the labels are those that reach their thresholds, and it is proven."""
    where = asked(archives["multilabel"])
    outcome = call("run", "--run-id", "r", "--input", photographs, "--cache", tmp_path / "cache", *where)
    assert (outcome.code, outcome.last["predicted"], outcome.last["failed"]) == (0, 120, 1)
    rows = table(runs / "r")
    probabilities = [f"probability_{label}" for label in LABELS]
    assert list(rows[0]) == ["image_id", "sha256", "labels", *probabilities, *OWN]
    limits = [THRESHOLDS.get(label, 0.5) for label in LABELS]
    exact = pq.read_table(runs / "r/output/predictions.parquet").to_pylist()
    sizes = set()
    for row, whole in zip(rows, exact, strict=True):
        above = [
            label
            for label, limit in zip(LABELS, limits, strict=True)
            if np.float32(whole[f"probability_{label}"]) >= np.float32(limit)
        ]
        assert (row["labels"].split("|") if row["labels"] else []) == whole["labels"] == above
        assert [float(row[name]) for name in probabilities] == pytest.approx(
            [whole[name] for name in probabilities], abs=5e-7
        )
        sizes.add(len(above))
    assert len(sizes) > 1
    assert any(sum(float(row[name]) for name in probabilities) > 1.01 for row in rows)  # no softmax
    assert expectations(runs / "r") >= {"least_probability", "labels_reach_thresholds", "share"}
    certificate = json.loads((runs / "r/output/certificate.json").read_bytes())
    assert certificate["model"]["head"] == "multilabel"
    assert certificate["model"]["thresholds"] == [0.5, 0.7, 0.7, 0.5]
    assert call("verify", "--run-id", "r").code == 0

    again = call("run", "--run-id", "s", "--input", photographs, "--cache", tmp_path / "cache", *where)
    assert again.code == 0
    assert json.loads((runs / "s/output/certificate.json").read_bytes())["cached"] == 120
    first, second = ((runs / run / "output/predictions.csv").read_bytes() for run in "rs")
    assert first == second

    assert "Labels per image" in page(runs / "r")
    assert "nearest to its threshold" in page(runs / "r")
    summary = json.loads((runs / "_history/r.json").read_bytes())
    assert summary["labels_per_image"] == pytest.approx(np.mean([len(row["labels"]) for row in exact]))
    assert summary["classes"] == {label: sum(label in row["labels"] for row in exact) for label in LABELS}
    assert summary["confidence"] is summary["score_mean"] is None


def test_scores_are_scored_checked_and_proven(
    call: Call, photographs: Path, archives: dict[str, Path], runs: Path, tmp_path: Path
) -> None:
    """Each image has one number, exact in CSV and Parquet; one outside its range fails with a reason."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "white.png").write_bytes(encoded(Image.new("RGB", (96, 80), "white")))  # 255, above 254
    where = (*asked(archives["regression"]), "--allowed-roots", f"{folder},{photographs}")
    outcome = call("run", "--run-id", "r", "--input", folder, *where)
    assert (outcome.code, outcome.last["predicted"], outcome.last["failed"]) == (0, 120, 2)
    failures = (runs / "r/output/failures.csv").read_text()
    assert "white.png" in failures
    assert "score,out_of_range,mean <red> 255 is not within 0 to 254" in failures
    rows = table(runs / "r")
    assert list(rows[0]) == ["image_id", "sha256", "score", *OWN]
    exact = pq.read_table(runs / "r/output/predictions.parquet")["score"].to_numpy()
    assert [np.float32(row["score"]) for row in rows] == exact.tolist()
    with Image.open(folder / rows[7]["image_id"]) as image:
        assert float(rows[7]["score"]) == pytest.approx(np.asarray(image)[..., 0].mean(), abs=6)
    assert expectations(runs / "r") >= {"score", "share"}
    assert call("verify", "--run-id", "r").code == 0
    text = page(runs / "r")
    assert "Histogram of the scores" in text
    assert "mean &lt;red&gt;" in text
    assert "<red>" not in text
    summary = json.loads((runs / "_history/r.json").read_bytes())
    assert summary["score_mean"] == pytest.approx(exact.mean(), rel=1e-4)
    assert (summary["classes"], summary["confidence"]) == ({}, None)

    # A repaired image is redriven under the same head; then a byte of the table is changed.
    (folder / "white.png").write_bytes(encoded(Image.new("RGB", (96, 80), "#808080")))
    again = call("redrive", "--run-id", "r", *where[2:-2])
    assert (again.code, again.last["predicted"]) == (0, 121)
    assert next(row["score"] for row in table(runs / "r") if row["image_id"] == "white.png") == "128"
    assert call("verify", "--run-id", "r").code == 0
    written = runs / "r/output/predictions.csv"
    written.write_bytes(written.read_bytes().replace(b",128,", b",129,"))
    assert call("verify", "--run-id", "r").code == 65
