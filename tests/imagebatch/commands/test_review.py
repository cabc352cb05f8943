"""Handing out: which images, in which order, with what, and nothing that may not be read."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.calls import Call, scored
from tests.support.images import jpeg
from tests.support.model_server import LABELS, ModelServer

HOSTILE = "<img src=x onerror=alert(1)> \"&'.jpg"
FORMATS = ("label-studio", "cvat", "csv")


@pytest.fixture
def finished(call: Call, images: Path) -> Path:
    """A run that marks half of its images, one of them with a name that is markup."""
    (images / HOSTILE).write_bytes(jpeg(99))
    assert scored(call, "r", images, "--review-below", 0.6).code == 0
    return images


def answers(runs: Path, run_id: str = "r") -> dict[str, tuple[str, float]]:
    rows = pq.read_table(runs / run_id / "output/predictions.parquet").to_pylist()
    return {row["image_id"]: (row["label_1"], row["probability_1"]) for row in rows}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def exported(call: Call, out: Path, *more: object, name: str = "csv") -> list[dict[str, str]]:
    assert call("review", "export", "--run-id", "r", "--format", name, "--out", out, *more).code == 0
    if name != "csv":
        return []
    with (out / "queue.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.usefixtures("finished")
def test_the_least_certain_come_first(call: Call, runs: Path, tmp_path: Path) -> None:
    """Exactly what the run marks, by rising probability; pictures sort in the same order; a limit cuts."""
    rows = exported(call, tmp_path / "all")
    said = answers(runs)
    marked = sorted((probability, name) for name, (_, probability) in said.items() if probability < 0.6)
    assert [row["image_id"] for row in rows] == [name for _, name in marked]
    assert len(rows) not in {0, len(said)}
    assert [row["predicted"] for row in rows] == [said[row["image_id"]][0] for row in rows]
    pictures = [row["picture"] for row in rows]
    assert (
        pictures
        == sorted(pictures)
        == sorted(f"images/{p.name}" for p in (tmp_path / "all/images").iterdir())
    )
    assert {row["why"] for row in rows} == {"review"}
    outcome = call(
        "review", "export", "--run-id", "r", "--format", "csv", "--out", tmp_path / "few", "--limit", 3
    )
    assert (outcome.last["pictures"], outcome.last["beyond_limit"]) == (3, len(rows) - 3)
    assert len(exported(call, tmp_path / "above", "--below", 1)) == len(said)


@pytest.mark.usefixtures("finished")
def test_the_sample_is_random_and_the_same_every_time(call: Call, runs: Path, tmp_path: Path) -> None:
    """A sample is drawn from all predictions, a smaller one is part of it, and it is told from the queue."""
    first = exported(call, tmp_path / "a", "--no-queue", "--sample", 12)
    second = exported(call, tmp_path / "b", "--sample", 20)
    assert {row["why"] for row in first} == {"sample"}
    sampled = {row["image_id"] for row in second if "sample" in row["why"]}
    assert {row["image_id"] for row in first} < sampled
    assert len(sampled) == 20
    assert {row["why"] for row in second} == {"review", "sample", "review sample"}
    certain = [name for name, (_, probability) in answers(runs).items() if probability >= 0.6]
    assert sampled & set(certain)
    assert json.loads((runs / "_labels/r.json").read_bytes())["sample"] == 20


@pytest.mark.usefixtures("finished")
def test_every_format_has_what_its_tool_reads(call: Call, runs: Path, tmp_path: Path) -> None:
    """Pre-annotations carry label and probability; with --no-predictions nobody sees them."""
    said = answers(runs)
    exported(call, tmp_path / "ls", name="label-studio")
    tasks = json.loads((tmp_path / "ls/tasks.json").read_text("utf-8"))
    for task in tasks:
        label, probability = said[task["data"]["image_id"]]
        (prediction,) = task["predictions"]
        assert prediction["result"][0]["value"]["choices"] == [label]
        assert prediction["score"] == pytest.approx(probability, abs=1e-6)
        picture = task["data"]["image"].removeprefix("/data/local-files/?d=")
        with Image.open(tmp_path / "ls" / picture) as opened:
            assert (opened.format, max(opened.size) <= 1024) == ("JPEG", True)
    config = ET.parse(tmp_path / "ls/label-config.xml").getroot()  # noqa: S314 (our own)
    assert [choice.get("value") for choice in config.iter("Choice")] == LABELS

    exported(call, tmp_path / "cvat", name="cvat")
    root = ET.parse(tmp_path / "cvat/annotations.xml").getroot()  # noqa: S314 (our own)
    assert [image.get("name") for image in root.iter("image")] == names_in(tmp_path / "cvat/images")
    for image in root.iter("image"):
        with Image.open(tmp_path / "cvat/images" / image.get("name", "")) as opened:
            assert (image.get("width"), image.get("height")) == tuple(map(str, opened.size))
    assert [one["name"] for one in json.loads((tmp_path / "cvat/labels.json").read_text())] == LABELS

    for name in FORMATS:
        exported(call, tmp_path / f"blind-{name}", "--no-predictions", name=name)
    blind = (tmp_path / "blind-csv/queue.csv", tmp_path / "blind-label-studio/tasks.json")
    for file in (*blind, tmp_path / "blind-cvat/annotations.xml", tmp_path / "blind-csv/sheet.html"):
        text = file.read_text("utf-8")
        assert "0.5" not in text.replace("0.5rem", ""), file
        assert "probability\n" not in text
    assert "<tag" not in (tmp_path / "blind-cvat/annotations.xml").read_text()


@pytest.mark.usefixtures("finished")
def test_hostile_names_are_text(call: Call, tmp_path: Path) -> None:
    """A name that is markup is text on the sheet and no part of any path."""
    rows = exported(call, tmp_path / "out", "--below", 1)
    assert HOSTILE in {row["image_id"] for row in rows}
    sheet = (tmp_path / "out/sheet.html").read_text("utf-8")
    assert "<img src=x" not in sheet
    assert "&lt;img src=x onerror=alert(1)&gt;" in sheet
    assert "script" not in sheet
    assert all(name.replace("-", "").replace(".", "").isalnum() for name in names_in(tmp_path / "out/images"))


def test_what_may_not_be_read_is_not_handed_out(
    call: Call, finished: Path, runs: Path, tmp_path: Path
) -> None:
    """A file that was replaced by a link outside, changed or removed since is left out, and counted."""
    (tmp_path / "secret.jpg").write_bytes(jpeg(3))
    ids = sorted(answers(runs))[:3]
    (finished / ids[0]).unlink()
    (finished / ids[0]).symlink_to(tmp_path / "secret.jpg")
    (finished / ids[1]).write_bytes(jpeg(12345))
    (finished / ids[2]).unlink()
    outcome = call(
        "review", "export", "--run-id", "r", "--format", "csv", "--out", tmp_path / "out", "--below", 1
    )
    assert (outcome.code, outcome.last["unavailable"], outcome.last["pictures"]) == (0, 3, 38)
    for reason in ("outside_allowed_roots", "not the file that was scored any more", "not_found"):
        assert reason in outcome.err
    assert not set(ids) & {
        row["image_id"] for row in csv.DictReader(io.StringIO((tmp_path / "out/queue.csv").read_text()))
    }


def test_what_cannot_be_handed_out_is_one_line(
    call: Call, finished: Path, tmp_path: Path, server: ModelServer
) -> None:
    """No threshold, a folder that is used, nothing to look at, another head, no finished run."""
    assert scored(call, "plain", finished).code == 0
    asked = ("--format", "csv", "--out", tmp_path / "out")
    refused = call("review", "export", "--run-id", "plain", *asked)
    assert (refused.code, "marks no prediction for review: give --below" in refused.err) == (78, True)
    assert call("review", "export", "--run-id", "plain", *asked, "--below", 0.0001).code == 99
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    refused = call("review", "export", "--run-id", "r", *asked)
    assert (refused.code, "holds something already" in refused.err) == (78, True)
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    assert call("review", "export", "--run-id", "none", *asked).code == 78
    server.labels = []
    server.head = {"head": "regression", "quantity": {"name": "thickness"}}
    server.tamper = lambda reply: json.dumps(
        reply
        | (
            {"head": "regression", "images": [{"id": one["id"], "score": 1.5} for one in reply["images"]]}
            if "images" in reply
            else {}
        )
    ).encode()
    assert scored(call, "numbers", finished).code == 0
    refused = call("review", "export", "--run-id", "numbers", *asked, "--below", 0.5)
    assert (refused.code, "models that name one class" in refused.err) == (78, True)
