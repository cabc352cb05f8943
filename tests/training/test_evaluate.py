import json
from pathlib import Path

import pytest
from imagebatch_training.cli import main
from imagebatch_training.errors import DataError
from imagebatch_training.evaluate import compare, draw_coverage, render
from imagebatch_training.images.labels import Example, Labels

HEADER = "image_id,sha256,label_1,label_2,probability_1,probability_2,model,model_version,model_digest"


def table() -> Labels:
    """Four test cells in two blocks, one training cell, an uncertain cell on each side."""
    rows = [("a", "x", 0, "test"), ("b", "x", 0, "test"), ("c", "y", 1, "test"), ("d", "y", 1, "test")]
    rows += [("t", "x", 2, "train"), ("u", "", 0, "test"), ("v", "", 2, "train")]
    examples = [Example(image_id=i, label=n, block=b, random_split="", block_split=s) for i, n, b, s in rows]
    return Labels(examples=examples, classes=["x", "y"])


def test_accuracy_counts_labelled_test_images_only() -> None:
    """Three of four are right; the training cell, right or wrong, and the uncertain cells do not count."""
    predictions = {
        "a": ("x", 0.9),
        "b": ("y", 0.6),
        "c": ("y", 0.8),
        "d": ("y", 0.7),
        "t": ("y", 1.0),
        "u": ("x", 0.5),
        "v": ("y", 0.95),
        "stranger": ("x", 1.0),
    }
    result = compare(table(), predictions)
    assert result["test"]["images"] == 4
    assert result["test"]["blocks"] == 2
    assert result["test"]["accuracy"] == 0.75
    assert result["test"]["wilson"] == pytest.approx((0.3006, 0.9544), abs=5e-5)
    assert result["test"]["block_bootstrap"] == (0.5, 1.0)
    assert result["test"]["classes"]["x"]["recall"] == 0.5
    assert (result["known"], result["unknown"], result["missing"]) == (7, 1, 0)
    assert result["confidence"] == pytest.approx(
        {
            "certain_images": 4,
            "certain_mean": 0.75,
            "uncertain_images": 2,
            "uncertain_mean": 0.725,
            "auroc": 0.5,
        }
    )
    assert result["confidence_in_test_blocks"]["auroc"] == 1.0


def test_missing_predictions_are_told_and_not_counted_as_wrong() -> None:
    """A run over a part of the images is evaluated on that part."""
    result = compare(table(), {"a": ("x", 0.9), "c": ("y", 0.9)})
    assert result["test"]["accuracy"] == 1.0
    assert result["missing"] == 2
    assert result["confidence"] is None


def test_a_run_over_other_images_is_refused() -> None:
    """Neither an accuracy of nothing nor one of foreign labels is printed."""
    with pytest.raises(DataError, match="none of the test images"):
        compare(table(), {"stranger": ("x", 0.9)})
    with pytest.raises(DataError, match="'tabby', which is no class"):
        compare(table(), {"a": ("tabby", 0.9)})


def test_the_command_reads_a_runs_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """predictions.csv as the pipeline writes it (CRLF, more columns) gives text, or with --json JSON."""
    folder = tmp_path / "solar-cells"
    folder.mkdir()
    lines = ["image_id,label,block,random_split,block_split", "a,mono-sound,0,train,test"]
    lines += ["b,poly-sound,1,test,test", "u,,1,,test"]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    predictions = tmp_path / "predictions.csv"
    rows = [f"{i},0,mono-sound,poly-sound,{p},0.100000,solar-cells,1.0,sha256:0" for i, p in ROWS]
    predictions.write_bytes("\r\n".join([HEADER, *rows, ""]).encode())
    command = ["evaluate", "--predictions", str(predictions), f"paths.data='{tmp_path}'"]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"]["accuracy"] == 0.5
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("accuracy 0.500: 2 labelled images of 2 test blocks\n")


ROWS = (("a", "0.900000"), ("b", "0.800000"), ("u", "0.600000"))


def test_a_file_that_is_no_predictions_csv_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file is 78, another file is 65, and both say what to give."""
    folder = tmp_path / "solar-cells"
    folder.mkdir()
    (folder / "labels.csv").write_text(
        "image_id,label,block,random_split,block_split\na,mono-sound,0,train,test\nb,poly-sound,1,test,test\n"
    )
    other = tmp_path / "other.csv"
    arguments = ["evaluate", "--predictions", str(other), f"paths.data='{tmp_path}'"]
    assert main(arguments) == 78
    other.write_text("a,b\n1,2\n")
    assert main(arguments) == 65
    assert "has no column image_id" in capsys.readouterr().err


def test_accuracy_against_coverage_is_told_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The surest half is right, all of them less often; the picture is one."""
    predictions = {"a": ("x", 0.9), "b": ("y", 0.6), "c": ("y", 0.8), "d": ("y", 0.7)}
    result = compare(table(), predictions)
    assert [(one["coverage"], one["accuracy"]) for one in result["coverage"]] == [
        (0.25, 1.0),
        (0.5, 1.0),
        (0.75, 1.0),
        (1.0, 0.75),
    ]
    assert "50% of the images, probability 0.800 or more: accuracy 1.000 (0.342-1.000)" in render(result)
    draw_coverage(result["coverage"], tmp_path / "new" / "curve.png")
    assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")
    arguments = ["evaluate", "--predictions", "none.csv", "--picture", "curve.txt"]
    assert main(arguments) == 78
    assert "give a file that ends in .png or .svg" in capsys.readouterr().err
