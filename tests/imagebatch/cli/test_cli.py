"""The command line: what is accepted, what is refused, and how it reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from imagebatch import cli

from tests.support.calls import Call
from tools.paths import ROOT


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists every flag with a sentence."""
    with pytest.raises(SystemExit) as caught:
        cli.call([command, "--help"])
    assert caught.value.code == 0
    fields = cli.COMMANDS[command].settings.model_fields
    text = capsys.readouterr().out
    for name, field in fields.items():
        assert name == "action" or f"--{name.replace('_', '-')}" in text
        assert field.description
        assert field.description in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nonsense"], "no command nonsense; there are preprocess"),
        (["preproces"], "no command preproces; did you mean preprocess?"),
        (["score"], "--run-id is required"),
        (["score", "--run-id", "../x"], "--run-id ../x: String should match pattern"),
        (["score", "--run-id", "x", "--pack-size", "0"], "--pack-size 0: Input should be greater than"),
        (["score", "--run-id", "x", "--nonsense", "1"], "unrecognized arguments: --nonsense 1"),
        (["score", "--run-id", "x", "--pack-sise=3"], "--pack-sise=3; did you mean --pack-size?"),
        (["score", "--run-id", "x", "--no-benhc"], "--no-benhc; did you mean --no-bench?"),
        (["score", "--run-id", "x", "--pack", "3"], "unrecognized arguments: --pack 3"),
        (["score", "--run-id", "x", "--pack-size"], "argument --pack-size: expected one argument"),
        (["preprocess", "--run-id", "x"], "give one of --input and --manifest"),
        (["preprocess", "--run-id", "x", "--input", "a", "--max-failures", "101%"], "--max-failures 101%"),
        (["check", "--run-id", "x", "--suite", "other"], "--suite other"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(call: Call, arguments: list[str], text: str) -> None:
    """A person sees what is wrong and nothing else."""
    outcome = call(*arguments)
    assert outcome.code == 2
    assert text in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is a flag or the variable of the same name."""
    monkeypatch.setenv("IMAGEBATCH_RUN_ID", "from-variable")
    monkeypatch.setenv("IMAGEBATCH_PACK_SIZE", "7")
    _, asked = cli.parse(["score", "--pack-size", "9"])
    assert asked.model_dump(include={"run_id", "pack_size"}) == {"run_id": "from-variable", "pack_size": 9}


def test_parse_only_touches_nothing(call: Call, runs: Path) -> None:
    """An orchestrator's tests can check the commands that it renders."""
    assert call("--parse-only", "score", "--run-id", "x", "--shard", "3").code == 0
    assert call("--parse-only", "score", "--shard", "x").code == 2
    assert not runs.exists()


def test_documented_settings_are_the_real_ones() -> None:
    """Every flag of a stage stands in docs/reference/protocol.md."""
    page = (ROOT / "docs/reference/protocol.md").read_text("utf-8")
    names = {name for command in cli.COMMANDS.values() for name in command.settings.model_fields}
    missing = sorted(name for name in names if f"`--{name.replace('_', '-')}" not in page)
    assert missing == ["action"]  # positional


def test_the_process_ends_when_the_command_does(tmp_path: Path) -> None:
    """No thread of a library delays the exit or changes its code, and what was printed arrives."""
    script = (
        "import sys, threading, time; from imagebatch.cli import main;"
        "threading.Thread(target=time.sleep, args=(30,)).start();"
        "sys.argv[1:] = ['verify', '--run-id', 'r']; main()"
    )
    environment = {"IMAGEBATCH_RUNS_URI": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 78
    assert done.stderr.endswith("it has no _SUCCESS\n")


def test_what_nobody_has_foreseen_is_one_line_and_a_file(
    call: Call, images: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1, and the traceback where the line says: in the run, or in the folder for temporary files."""

    def break_down(_: object) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("imagebatch.stages.postprocess.postprocess", break_down)
    assert call("preprocess", "--run-id", "r", "--input", images).code == 0
    for run_id, folder in (("r", runs / "r/telemetry/errors"), ("none", tmp_path)):
        outcome = call("postprocess", "--run-id", run_id)
        assert outcome.code == 1
        (line,) = outcome.err.splitlines()
        assert line.startswith("imagebatch: postprocess met what it does not expect: KeyError: 'two")
        (file,) = folder.glob("*-postprocess-*.txt")
        assert line.endswith(f"details in {file}")
        assert "Traceback (most recent call last)" in file.read_text()
        assert file.stat().st_mode & 0o077 == 0 or run_id == "r"
    assert not (runs / "none").exists()


def test_a_last_line_that_cannot_be_written_is_told() -> None:
    """Standard output is full: no traceback, and not the exit code of a line that arrived."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "imagebatch", "doctor", "--min-free-gb", "0"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 74
    assert (
        done.stderr
        == "imagebatch: doctor is done, but its result cannot be written: No space left on device\n"
    )
