"""The column `review`: which predictions it marks, where it stands, and that nothing else changes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.calls import Call, scored
from tests.support.model_server import LABELS, ModelServer

MULTILABEL = {"head": "multilabel", "thresholds": [0.5] * 4}


def table(runs: Path, run_id: str) -> list[dict[str, str]]:
    with (runs / run_id / "output/predictions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def median(runs: Path, run_id: str) -> float:
    return float(np.median([float(row["probability_1"]) for row in table(runs, run_id)]))


def test_the_unsure_are_marked_and_nothing_else_changes(call: Call, images: Path, runs: Path) -> None:
    """With the flag the column is our last and true exactly below the threshold; without, no trace."""
    assert scored(call, "off", images).code == 0
    below = median(runs, "off")
    assert scored(call, "on", images, "--review-below", below).code == 0
    plain, marked = table(runs, "off"), table(runs, "on")
    assert list(marked[0]) == [*plain[0], "review"]
    assert [{**row, "review": None} for row in plain] == [{**row, "review": None} for row in marked]
    exact = pq.read_table(runs / "on/output/predictions.parquet").to_pylist()
    for row, whole in zip(marked, exact, strict=True):
        expected = np.float32(whole["probability_1"]) < np.float32(below)
        assert (whole["review"], row["review"]) == (expected, "true" if expected else "false")
    assert {row["review"] for row in marked} == {"true", "false"}
    assert json.loads((runs / "on/run.json").read_bytes())["review_below"] == below
    for file in ("run.json", "output/certificate.json"):
        assert "review" not in (runs / "off" / file).read_text()
    assert call("verify", "--run-id", "on").code == 0
    again = call("preprocess", "--run-id", "on", "--input", images)
    assert (again.code, "started with another review_below" in again.err) == (78, True)


def test_the_check_looks_at_it_and_the_report_counts_it(call: Call, images: Path, runs: Path) -> None:
    """A whole run has an expectation for the column, and its count on the page and in the run's figures."""
    assert call("run", "--run-id", "r", "--input", images, "--review-below", 1).code == 0
    results = json.loads((runs / "r/quality/predictions.json").read_bytes())
    columns = {
        one["expectation_config"]["kwargs"].get("column")
        for found in results.values()
        for result in found
        for one in result["results"]
    }
    assert "review" in columns
    text = (runs / "r/output/report.html").read_text()
    assert "40 of 40 predictions are marked" in text
    assert json.loads((runs / "_history/r.json").read_bytes())["review"] == 40
    assert "To review" in (runs / "_history/history.html").read_text()


def test_a_threshold_that_the_model_declares(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """`auto` takes the model's own, which run.json and certificate keep; a model without one is told of."""
    refused = call("preprocess", "--run-id", "r", "--input", images, "--review-below", "auto")
    assert (refused.code, "declares no threshold" in refused.err) == (78, True)
    server.head = {"review": 0.75}
    assert scored(call, "auto", images, "--review-below", "auto").code == 0
    asked = json.loads((runs / "auto/run.json").read_bytes())
    assert (asked["review_below"], asked["model"]["review"]) == (0.75, 0.75)
    assert all(
        (row["review"] == "true") == (float(row["probability_1"]) < 0.75) for row in table(runs, "auto")
    )
    assert call("verify", "--run-id", "auto").code == 0


def test_sets_of_labels_are_marked_by_their_least_distance_to_a_threshold(
    call: Call, images: Path, runs: Path, server: ModelServer
) -> None:
    """A label's probability near its threshold is what makes a set of labels unsure."""
    server.head = MULTILABEL

    def sigmoids(reply: dict[str, object]) -> bytes:
        entries = reply.get("images")
        for number, entry in enumerate(entries if isinstance(entries, list) else []):
            values = [0.9, 0.1, 0.52 if number % 2 else 0.7, 0.2]
            labels = [name for name, value in zip(LABELS, values, strict=True) if value >= 0.5]
            entry |= {"labels": labels, "probabilities": values}
        return json.dumps(reply | {"head": "multilabel"}).encode()

    server.tamper = sigmoids
    assert scored(call, "r", images, "--review-below", "0.1").code == 0
    found = table(runs, "r")
    assert {row["review"] for row in found} == {"true", "false"}
    near = LABELS[2]
    assert all((row["review"] == "true") == (row[f"probability_{near}"] == "0.520000") for row in found)


def test_a_number_has_no_certainty(call: Call, images: Path, server: ModelServer) -> None:
    """A regression is refused in one line."""
    server.labels = []
    server.head = {"head": "regression", "quantity": {"name": "thickness"}}
    refused = call("preprocess", "--run-id", "r", "--input", images, "--review-below", "0.5")
    assert (refused.code, "is a regression: leave it out" in refused.err) == (78, True)


@pytest.mark.parametrize("wrong", ["0", "1.5", "-1", "much", "nan"])
def test_a_threshold_must_be_one(call: Call, images: Path, wrong: str) -> None:
    """What is no probability is refused before anything is read."""
    outcome = call("preprocess", "--run-id", "r", "--input", images, f"--review-below={wrong}")
    assert (outcome.code, "must be a probability above 0 and at most 1, or auto" in outcome.err) == (2, True)
