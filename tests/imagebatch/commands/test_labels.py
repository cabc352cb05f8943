"""Reading back: labels with where they come from, accuracy from the sample alone, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support import review_exports
from tests.support.calls import Call, scored
from tests.support.gateway import Gateway
from tests.support.images import jpeg
from tests.support.model_server import LABELS

FORMATS = ("label-studio", "cvat", "csv")
Judge = Callable[[str], str]


@pytest.fixture
def finished(call: Call, images: Path) -> Path:
    """A run with a report that marks half of its images."""
    assert scored(call, "r", images, "--review-below", 0.6).code == 0
    assert call("report", "--run-id", "r", "--pipeline", "nightly").code == 0
    return images


def predicted(runs: Path) -> dict[str, str]:
    rows = pq.read_table(runs / "r/output/predictions.parquet").to_pylist()
    return {row["image_id"]: row["label_1"] for row in rows}


def handed_out(call: Call, out: Path, name: str, *more: object) -> list[dict[str, str]]:
    """Hand out, and say what is in the folder, by the CSV of the same images."""
    for each, folder in ((name, out), ("csv", out.with_name(f"{out.name}-csv"))):
        asked = ("--run-id", "r", "--format", each, "--out", folder, *more)
        assert call("review", "export", *asked).code == 0
    with (out.with_name(f"{out.name}-csv") / "queue.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def export_of(name: str, out: Path, judge: Judge, rows: list[dict[str, str]]) -> bytes:
    if name == "label-studio":
        return review_exports.label_studio(out, judge)
    if name == "cvat":
        ids = {row["picture"].removeprefix("images/"): row["image_id"] for row in rows}
        return review_exports.cvat(out, judge, ids)
    return review_exports.table(out, judge)


def kept(runs: Path) -> list[dict[str, str]]:
    with (runs / "_labels/r.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def history(runs: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((runs / "_history/r.json").read_bytes())
    return content


@pytest.mark.parametrize("name", FORMATS)
def test_labels_come_back_with_where_they_come_from(
    call: Call, finished: Path, runs: Path, tmp_path: Path, name: str
) -> None:
    """Each has run, model, what the model had said, who, when and the file; the sample gives the accuracy."""
    said = predicted(runs)
    rows = handed_out(call, tmp_path / "out", name, "--sample", 15)
    # Every third image of the queue, and one of the sample alone, the model had got wrong.
    sample = [row["image_id"] for row in rows if "sample" in row["why"]]
    wrong = {row["image_id"] for row in rows[::3]}

    def judge(image_id: str) -> str:
        return LABELS[(LABELS.index(said[image_id]) + 1) % 4] if image_id in wrong else said[image_id]

    (tmp_path / "export").write_bytes(export_of(name, tmp_path / "out", judge, rows))
    asked = ("--run-id", "r", "--format", name, "--file", tmp_path / "export", "--accept-predictions")
    outcome = call("labels", "import", *asked)
    assert outcome.code == 0, outcome.err
    assert (outcome.last["imported"], outcome.last["changed"]) == (len(rows), len(wrong))
    right = sum(image_id not in wrong for image_id in sample)
    assert outcome.last["accuracy"] == pytest.approx(right / 15, abs=1e-6)
    assert outcome.last["accuracy_low"] < right / 15 < outcome.last["accuracy_high"]
    labels = {row["image_id"]: row for row in kept(runs)}
    assert labels.keys() == {row["image_id"] for row in rows}
    for image_id, row in labels.items():
        assert (row["label"], row["predicted"]) == (judge(image_id), said[image_id])
        assert (row["run_id"], row["model"], row["model_digest"][:7]) == ("r", "solar-cells", "sha256:")
        assert row["part"] == ("test" if image_id in sample else "train")
        assert (finished / row["image"]).is_file()
        assert row["annotator"] == {"label-studio": "ann@example.org"}.get(name, "ann")
        assert (row["labelled_at"] != "") == (name != "csv")
    figures = history(runs)
    assert (figures["accuracy"], figures["accuracy_labelled"]) == (outcome.last["accuracy"], 15)
    assert "Accuracy, by people" in (runs / "_history/history.html").read_text()
    # A report that is made again does not lose it; the same labels again change nothing.
    assert call("report", "--run-id", "r", "--pipeline", "nightly").code == 0
    assert history(runs)["accuracy"] == outcome.last["accuracy"]
    assert "by 15 labels of a random sample" in (runs / "r/output/report.html").read_text()
    before = kept(runs)
    assert call("labels", "import", *asked).last["labelled"] == len(rows)
    assert kept(runs) == before


@pytest.mark.usefixtures("finished")
def test_the_queue_is_no_measure_of_the_run(call: Call, runs: Path, tmp_path: Path) -> None:
    """Labels of hard images alone give no accuracy; half a sample gives the interval of what is not known."""
    said = predicted(runs)
    rows = handed_out(call, tmp_path / "queue", "csv")
    (tmp_path / "export").write_bytes(review_exports.table(tmp_path / "queue", said.__getitem__))
    asked = ("--run-id", "r", "--format", "csv", "--file", tmp_path / "export")
    outcome = call("labels", "import", *asked)
    assert (outcome.last["imported"], outcome.last["sample"], outcome.last["accuracy"]) == (
        len(rows),
        0,
        None,
    )
    assert history(runs)["accuracy"] is None
    assert "Accuracy, by people" not in (runs / "_history/history.html").read_text()
    review = json.loads((runs / "_labels/r.json").read_bytes())
    assert review["queue"] == {"labelled": len(rows), "right": len(rows)}

    handed_out(call, tmp_path / "sample", "csv", "--sample", 20, "--no-queue")
    half = sorted(said)[::2]
    (tmp_path / "export").write_bytes(
        review_exports.table(tmp_path / "sample", lambda name: said[name] if name in half else "")
    )
    outcome = call("labels", "import", *asked)
    assert outcome.last["without"] > 0
    review = json.loads((runs / "_labels/r.json").read_bytes())["accuracy"]
    assert review["sample"] == 20
    assert review["labelled"] < 20
    assert review["accuracy"] == 1
    assert review["low"] < review["labelled"] / 20 < review["high"]
    parts = {row["image_id"]: row["part"] for row in kept(runs)}
    queue = json.loads((runs / "_labels/r.json").read_bytes())["queue"]
    assert sorted(parts.values()).count("test") == review["labelled"]
    assert queue["labelled"] + review["labelled"] == len(parts)


@pytest.mark.usefixtures("finished")
def test_what_nobody_has_touched_is_no_label(call: Call, runs: Path, tmp_path: Path) -> None:
    """Tags that are still CVAT's copies of the model's count only where people say that they looked."""
    said = predicted(runs)
    rows = handed_out(call, tmp_path / "out", "cvat")
    ids = {row["picture"].removeprefix("images/"): row["image_id"] for row in rows}
    first = rows[0]["image_id"]
    other = LABELS[(LABELS.index(said[first]) + 1) % 4]
    data = review_exports.cvat(tmp_path / "out", lambda name: other if name == first else said[name], ids)
    (tmp_path / "export").write_bytes(data)
    asked = ("--run-id", "r", "--format", "cvat", "--file", tmp_path / "export")
    outcome = call("labels", "import", *asked)
    assert (outcome.last["imported"], outcome.last["untouched"]) == (1, len(rows) - 1)
    assert [row["image_id"] for row in kept(runs)] == [first]
    nobody = review_exports.cvat(tmp_path / "out", said.__getitem__, ids)
    (tmp_path / "export").write_bytes(nobody)
    refused = call("labels", "import", *asked)
    assert (refused.code, "give --accept-predictions" in refused.err) == (65, True)


@pytest.mark.usefixtures("finished")
def test_the_small_export_of_label_studio_is_read(call: Call, runs: Path, tmp_path: Path) -> None:
    """JSON_MIN holds the task's data and one answer."""
    said = predicted(runs)
    handed_out(call, tmp_path / "out", "label-studio")
    data = review_exports.label_studio(tmp_path / "out", said.__getitem__, small=True)
    (tmp_path / "export").write_bytes(data)
    outcome = call(
        "labels", "import", "--run-id", "r", "--format", "label-studio", "--file", tmp_path / "export"
    )
    assert (outcome.code, outcome.last["changed"]) == (0, 0)
    assert {row["annotator"] for row in kept(runs)} == {"7"}


def test_labels_join_a_training_table(call: Call, finished: Path, runs: Path, tmp_path: Path) -> None:
    """Rows that were there stay, the same image gets its new label, and odd names are safe."""
    said = predicted(runs)
    handed_out(call, tmp_path / "out", "csv", "--below", 1)
    (tmp_path / "export").write_bytes(review_exports.table(tmp_path / "out", said.__getitem__))
    table = tmp_path / "training.csv"
    table.write_text("image,label,site\r\nold/a.jpg,mono-sound,north\r\nimages/001.jpg,wrong,south\r\n")
    asked = ("--run-id", "r", "--format", "csv", "--file", tmp_path / "export", "--training-csv", table)
    outcome = call("labels", "import", *asked, "--images", tmp_path)
    assert outcome.code == 0, outcome.err
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {"image": "old/a.jpg", "label": "mono-sound", "site": "north"}
    assert len(rows) == 1 + len(said)
    by_image = {row["image"]: row["label"] for row in rows}
    assert by_image["images/001.jpg"] == said["001.jpg"]
    assert all((tmp_path / name).is_file() for name in by_image if name != "old/a.jpg")
    table.write_text("file,class\r\n")
    refused = call("labels", "import", *asked)
    assert (refused.code, "has no column image: it has file, class" in refused.err) == (65, True)
    assert finished.is_dir()


def test_names_that_a_spreadsheet_would_compute_are_written_as_paths(
    call: Call, images: Path, runs: Path, tmp_path: Path
) -> None:
    """A file named like a formula is trained on under the same path, which is no formula."""
    (images / "=1+1.jpg").write_bytes(jpeg(98))
    (images / "a\nb.jpg").write_bytes(jpeg(97))
    assert scored(call, "r", images, "--review-below", 1).code == 0
    said = predicted(runs)
    handed_out(call, tmp_path / "out", "csv")
    (tmp_path / "export").write_bytes(review_exports.table(tmp_path / "out", said.__getitem__))
    outcome = call("labels", "import", "--run-id", "r", "--format", "csv", "--file", tmp_path / "export")
    assert outcome.code == 0, outcome.err
    paths = {row["image_id"]: row["image"] for row in kept(runs)}
    assert (paths["%3D1+1.jpg"], paths["a%0Ab.jpg"]) == ("./=1+1.jpg", "")


REFUSED: list[tuple[str, str | bytes, str]] = [
    ("csv", "image_id,label\r\n001.jpg,mono-sond\r\n", "'mono-sond' (1 image, did you mean mono-sound?)"),
    (
        "csv",
        "image_id,label\r\nz.jpg,mono-sound\r\n001.jpg,mono-sound\r\n",
        "1 of 2 labels are of images that run r",
    ),
    ("csv", "image_id,label,run_id\r\n001.jpg,mono-sound,s\r\n", "the export is of run s, not of r"),
    ("csv", "name,label\r\n", "the CSV has no column image_id"),
    ("csv", "image_id,label\r\n001.jpg,\r\n", "holds no label of a person"),
    ("csv", "image_id,label\r\n\xff".encode("latin-1"), "the CSV is not UTF-8"),
    ("label-studio", "{}", "it is a list of tasks"),
    ("label-studio", "[{}]", "task 1 lacks 'image_id'"),
    ("label-studio", "<a/>", "no JSON export of Label Studio"),
    ("cvat", "[]", "no annotations of CVAT"),
    ("cvat", "<html/>", "not <annotations>"),
    (
        "cvat",
        '<annotations><image name="001.jpg"><tag label="mono-sound"/></image></annotations>',
        "1 of 1 labels",
    ),
]


@pytest.mark.usefixtures("finished")
def test_what_does_not_fit_is_one_line_and_changes_nothing(call: Call, runs: Path, tmp_path: Path) -> None:
    """Nothing is kept of an export that is not wholly of this run."""
    for name, data, said in REFUSED:
        (tmp_path / "export").write_bytes(data if isinstance(data, bytes) else data.encode())
        asked = ("--run-id", "r", "--format", name, "--file", tmp_path / "export")
        outcome = call("labels", "import", *asked)
        assert (outcome.code, said in outcome.err) == (65, True), outcome.err
        assert len(outcome.err.splitlines()) == 1
    assert not (runs / "_labels").exists()
    missing = call("labels", "import", "--run-id", "r", "--format", "csv", "--file", tmp_path / "no")
    assert (missing.code, "No such file" in missing.err) == (78, True)


def test_accuracy_is_pushed_with_what_was_before(
    call: Call, images: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest run's interval, and the lower end of those before; an older run's labels change nothing."""
    with closing(Gateway()) as gateway:
        monkeypatch.setenv("IMAGEBATCH_METRICS_URL", gateway.url)

        def value(bound: str) -> float:
            return gateway.value("pipeline/nightly", "imagebatch_labelled_accuracy", bound=bound)

        for name, right in (("a", 20), ("b", 5)):
            assert scored(call, name, images, "--pipeline", "nightly").code == 0
            assert call("report", "--run-id", name, "--pipeline", "nightly").code == 0
            out = tmp_path / name
            asked = ("--run-id", name, "--format", "csv")
            assert call("review", "export", *asked, "--out", out, "--sample", 20).code == 0
            rows = pq.read_table(runs / name / "output/predictions.parquet").to_pylist()
            said = {row["image_id"]: row["label_1"] for row in rows}
            first = {
                row["image_id"] for row in csv.DictReader((out / "queue.csv").read_text("utf-8").splitlines())
            }
            kept_right = sorted(first)[:right]
            wrong = {label: LABELS[(LABELS.index(label) + 1) % 4] for label in LABELS}
            judge = {each: said[each] if each in kept_right else wrong[said[each]] for each in first}
            (tmp_path / f"{name}.csv").write_bytes(review_exports.table(out, judge.__getitem__))
            assert call("labels", "import", *asked, "--file", tmp_path / f"{name}.csv").code == 0
            if name == "a":
                assert ("imagebatch_labelled_accuracy", (("bound", "former_low"),)) not in gateway.groups[
                    "/metrics/job/imagebatch/pipeline/nightly"
                ]
        assert value("estimate") == 0.25
        assert (value("low"), value("high")) == pytest.approx((0.1119, 0.4687), abs=1e-4)
        assert value("former_low") == pytest.approx(0.8389, abs=1e-4)  # 20 of 20
        pushes = len(gateway.pushes)
        assert (
            call("labels", "import", *("--run-id", "a", "--format", "csv"), "--file", tmp_path / "a.csv").code
            == 0
        )
        assert (value("estimate"), len(gateway.pushes)) == (0.25, pushes)


def test_without_a_report_it_is_told_that_no_alert_hears_of_it(
    call: Call, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are kept, one line says what is missing; with a report the same import is pushed."""
    with closing(Gateway()) as gateway:
        monkeypatch.setenv("IMAGEBATCH_METRICS_URL", gateway.url)
        assert scored(call, "r", images, "--pipeline", "nightly").code == 0
        asked = ("--run-id", "r", "--format", "csv")
        assert call("review", "export", *asked, "--out", tmp_path / "out", "--sample", 20).code == 0
        (tmp_path / "said.csv").write_bytes(review_exports.table(tmp_path / "out", lambda _: LABELS[0]))
        before = call("labels", "import", *asked, "--file", tmp_path / "said.csv")
        assert (before.code, before.last["sample"]) == (0, 20)
        assert "the run has no report" in before.err
        assert "imagebatch_labelled_accuracy" not in str(gateway.groups)
        assert call("report", "--run-id", "r", "--pipeline", "nightly").code == 0
        after = call("labels", "import", *asked, "--file", tmp_path / "said.csv")
        assert (after.code, "the run has no report" in after.err) == (0, False)
        told = gateway.value("pipeline/nightly", "imagebatch_labelled_accuracy", bound="estimate")
        assert told == pytest.approx(after.last["accuracy"])
