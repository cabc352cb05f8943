"""The gates: each expectation can fail, and a failure stops the run with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Call
from imagebatch.contracts import ModelPin, RunDescription
from imagebatch.quality import suites, validation
from model_server import DIGEST, LABELS

DESCRIPTION = RunDescription(
    run_id="r",
    code_version="0",
    input="x",
    manifest="",
    include="*",
    allowed_roots="",
    limit=0,
    shard_size=10,
    backend="torchserve",
    top_k=2,
    max_failures="5%",
    max_class_share=0.9,
    max_image_bytes=1000,
    max_image_pixels=100,
    model=ModelPin(name="m", version="1", digest=DIGEST, labels=LABELS),
)


def scores(**changes: Any) -> pd.DataFrame:
    """Three good score rows, with columns of the last one changed."""
    row = {
        "sha256": "a" * 64,
        "model_digest": DIGEST,
        "reason": None,
        "label_1": LABELS[0],
        "label_2": LABELS[1],
        "probability_1": 0.75,
        "probability_2": 0.25,
        "probability_sum": 1.0,
        "without_result": 0,
        "complete": True,
    }
    rows = [row | {"image_id": name} for name in "abc"]
    rows[-1] |= changes
    return pd.DataFrame(rows)


def failed(frame: pd.DataFrame, folder: Path, *, rows: int = 3, allowed: int = 0) -> set[str]:
    """Types of the expectations that fail."""
    suite = validation.Suite("s", frame, suites.predictions_suite(DESCRIPTION, rows, allowed))
    results = validation.validate([suite], folder)["s"]["results"]
    return {outcome["expectation_config"]["type"] for outcome in results if not outcome["success"]}


def test_good_rows_pass(tmp_path: Path) -> None:
    """The fixture itself is sound, so that each case below fails for its own reason."""
    assert failed(scores(), tmp_path) == set()


@pytest.mark.parametrize(
    ("changes", "expectation"),
    [
        ({"image_id": "a"}, "expect_column_values_to_be_unique"),
        ({"image_id": None}, "expect_column_values_to_not_be_null"),
        ({"label_1": "unheard-of"}, "expect_column_values_to_be_in_set"),
        ({"model_digest": "sha256:other"}, "expect_column_values_to_be_in_set"),
        ({"reason": "because"}, "expect_column_values_to_be_in_set"),
        ({"complete": False}, "expect_column_values_to_be_in_set"),
        ({"probability_1": 1.5}, "expect_column_values_to_be_between"),
        ({"probability_sum": 1.2}, "expect_column_values_to_be_between"),
        ({"probability_1": 0.2}, "expect_column_pair_values_a_to_be_greater_than_b"),
        ({"sha256": "xyz"}, "expect_column_values_to_match_regex"),
        ({"without_result": 1}, "expect_column_sum_to_be_between"),
    ],
)
def test_each_expectation_can_fail(changes: dict[str, Any], expectation: str, tmp_path: Path) -> None:
    """One wrong value in one row is found by exactly the expectation that is about it."""
    assert failed(scores(**changes), tmp_path) == {expectation}


def test_a_missing_row_is_found(tmp_path: Path) -> None:
    """Counts must reconcile with the stage before."""
    assert failed(scores(), tmp_path, rows=4) == {"expect_table_row_count_to_equal"}


def test_one_class_for_all_is_found(tmp_path: Path) -> None:
    """A model that answers one class for everything is stopped."""
    shares = pd.DataFrame({"label": LABELS[:2], "share": [0.95, 0.05]})
    suite = validation.Suite("shares", shares, suites.shares_suite(LABELS, 0.9))
    results = validation.validate([suite], tmp_path)["shares"]
    assert results["success"] is False


def test_results_and_data_docs_are_kept(call: Call, images: Path, runs: Path) -> None:
    """Both gates leave JSON and a page to look at, in the run."""
    assert call("run", "--run-id", "r", "--input", images).code == 0
    for suite in ("manifest", "predictions"):
        results = json.loads((runs / f"r/quality/{suite}.json").read_bytes())
        assert results[suite]["success"] is True
        assert (runs / f"r/quality/docs/{suite}/index.html").stat().st_size > 1000


def test_a_failed_gate_is_65_and_keeps_its_report(call: Call, images: Path, runs: Path) -> None:
    """The line says which expectation, what was seen, and where the whole report is."""
    (images / "broken.jpg").write_bytes(b"no image")
    call("preprocess", "--run-id", "r", "--input", images, "--max-failures", "0")
    outcome = call("check", "--run-id", "r", "--suite", "manifest")
    assert outcome.code == 65
    assert "expect_column_sum_to_be_between" in outcome.err
    assert str(runs / "r/quality/manifest.json") in outcome.err
    assert json.loads((runs / "r/quality/manifest.json").read_bytes())["manifest"]["success"] is False


def test_check_needs_the_stage_before(call: Call, images: Path) -> None:
    """Checked too early: one line that says what to finish first."""
    call("preprocess", "--run-id", "r", "--input", images)
    outcome = call("check", "--run-id", "r", "--suite", "predictions")
    assert (outcome.code, "finish imagebatch score --shard 0 first" in outcome.err) == (78, True)
