"""The gates: each expectation can fail, and a failure stops the run with a sentence."""

from __future__ import annotations

import csv
import json
import multiprocessing
import re
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from imagebatch.contracts.records import ModelPin, RunDescription
from imagebatch.errors import DataRefusedError
from imagebatch.heads import head_of
from imagebatch.runs.folder import open_run
from imagebatch.stages.check import frames, process, suites, validation

from tests.support.calls import Call, scored
from tests.support.images import jpeg
from tests.support.model_server import DIGEST, LABELS

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
    """Types of the expectations that fail, on the rows and on their totals."""
    totals = frames.Totals()
    totals.add(frame)
    validator = validation.Validator(folder)
    validator.validate(validation.Suite("rows", suites.predictions_suite(DESCRIPTION)), [frame])
    validator.validate(validation.Suite("totals", suites.totals_suite(rows, allowed)), [totals.frame()])
    return {
        f"{name}: {outcome['expectation_config']['type']}"
        for name, found in validator.results.items()
        for outcome in found[0]["results"]
        if not outcome["success"]
    }


def test_good_rows_pass(tmp_path: Path) -> None:
    """The fixture itself is sound, so that each case below fails for its own reason."""
    assert failed(scores(), tmp_path) == set()


@pytest.mark.parametrize(
    ("changes", "expectation"),
    [
        ({"label_1": "unheard-of"}, "rows: expect_column_values_to_be_in_set"),
        ({"model_digest": "sha256:other"}, "rows: expect_column_values_to_be_in_set"),
        ({"reason": "because"}, "rows: expect_column_values_to_be_in_set"),
        ({"complete": False}, "rows: expect_column_values_to_be_in_set"),
        ({"probability_1": 1.5}, "rows: expect_column_values_to_be_between"),
        ({"probability_sum": 1.2}, "rows: expect_column_values_to_be_between"),
        ({"probability_1": 0.2}, "rows: expect_column_pair_values_a_to_be_greater_than_b"),
        ({"sha256": "xyz"}, "rows: expect_column_values_to_match_regex"),
        ({"without_result": 1}, "totals: expect_column_values_to_be_between"),
    ],
)
def test_each_expectation_can_fail(changes: dict[str, Any], expectation: str, tmp_path: Path) -> None:
    """One wrong value in one row is found by exactly the expectation that is about it."""
    assert failed(scores(**changes), tmp_path) == {expectation}


def test_a_double_row_is_found_within_a_frame_and_across_frames(tmp_path: Path) -> None:
    """An id that occurs twice shows among the rows, and as an id that does not rise over all frames."""
    assert failed(scores(image_id="b"), tmp_path) == {
        "rows: expect_column_values_to_be_unique",
        "totals: expect_column_values_to_be_in_set",
    }
    totals = frames.Totals()
    totals.add(scores())
    totals.add(scores(image_id="c").tail(1))
    assert totals.frame()["ids_not_rising"].to_list() == [1]


def test_a_missing_row_is_found(tmp_path: Path) -> None:
    """Counts must reconcile with the stage before."""
    assert failed(scores(), tmp_path, rows=4) == {"totals: expect_column_values_to_be_in_set"}


def test_one_class_for_all_is_found(tmp_path: Path) -> None:
    """A model that answers one class for everything is stopped."""
    totals = frames.Totals("label_1")
    totals.add(pd.concat([scores()] * 7).assign(label_1=[LABELS[0]] * 20 + [LABELS[1]]))
    validator = validation.Validator(tmp_path)
    validator.validate(
        validation.Suite("shares", suites.shares_suite(head_of(DESCRIPTION.model, 2), 0.9)), [totals.shares()]
    )
    assert validator.results["shares"][0]["success"] is False


def test_frames_are_bounded_and_lose_no_row(
    call: Call, images: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the shard size, frames hold at most so many rows, and together all of them, in order."""
    monkeypatch.setattr(frames, "FRAME_ROWS", 9)
    for shard_size in (4, 9, 25):
        run_id = f"r{shard_size}"
        call("preprocess", "--run-id", run_id, "--input", images, "--shard-size", shard_size)
        totals = frames.Totals()
        found = list(frames.manifest_frames(open_run(str(runs), run_id), totals))
        assert [len(frame) for frame in found] == [9, 9, 9, 9, 4]
        assert totals.frame().iloc[0].to_dict() == {"rows": 40, "without_result": 0, "ids_not_rising": 0}


def test_results_and_pages_are_kept(call: Call, images: Path, runs: Path) -> None:
    """Both gates leave JSON and a page to look at, in the run; the page fetches nothing and is small."""
    assert call("run", "--run-id", "r", "--input", images).code == 0
    for suite in ("manifest", "predictions"):
        results = json.loads((runs / f"r/quality/{suite}.json").read_bytes())
        assert all(result["success"] for found in results.values() for result in found)
        assert suite in results
        (page,) = (file for file in (runs / f"r/quality/docs/{suite}").rglob("*") if file.is_file())
        text = page.read_text("utf-8")
        assert (page.name, len(text) < 20_000) == ("index.html", True)
        assert "default-src 'none'" in text
        assert not any(word in text for word in ("http:", "https:", "//", "<script", "@import", "url("))


def test_the_page_says_what_failed_and_escapes_it(tmp_path: Path) -> None:
    """Rows and failures of all frames are added up; a label that is markup is text."""
    evil = "<script>alert(1)</script>"
    model = DESCRIPTION.model.model_copy(update={"labels": [*LABELS, evil]})
    suite = suites.predictions_suite(DESCRIPTION.model_copy(update={"model": model}))
    validator = validation.Validator(tmp_path)
    validator.validate(validation.Suite("rows", suite), [scores(), scores(label_2="<img src=x>")])
    validator.write_docs()
    text = (tmp_path / "index.html").read_text("utf-8")
    assert re.search(r"1 of \d+ expectations failed", text)
    (line,) = [line for line in text.splitlines() if 'class="bad">label_2' in line]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in line
    assert '<td class="number">6</td><td class="number">1</td><td>&lt;img src=x&gt;</td>' in line
    assert "<script" not in text
    assert "<img" not in text


def test_a_failed_gate_is_65_and_keeps_its_report(call: Call, images: Path, runs: Path) -> None:
    """The line counts by reason, names some, says what to do and where the whole of it is."""
    for number in range(5):
        (images / f"out{number}.jpg").symlink_to("/usr/bin/env")
    (images / "broken.jpg").write_bytes(b"no image")
    call("preprocess", "--run-id", "r", "--input", images)
    outcome = call("check", "--run-id", "r", "--suite", "manifest")
    assert outcome.code == 65
    for wanted in (
        "manifest: 6 of 46 images were refused, 2 are allowed (--max-failures 5%):",
        ": 5 outside_allowed_roots, 1 not_an_image; such as out0.jpg (links to /usr/bin/env; see --allowed",
        ", out1.jpg, broken.jpg (",
        f"to do: give --allowed-roots {images},/usr/bin if links may lead there, or allow more",
        f"failures: {runs / 'r/output/failures.csv'}",
        str(runs / "r/quality/manifest.json"),
    ):
        assert wanted in outcome.err
    assert "expect_" not in outcome.err
    report = json.loads((runs / "r/quality/manifest.json").read_bytes())
    assert report["manifest totals"][0]["success"] is False
    with (runs / "r/output/failures.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image_id"] for row in rows] == ["broken.jpg", *(f"out{number}.jpg" for number in range(5))]
    roots = ("--allowed-roots", f"{images},/usr/bin", "--max-failures", 6)
    assert call("run", "--run-id", "s", "--input", images, *roots).last["rejected"] == 6


def test_one_class_is_refused_in_plain_words(call: Call, images: Path, runs: Path) -> None:
    """How many, of which class, which setting says how many may be, and what to do if it is right."""
    for number in range(111):
        (images / f"more{number}.jpg").write_bytes(jpeg(1))
    arguments = ("preprocess", "--input", images, "--max-class-share")
    for run_id, share in (("r", 0.5), ("s", 1)):
        assert call(*arguments, share, "--run-id", run_id).code == 0
        assert call("score", "--run-id", run_id).code == 0
    outcome = call("check", "--run-id", "r", "--suite", "predictions")
    assert outcome.code == 65
    found = re.search(
        r"predictions: (\d+) of 151 predictions \(([\d.]+)%\) are (\S+), at most 50.00%", outcome.err
    )
    assert found
    assert int(found[1]) >= 111
    assert "(--max-class-share 0.5): look at some of them. If that is right, start a new run" in outcome.err
    assert (runs / "r/output/failures.csv").read_text().splitlines() == ["image_id,uri,stage,reason,detail"]
    assert call("check", "--run-id", "s", "--suite", "predictions").code == 0


def test_failures_of_scoring_are_named_by_the_gate(call: Call, images: Path, runs: Path) -> None:
    """What score has tolerated, the gate after it counts together with the rejects."""
    (images / "empty.jpg").write_bytes(b"")
    (images / "broken.jpg").write_bytes(jpeg(3) + b"BROKEN")
    scored(call, "r", images, "--max-failures", "2")
    asked = json.loads((runs / "r/run.json").read_bytes())
    (runs / "r/run.json").write_text(json.dumps(asked | {"max_failures": "1"}))
    outcome = call("check", "--run-id", "r", "--suite", "predictions")
    assert "predictions: 1 of 41 images failed and 1 were refused before, 1 are allowed toge" in outcome.err
    assert "(--max-failures 1): 1 truncated; such as broken.jpg (" in outcome.err
    with (runs / "r/output/failures.csv").open(newline="") as stream:
        assert [(row["image_id"], row["stage"]) for row in csv.DictReader(stream)] == [
            ("broken.jpg", "score"),
            ("empty.jpg", "preprocess"),
        ]


def test_check_needs_the_stage_before(call: Call, images: Path) -> None:
    """Checked too early: one line that says what to finish first."""
    call("preprocess", "--run-id", "r", "--input", images)
    outcome = call("check", "--run-id", "r", "--suite", "predictions")
    assert (outcome.code, "finish imagebatch score --shard 0 first" in outcome.err) == (78, True)


def test_a_process_of_its_own_gives_the_same(call: Call, images: Path, runs: Path, tmp_path: Path) -> None:
    """It returns and raises what a check in this process does, and ends with its block."""
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    program = f"""
import multiprocessing
from imagebatch import log
from imagebatch.stages.check.process import CheckProcess
from imagebatch.settings import CheckSettings

def settings(run_id):
    return CheckSettings(run_id=run_id, runs_uri={str(runs)!r}, suite="manifest")

if __name__ == "__main__":
    log.configure("error")
    with CheckProcess("error") as checks:
        (process,) = multiprocessing.active_children()
        print(checks.check(settings("r")).expectations)
        try:
            checks.check(settings("missing"))
        except Exception as error:
            print(type(error).__name__)
        process.kill()
        process.join()
        print(checks.check(settings("r")).failed_expectations)  # in the parent
    print(multiprocessing.active_children())
"""
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:4] == ["13", "ConfigurationError", "0", "[]"]


def test_an_error_of_that_process_keeps_its_traceback() -> None:
    """One that cannot be pickled arrives, too; one of imagebatch's own arrives as it is."""

    class OwnError(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(f"{first} and {second}")

    def fail() -> None:
        raise OwnError(1, 2)

    here, there = multiprocessing.Pipe()
    with here, there:
        try:
            fail()
        except OwnError as error:
            there.send(process.sendable(error))
        arrived = here.recv()
    details = "".join(traceback.format_exception(arrived))
    assert str(arrived) == "OwnError: 1 and 2"
    assert "In the process of the checks:" in details
    assert "raise OwnError(1, 2)" in details
    refused = DataRefusedError("no")
    assert process.sendable(refused) is refused
