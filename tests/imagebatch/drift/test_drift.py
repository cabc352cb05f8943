"""Drift: the tests, their correction, baselines, and a run that has drifted."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from imagebatch.drift import two_sample
from imagebatch.drift.accuracy import calibrate, estimate
from imagebatch.scorer.projection import project
from PIL import Image
from scipy import stats

from tests.support.calls import Call, scored
from tests.support.images import encoded, photograph
from tests.support.model_server import ModelServer


def test_holm_rejects_what_the_published_example_rejects() -> None:
    """Proves the correction on the textbook example of four hypotheses."""
    assert two_sample.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_p_values_of_equal_distributions_are_not_small_too_often() -> None:
    """Proves that each test keeps its level: of 100 quiet pairs at most 12 are below 0.05."""
    chance = np.random.default_rng(4)
    found = {"numbers": 0, "categories": 0, "vectors": 0}
    for trial in range(100):
        found["numbers"] += two_sample.numbers(chance.normal(size=300), chance.normal(size=100))[0] < 0.05
        texts = [[f"c{value}" for value in chance.integers(0, 4, size)] for size in (300, 100)]
        found["categories"] += two_sample.categories(*texts)[0] < 0.05
        pair = chance.normal(size=(40, 5)), chance.normal(size=(40, 5))
        found["vectors"] += two_sample.vectors(*pair, trial)[0] < 0.05
    assert max(found.values()) <= 12, found


def test_p_values_are_those_of_scipy() -> None:
    """Proves on 100 random pairs that our p-values of one dimension are scipy.stats'."""
    chance = np.random.default_rng(9)
    for _ in range(100):
        sizes = chance.integers(100, 1000, 2)
        pair = chance.normal(size=sizes[0]), chance.normal(chance.uniform(0, 0.3), size=sizes[1]).round(1)
        expected = stats.ks_2samp(*pair, method="asymp")
        assert two_sample.numbers(*pair)[0] == pytest.approx(expected.pvalue, rel=0.1, abs=1e-3)
        assert two_sample.numbers(*pair)[1] == pytest.approx(expected.statistic)
        kinds = chance.integers(2, 5)
        texts = [[f"c{kind}" for kind in chance.integers(0, kinds, size)] for size in sizes]
        table = np.array([[text.count(f"c{kind}") for kind in range(kinds)] for text in texts])
        exact = stats.fisher_exact(table) if kinds == 2 else stats.chi2_contingency(table)
        assert two_sample.categories(*texts)[0] == pytest.approx(exact.pvalue, rel=1e-6)


def test_vectors_see_a_difference_that_no_single_column_shows() -> None:
    """Proves that two columns with equal margins and another dependence are told apart."""
    chance = np.random.default_rng(1)
    one = chance.normal(size=(250, 2))
    other = one[:, :1] * [[1.0, 1.0]] + chance.normal(size=(250, 2)) * [[0.0, 0.05]]
    assert two_sample.vectors(one, other, 0)[0] < 0.005


@pytest.mark.parametrize(
    ("before", "now"),
    [([], ["a"]), (["a"] * 5, ["a"] * 5), (["a"], ["b"]), (["a"] * 50, [])],
)
def test_categories_survive_what_has_too_little_in_it(before: list[str], now: list[str]) -> None:
    """Proves that empty, single and rare categories give a p-value and no alarm."""
    p, effect = two_sample.categories(before, now)
    assert 0.01 < p <= 1
    assert 0 <= effect <= 1


def test_a_new_category_alarms() -> None:
    """Proves that a format never seen before is noticed when it is more than a few."""
    assert two_sample.categories(["PNG"] * 400, ["PNG"] * 80 + ["JPEG"] * 20)[0] < 1e-4


def test_the_estimate_follows_confidence() -> None:
    """Proves that calibrated confidences give back the accuracy, and fall when confidence falls."""
    chance = np.random.default_rng(2)
    confidence = chance.uniform(0.3, 1, 4000)
    right = chance.random(4000) < confidence**2  # an overconfident model
    calibration = calibrate(confidence, right)
    same = estimate(calibration, chance.uniform(0.3, 1, 4000))
    assert same["accuracy"] == pytest.approx(right.mean(), abs=0.03)
    assert same["low"] < same["accuracy"] < same["high"]
    assert estimate(calibration, chance.uniform(0.3, 0.6, 400))["accuracy"] < same["accuracy"] - 0.15


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(80):
        (folder / f"{seed:03}.png").write_bytes(encoded(photograph(seed, (96, 80))))
    return folder


def test_a_run_is_compared_with_its_baseline(call: Call, photographs: Path, runs: Path) -> None:
    """Proves the whole way: baseline with labels, a quiet run, a dark run that alarms and still succeeds."""
    baseline = runs / "baseline.parquet"
    assert scored(call, "good", photographs).code == 0
    predictions = csv.DictReader((runs / "good/output/predictions.csv").read_text().splitlines())
    labels = photographs.parent / "labels.csv"
    rows = [f"{row['image_id']},{row['label_1'] if n % 4 else ''}" for n, row in enumerate(predictions)]
    labels.write_text("\n".join(["image_id,label", *rows]))
    made = call("baseline", "--run-id", "good", "--output", baseline, "--labels", labels)
    assert (made.code, made.last["images"], made.last["labelled"]) == (0, 80, 60)

    quiet = call("report", "--run-id", "good", "--baseline", baseline)
    assert (quiet.code, quiet.last["drifting"]) == (0, False)
    result = json.loads((runs / "good/quality/drift.json").read_text())
    assert result["estimated_accuracy"]["accuracy"] == pytest.approx(1.0)

    for path in photographs.iterdir():
        with Image.open(path) as image:
            dark = image.point(lambda value: value * 0.5)
        dark.save(path)
    assert scored(call, "dark", photographs).code == 0
    drifted = call("report", "--run-id", "dark", "--baseline", baseline)
    assert (drifted.code, drifted.last["drifting"]) == (0, True)
    result = json.loads((runs / "dark/quality/drift.json").read_text())
    assert {test["name"] for test in result["tests"] if test["drifting"]} >= {"brightness", "contrast"}
    assert "drifted from its baseline" in drifted.err


def test_the_sample_is_embedded_and_compared(
    call: Call, photographs: Path, runs: Path, server: ModelServer
) -> None:
    """Proves that embeddings are asked for the sample alone, judged with the rest, and alarm if they move."""
    server.embedding = 1280
    for run_id in ("good", "quiet"):
        assert scored(call, run_id, photographs, asked=("--embeddings", 60)).code == 0
    assert len(server.embedded) == 120
    baseline = runs / "baseline.parquet"
    assert call("baseline", "--run-id", "good", "--output", baseline).last["images"] == 80
    assert call("report", "--run-id", "quiet", "--baseline", baseline).last["drifting"] is False
    quiet = json.loads((runs / "quiet/quality/drift.json").read_text())
    assert "embeddings" in {test["name"] for test in quiet["tests"]}
    assert quiet["left_out"] == {}

    server.tamper = moved  # the answers and the images stay as they were
    assert scored(call, "moved", photographs).code == 0
    assert call("report", "--run-id", "moved", "--baseline", baseline).last["drifting"] is True
    result = json.loads((runs / "moved/quality/drift.json").read_text())
    assert [test["name"] for test in result["tests"] if test["drifting"]] == ["embeddings"]


def moved(reply: dict[str, Any]) -> bytes:
    """The model server's reply with every embedding turned inside out."""
    for entry in reply["images"]:
        if "embedding" in entry:
            numbers = np.frombuffer(base64.b64decode(entry["embedding"]), "<f4")
            entry["embedding"] = base64.b64encode((2 * numbers).astype("<f4").tobytes()).decode()
    return json.dumps(reply).encode()


def test_embeddings_that_do_not_compare_are_left_out(
    call: Call, photographs: Path, runs: Path, server: ModelServer
) -> None:
    """Proves that a run or baseline without them, or of another model, is judged by the rest and says why."""
    why: list[str] = []
    for run_id, length, digest in (("old", 0, "ab"), ("new", 9, "ab"), ("other", 9, "cd")):
        server.embedding, server.digest = length, "sha256:" + digest * 32
        assert scored(call, run_id, photographs).code == 0
        made = runs / f"{run_id}.parquet"
        assert call("baseline", "--run-id", run_id, "--output", made).code == 0
    for run_id, baseline in (("old", "new"), ("new", "old"), ("other", "new"), ("new", "new")):
        assert call("report", "--run-id", run_id, "--baseline", runs / f"{baseline}.parquet").code == 0
        result = json.loads((runs / run_id / "quality/drift.json").read_text())
        why.append(result["left_out"].get("embeddings", ""))
        assert len(result["tests"]) == (13 if run_id == baseline else 12)
        page = (runs / run_id / "output/report.html").read_text()
        assert ("Not compared: embeddings" in page) == (run_id != baseline)
    assert [text[:24] for text in why] == [
        "the run has 0: the model",
        "the baseline has 0: the ",
        "the baseline is of anoth",
        "",
    ]


def test_a_baseline_of_before_embeddings_still_serves(
    call: Call, photographs: Path, runs: Path, server: ModelServer
) -> None:
    """Proves that a file without the newest column compares all else."""
    server.embedding = 9
    assert scored(call, "r", photographs).code == 0
    path = runs / "baseline.parquet"
    assert call("baseline", "--run-id", "r", "--output", path).code == 0
    pq.write_table(pq.read_table(path).drop_columns(["embedding"]), path)
    assert call("report", "--run-id", "r", "--baseline", path).last["drifting"] is False
    result = json.loads((runs / "r/quality/drift.json").read_text())
    assert "the baseline has 0" in result["left_out"]["embeddings"]


def test_projected_distances_are_nearly_those_of_the_features() -> None:
    """Proves that 64 dimensions keep what a test of distances needs, and that the projection stays."""
    rows = np.random.default_rng(3).gamma(0.5, size=(60, 1280)).astype(np.float32)
    kept = np.array([project(row) for row in rows])
    far = [
        np.linalg.norm(table[:, None] - table[None, :], axis=2)[np.triu_indices(60, 1)]
        for table in (rows, kept)
    ]
    assert np.abs(far[1] / far[0] - 1).mean() < 0.12
    assert project(np.arange(3, dtype=np.float32)) == [0, 1, 2]
    ones = project(np.ones(1280, np.float32))
    assert ones[:3] == [-3.0, 4.5, 0.5]


@pytest.mark.parametrize("content", [b"", b"no parquet at all"])
def test_what_is_no_baseline_is_refused_in_one_line(
    call: Call, images: Path, runs: Path, content: bytes
) -> None:
    """Proves that a wrong or missing baseline file is a configuration error that names the file."""
    assert scored(call, "r", images).code == 0
    wrong = runs / "wrong.parquet"
    if content:
        wrong.write_bytes(content)
    refused = call("report", "--run-id", "r", "--baseline", wrong)
    assert refused.code == 78
    assert str(wrong) in refused.err
    assert call("report", "--run-id", "r", "--baseline", runs / "{model}.parquet").code == 0
