"""Columns of predictions: labels as they are, and the numbers of the classes for whoever asks for them."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.calls import Call, scored
from tests.support.images import jpeg
from tests.support.model_server import ModelServer, answer_to

TWINS = ["crane", "crane", "maillot", "hen"]


def rows_of(runs: Path, run_id: str) -> list[list[str]]:
    """The lines of predictions.csv, header included, as Python's csv reads them."""
    with (runs / run_id / "output/predictions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@pytest.mark.parametrize("labels", [["a", "b", "c", "d"], TWINS])
def test_class_indices_follow_the_other_columns(
    call: Call, images: Path, runs: Path, server: ModelServer, labels: list[str]
) -> None:
    """With the flag they are what the model means, in both files; without it nothing knows of any."""
    server.labels = labels
    assert scored(call, "off", images, "--top-k", 3).code == 0
    assert scored(call, "on", images, "--top-k", 3, "--class-index").code == 0
    plain, more = rows_of(runs, "off"), rows_of(runs, "on")
    assert plain == [line[:-3] for line in more]
    assert more[0][-3:] == ["class_index_1", "class_index_2", "class_index_3"]
    for line in more[1:]:
        bare = answer_to((images / line[0]).read_bytes(), 3, list("0123"))
        assert line[-3:] == bare["labels"]
        assert [labels[int(index)] for index in line[-3:]] == line[2:5]
    table = pq.read_table(runs / "on/output/predictions.parquet").select(more[0][-3:])
    assert [[str(value) for value in row.values()] for row in table.to_pylist()] == [r[-3:] for r in more[1:]]
    assert "class_index" not in (runs / "off/run.json").read_text()
    assert call("verify", "--run-id", "on").code == 0


def test_class_indices_come_through_cache_resume_and_redrive(
    call: Call, images: Path, runs: Path, server: ModelServer, tmp_path: Path
) -> None:
    """Wherever a prediction comes from, its class is the same."""
    server.labels = TWINS
    flags = ("--class-index", "--max-failures", "100%")
    assert scored(call, "calm", images, *flags).code == 0
    good = (images / "001.jpg").read_bytes()
    (images / "001.jpg").write_bytes(b"no image")
    for run_id in ("filled", "warm"):
        server.images.clear()
        assert scored(call, run_id, images, *flags, asked=("--cache", tmp_path / "cache")).code == 0
    assert server.images == []
    done = runs / "warm/scores/shard-00000/_DONE.json"
    done.unlink()
    assert call("score", "--run-id", "warm").last["resumed"] == 39
    (images / "001.jpg").write_bytes(good)
    assert call("redrive", "--run-id", "warm").code == 0
    assert rows_of(runs, "warm") == rows_of(runs, "calm")


def test_twins_are_told(call: Call, images: Path, server: ModelServer) -> None:
    """Preprocess names what several classes are called; a model that does not tell which ends with 78."""
    server.labels = TWINS
    outcome = call("preprocess", "--run-id", "r", "--input", images, "--class-index")
    assert "several classes of the model have one name" in outcome.err
    assert "crane" in outcome.err
    server.tells_classes = False
    refused = call("score", "--run-id", "r")
    assert (refused.code, "make the archive again" in refused.err) == (78, True)
    assert scored(call, "plain", images).code == 0
    again = call("preprocess", "--run-id", "r", "--input", images)
    assert (again.code, "started with another class_index" in again.err) == (78, True)


def test_names_that_look_like_something_else_stay_text(
    call: Call, tmp_path: Path, runs: Path, server: ModelServer
) -> None:
    """Labels that table readers take for nothing, numbers or truth are in both files as they are."""
    server.labels = ["None", "NA", "1e5", "true"]
    folder = tmp_path / "few"
    folder.mkdir()
    for seed in range(20):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    assert call("run", "--run-id", "r", "--input", folder, "--no-report").code == 0
    lines = rows_of(runs, "r")[1:]
    assert {label for line in lines for label in line[2:6]} == set(server.labels)
    table = pq.read_table(runs / "r/output/predictions.parquet")
    assert table["label_1"].to_pylist() == [line[2] for line in lines]
