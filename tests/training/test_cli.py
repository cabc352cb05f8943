"""The command: quick where nothing is computed, and one line with an exit code where a step is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from imagebatch_training.cli import main

HEAVY = {"torch", "torchvision", "mlflow", "openvino", "nncf", "matplotlib", "onnx"}
VERBS = (
    *("weights", "data", "train", "sweep", "folds", "report", "archive", "parity", "release"),
    *("import", "layout", "evaluate"),
)


def test_help_needs_no_library_that_costs_seconds() -> None:
    """A fresh process that has parsed `--help` has loaded none of them."""
    script = (
        "import sys, imagebatch_training.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-Ic", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert set(re.findall(r"^    (\w+) ", done.stdout, re.MULTILINE)) == set(VERBS)


@pytest.mark.parametrize(
    ("verb", "remedy"),
    [
        (["train"], "run imagebatch-train weights"),
        (["sweep", "seed=1,2"], "run imagebatch-train weights"),
        (["report"], "run imagebatch-train train"),
        (["archive"], "run imagebatch-train train"),
        (["parity"], "run imagebatch-train archive"),
        (["layout"], "run imagebatch-train archive"),
        (["evaluate", "--predictions", "none.csv"], "run imagebatch-train data"),
    ],
)
def test_a_verb_names_the_one_that_comes_before(
    verb: list[str], remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In an empty folder: exit code 78, one line, nothing on stdout and nothing written."""
    paths = [f"paths.{name}='{tmp_path}'" for name in ("weights", "data", "training", "model_store")]
    assert main([*verb, *paths]) == 78
    written = capsys.readouterr()
    assert written.out == ""
    (line,) = written.err.splitlines()
    assert line.startswith("imagebatch-train: no ")
    assert line.endswith(remedy)
    assert not list(tmp_path.iterdir())


def test_a_verb_is_not_guessed_from_its_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    """`arch` is refused with the verbs that there are, as is a flag cut short."""
    for argv in (["arch"], ["report", "--js"]):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2
    assert "usage: imagebatch-train" in capsys.readouterr().err


def test_what_nobody_has_foreseen_is_one_line_and_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1, and the traceback in the file that the line names."""

    def break_down(*_: object) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("imagebatch_training.cli.load_settings", break_down)
    assert main(["report"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (file,) = tmp_path.glob("imagebatch-train-*.txt")
    assert line == f"imagebatch-train: not expected: KeyError: 'two\\nlines'; details in {file}"
    assert "Traceback (most recent call last)" in file.read_text()
